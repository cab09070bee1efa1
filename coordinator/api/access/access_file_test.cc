#include "coordinator/api/access/access_file.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using tessera::testing::IsOk;
using tessera::testing::StatusIs;
using ::testing::HasSubstr;

const std::string kHash = "sha256:" + std::string(64, 'a');

TEST(AccessFile, TenantsAndKeysAreRead) {
  AccessConfig config;
  ASSERT_THAT(
      ParseAccessText("# who may call\n"
                      "\n"
                      "tenant team-a weight=2.5 best-priority=-3 requests-per-minute=600 "
                      "tokens-per-minute=200000 max-running-tokens=7 "
                      "min-cached-blocks=8 max-concurrent-requests=9\r\n"
                      "tenant * requests-per-minute=60\n"
                      "key " +
                          kHash +
                          "\ttenant=team-a name=laptop role=admin "
                          "expires=2027-06-30  # Ada's\n",
                      &config),
      IsOk());
  ASSERT_EQ(config.tenants.size(), 1u);
  const TenantPolicy& tenant = config.tenants[0];
  EXPECT_EQ(tenant.name, "team-a");
  EXPECT_EQ(tenant.weight, 2.5);
  EXPECT_EQ(tenant.best_priority, -3);
  EXPECT_EQ(tenant.requests_per_minute, 600);
  EXPECT_EQ(tenant.tokens_per_minute, 200000);
  EXPECT_EQ(tenant.max_running_tokens, 7);
  EXPECT_EQ(tenant.min_cached_blocks, 8);
  EXPECT_EQ(tenant.max_concurrent_requests, 9);
  EXPECT_EQ(config.others.requests_per_minute, 60);
  ASSERT_EQ(config.keys.size(), 1u);
  EXPECT_EQ(config.keys[0].digest[0], 0xAA);
  EXPECT_EQ(config.keys[0].info, (KeyInfo{"team-a", "laptop", KeyRole::kAdmin}));
  EXPECT_EQ(absl::FormatTime(config.keys[0].expires, absl::UTCTimeZone()),
            "2027-06-30T00:00:00+00:00");
}

TEST(AccessFile, ALineOfAKeyReadsBack) {
  ApiKeyRecord record = *RecordOfPlainKey("sk-one", KeyRole::kAdmin);
  record.info.tenant = "ops";
  record.info.name = "pager";
  record.expires = absl::FromUnixSeconds(2000000000);
  AccessConfig config;
  ASSERT_THAT(ParseAccessText(AccessLineOf(record), &config), IsOk());
  ASSERT_EQ(config.keys.size(), 1u);
  EXPECT_EQ(config.keys[0].digest, record.digest);
  EXPECT_EQ(config.keys[0].info, record.info);
  EXPECT_EQ(config.keys[0].expires, record.expires);
}

TEST(AccessFile, AMistakeNamesItsLine) {
  const std::string key = "key " + kHash + " ";
  for (const std::string& line :
       {std::string("tenants a"), std::string("tenant"), std::string("tenant a b"),
        std::string("tenant a|b"), std::string("tenant a weight=0"),
        std::string("tenant a weight=nan"), std::string("tenant a best-priority=high"),
        std::string("tenant a weight="), std::string("tenant a requests-per-minute=-1"),
        std::string("tenant a requests-per-minute=1.5"),
        std::string("tenant a requests-per-hour=1"),
        std::string("tenant a weight=1 weight=2"), std::string("tenant x"),
        std::string("key sk-clear tenant=a"), key, key + "tenant=a role=root",
        key + "tenant=a expires=tomorrow", key + "tenant=a b=c", key + "tenant="}) {
    AccessConfig config;
    EXPECT_THAT(ParseAccessText("tenant x\n" + line + "\n", &config),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 2")))
        << line;
  }
}

TEST(AccessFile, AKeyInClearIsNotRepeated) {
  AccessConfig config;
  for (const char* line : {"sk-secret", "key sk-secret tenant=a"}) {
    const absl::Status status = ParseAccessText(line, &config);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_EQ(status.message().find("secret"), absl::string_view::npos);
  }
}

TEST(AccessFile, AMissingFileIsNamed) {
  AccessConfig config;
  EXPECT_THAT(ReadAccessFile("/no/such/file", &config),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/file")));
}

}  // namespace
}  // namespace tessera::coordinator
