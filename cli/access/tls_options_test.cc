#include "cli/access/tls_options.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using coordinator::ClientCertificates;
using tessera::testing::IsOk;
using tessera::testing::StatusIs;

TEST(TlsFlags, NoneMeansNoTls) {
  EXPECT_FALSE(TlsFlags{}.on());
  EXPECT_THAT(TlsOptionsOf(TlsFlags{}), IsOk());
}

TEST(TlsFlags, ClientCertificatesHaveVllmsNumbersAndNames) {
  for (const auto& [text, wanted] :
       {std::pair("1", ClientCertificates::kOptional),
        std::pair("optional", ClientCertificates::kOptional),
        std::pair("2", ClientCertificates::kRequired),
        std::pair("required", ClientCertificates::kRequired)}) {
    const auto options = TlsOptionsOf({"c", "k", "ca", text});
    ASSERT_THAT(options, IsOk());
    EXPECT_EQ(options->client_certificates, wanted);
  }
}

TEST(TlsFlags, CombinationsThatWouldDoNothingAreRefused) {
  for (const TlsFlags& flags :
       {TlsFlags{"c", "", "", "0"}, TlsFlags{"", "k", "", "0"},
        TlsFlags{"c", "k", "ca", "0"}, TlsFlags{"c", "k", "", "2"},
        TlsFlags{"", "", "ca", "2"}}) {
    EXPECT_THAT(TlsOptionsOf(flags), StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

}  // namespace
}  // namespace tessera::cli
