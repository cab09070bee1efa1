#include "cli/access/access_options.h"

#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using tessera::testing::IsOk;
using tessera::testing::StatusIs;
using ::testing::HasSubstr;

std::string WriteFile(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

TEST(AccessOptions, FlagsAndFileAddUp) {
  AccessOptions options;
  options.api_key = {"sk-user"};
  options.admin_api_key = {"sk-admin"};
  options.api_key_file =
      WriteFile("keys", "key sha256:" + std::string(64, '0') + " tenant=a\n");
  options.requests_per_minute = 7;
  const auto config = LoadAccess(options);
  ASSERT_THAT(config, IsOk());
  ASSERT_EQ(config->keys.size(), 3u);
  EXPECT_EQ(config->keys[0].info.role, coordinator::KeyRole::kUser);
  EXPECT_EQ(config->keys[1].info.role, coordinator::KeyRole::kAdmin);
  EXPECT_EQ(config->keys[2].info.tenant, "a");
  EXPECT_EQ(config->others.requests_per_minute, 7);
}

TEST(AccessOptions, ALimitIsGivenInOnePlace) {
  AccessOptions options;
  options.api_key_file = WriteFile("star", "tenant * requests-per-minute=1\n");
  options.tokens_per_minute = 5;
  EXPECT_THAT(LoadAccess(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tenant *")));
}

TEST(AccessOptions, AnAddressBeyondLoopbackNeedsKeys) {
  AccessOptions options;
  EXPECT_THAT(CheckExposure("127.0.0.1", options), IsOk());
  EXPECT_THAT(CheckExposure("0.0.0.0", options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--api-key")));
  options.api_key_file = WriteFile("tenants-only", "tenant a weight=2\n");
  EXPECT_THAT(CheckExposure("0.0.0.0", options),
              StatusIs(absl::StatusCode::kInvalidArgument));
  options.api_key = {"sk-user"};
  EXPECT_THAT(CheckExposure("0.0.0.0", options), IsOk());
}

}  // namespace
}  // namespace tessera::cli
