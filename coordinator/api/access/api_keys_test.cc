#include "coordinator/api/access/api_keys.h"

#include <string>

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using tessera::testing::IsOk;
using tessera::testing::StatusIs;

const absl::Time kNow = absl::FromUnixSeconds(1000);

ApiKeyRecord Record(std::string_view key, std::string tenant) {
  ApiKeyRecord record = *RecordOfPlainKey(key, KeyRole::kUser);
  record.info.tenant = std::move(tenant);
  return record;
}

TEST(ApiKeys, AnEmptySetAcceptsEveryoneAsTheTenantWithoutAName) {
  const auto keys = ApiKeys::Create({});
  ASSERT_THAT(keys, IsOk());
  EXPECT_TRUE(keys->empty());
  const auto info = keys->Find("", kNow);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->tenant, "");
  EXPECT_EQ(info->role, KeyRole::kAdmin);
}

TEST(ApiKeys, OnlyTheExactKeyIsAcceptedAndNamesItsTenant) {
  const auto keys = ApiKeys::Create({Record("sk-one", "a"), Record("sk-two", "b")});
  ASSERT_THAT(keys, IsOk());
  EXPECT_EQ(keys->Find("sk-one", kNow)->tenant, "a");
  EXPECT_EQ(keys->Find("sk-two", kNow)->tenant, "b");
  for (const char* wrong : {"", "sk-on", "sk-one ", "SK-ONE", "sk-three"}) {
    EXPECT_FALSE(keys->Find(wrong, kNow).has_value()) << wrong;
  }
  EXPECT_FALSE(keys->Find(std::string(1 << 20, 'k'), kNow).has_value());
}

TEST(ApiKeys, TheHashOfAKeyIsNoKey) {
  const ApiKeyRecord record = Record("sk-one", "a");
  const auto keys = ApiKeys::Create({record});
  ASSERT_THAT(keys, IsOk());
  EXPECT_FALSE(keys->Find(ShowKeyDigest(record.digest), kNow).has_value());
}

TEST(ApiKeys, AKeyEndsAtItsExpiry) {
  ApiKeyRecord record = Record("sk-one", "a");
  record.expires = kNow;
  const auto keys = ApiKeys::Create({record});
  ASSERT_THAT(keys, IsOk());
  EXPECT_TRUE(keys->Find("sk-one", kNow - absl::Seconds(1)).has_value());
  EXPECT_FALSE(keys->Find("sk-one", kNow).has_value());
}

TEST(ApiKeys, OneKeyHasOneOwner) {
  EXPECT_THAT(ApiKeys::Create({Record("sk-one", "a"), Record("sk-one", "a")}), IsOk());
  EXPECT_THAT(ApiKeys::Create({Record("sk-one", "a"), Record("sk-one", "b")}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ApiKeys, TooManyAreRefused) {
  std::vector<ApiKeyRecord> records(kMaxApiKeys + 1, Record("sk-one", "a"));
  EXPECT_THAT(ApiKeys::Create(records), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ApiKeyRecord, KeysThatNoHeaderCanCarryAreRefused) {
  for (const std::string& key : {std::string(), std::string("with space"),
                                 std::string("line\n"), std::string(1025, 'k')}) {
    EXPECT_THAT(RecordOfPlainKey(key, KeyRole::kUser),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(ApiKeyRecord, TwoKeysInClearAreTwoTenantsThatStayTheSame) {
  const auto one = RecordOfPlainKey("sk-one", KeyRole::kUser);
  const auto two = RecordOfPlainKey("sk-two", KeyRole::kAdmin);
  ASSERT_THAT(one, IsOk());
  ASSERT_THAT(two, IsOk());
  EXPECT_NE(one->info.tenant, two->info.tenant);
  EXPECT_EQ(one->info, RecordOfPlainKey("sk-one", KeyRole::kUser)->info);
  EXPECT_EQ(two->info.role, KeyRole::kAdmin);
}

TEST(KeyDigest, IsTheSha256OfTheKeyAndReadsBack) {
  const auto digest = HashApiKey("abc");
  ASSERT_THAT(digest, IsOk());
  const std::string text = ShowKeyDigest(*digest);
  EXPECT_EQ(text,
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(*ParseKeyDigest(text), *digest);
}

TEST(KeyDigest, AnythingElseIsRefusedWithoutRepeatingIt) {
  for (const std::string& text :
       {std::string("sk-secret"), std::string("sha256:00"),
        "sha256:" + std::string(63, '0') + "g", "sha256:" + std::string(65, '0')}) {
    const auto digest = ParseKeyDigest(text);
    ASSERT_THAT(digest, StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_EQ(digest.status().message().find("secret"), absl::string_view::npos);
  }
}

TEST(NewApiKey, HasTwoHundredAndFiftySixBitsAndIsNeverTheSame) {
  const auto one = NewApiKey();
  const auto two = NewApiKey();
  ASSERT_THAT(one, IsOk());
  ASSERT_THAT(two, IsOk());
  EXPECT_EQ(one->size(), 3u + 64u);
  EXPECT_NE(*one, *two);
}

}  // namespace
}  // namespace tessera::coordinator
