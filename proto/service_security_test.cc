#include "gtest/gtest.h"

#include "proto/constant_time.h"
#include "proto/listen_address.h"

namespace tessera::proto {
namespace {

TEST(EqualInConstantTime, TellsEqualFromDifferent) {
  EXPECT_TRUE(EqualInConstantTime("secret", "secret"));
  EXPECT_TRUE(EqualInConstantTime("", ""));
  for (const char* given : {"", "s", "secreT", "Secret", "secretsecret", "secre"}) {
    EXPECT_FALSE(EqualInConstantTime(given, "secret")) << given;
  }
  EXPECT_FALSE(EqualInConstantTime("secret", ""));
}

TEST(IsLoopbackAddress, TakesOnlyAddressesOfThisMachine) {
  for (const char* address :
       {"127.0.0.1:0", "127.1.2.3:80", "localhost:1", "[::1]:5", "unix:/tmp/x"}) {
    EXPECT_TRUE(IsLoopbackAddress(address)) << address;
  }
  for (const char* address : {"0.0.0.0:1", "10.0.0.1:1", "127.example.org:1", "[::]:1",
                              "localhost.example.org:1", "127.0.0.1", "", ":80"}) {
    EXPECT_FALSE(IsLoopbackAddress(address)) << address;
  }
}

}  // namespace
}  // namespace tessera::proto
