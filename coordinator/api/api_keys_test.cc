#include "coordinator/api/api_keys.h"

#include <string>

#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

TEST(ApiKeys, AnEmptySetAcceptsEveryone) {
  const auto keys = ApiKeys::Create({});
  ASSERT_TRUE(keys.ok());
  EXPECT_TRUE(keys->empty());
  EXPECT_TRUE(keys->Accepts(""));
}

TEST(ApiKeys, OnlyTheExactKeyIsAccepted) {
  const auto keys = ApiKeys::Create({"sk-one", "sk-two"});
  ASSERT_TRUE(keys.ok());
  EXPECT_TRUE(keys->Accepts("sk-one"));
  EXPECT_TRUE(keys->Accepts("sk-two"));
  for (const char* wrong : {"", "sk-on", "sk-one ", "SK-ONE", "sk-three"}) {
    EXPECT_FALSE(keys->Accepts(wrong)) << wrong;
  }
  EXPECT_FALSE(keys->Accepts(std::string(1 << 20, 'k')));
}

TEST(ApiKeys, KeysThatNoHeaderCanCarryAreRefused) {
  EXPECT_FALSE(ApiKeys::Create({""}).ok());
  EXPECT_FALSE(ApiKeys::Create({"with space"}).ok());
  EXPECT_FALSE(ApiKeys::Create({"line\n"}).ok());
  EXPECT_FALSE(ApiKeys::Create({std::string(1025, 'k')}).ok());
}

}  // namespace
}  // namespace tessera::coordinator
