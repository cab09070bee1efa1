// What the doors of the API do with keys: whose a request is, and what changes while the
// server runs.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/access/access_control.h"
#include "coordinator/api/api_service.h"
#include "tests/testing/api_fixture.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;
using tessera::testing::IsOk;
using tessera::testing::StatusIs;
using tessera::tests::Door;
using tessera::tests::kDoors;

class Access : public tessera::tests::ApiFixture {
 protected:
  static ApiKeyRecord Record(const std::string& key, const std::string& tenant) {
    ApiKeyRecord record = RecordOfPlainKey(key, KeyRole::kUser).value();
    record.info.tenant = tenant;
    return record;
  }

  void BuildWith(std::vector<ApiKeyRecord> keys) {
    auto options = tessera::tests::SmallApiOptions();
    options.access.keys = std::move(keys);
    Build(options);
  }
};

TEST_F(Access, TheTenantOfARequestIsItsKeysInEveryDialect) {
  BuildWith({Record("one", "a"), Record("two", "b")});
  size_t count = 0;
  for (const Door& door : kDoors) {
    Send("POST", door.path, std::string(door.body) + "}", {{"x-api-key", "one"}});
    Send("POST", door.path, std::string(door.body) + "}",
         {{"authorization", "Bearer two"}});
    EXPECT_EQ(engine_.submitted(count++).request.tenant(), "a") << door.path;
    EXPECT_EQ(engine_.submitted(count++).request.tenant(), "b") << door.path;
  }
}

TEST_F(Access, NothingInARequestButItsKeySaysWhoseItIs) {
  BuildWith({Record("one", "a")});
  size_t count = 0;
  for (const Door& door : kDoors) {
    Send("POST", door.path, std::string(door.body) + R"(,"tenant":"b","user":"b"})",
         {{"x-api-key", "one"}, {"x-tenant", "b"}, {"x-tessera-tenant", "b"}});
    EXPECT_EQ(engine_.submitted(count++).request.tenant(), "a") << door.path;
  }
}

TEST_F(Access, WithoutKeysEverybodyIsTheTenantWithoutAName) {
  Send("POST", kDoors[0].path, std::string(kDoors[0].body) + "}",
       {{"authorization", "Bearer anything"}});
  EXPECT_EQ(engine_.submitted(0).request.tenant(), "");
}

TEST_F(Access, ATenantThatUsedUpItsGrantIs429InEveryDialectAndOthersAreNot) {
  for (const Door& door : kDoors) {
    SCOPED_TRACE(door.path);
    auto options = tessera::tests::SmallApiOptions();
    options.access.keys = {Record("one", "a"), Record("two", "b")};
    options.access.tenants = {{.name = "a", .requests_per_minute = 1}};
    Build(options);
    const std::string body = std::string(door.body) + "}";
    Send("POST", door.path, body, {{"x-api-key", "one"}});
    const auto refused = Send("POST", door.path, body, {{"x-api-key", "one"}});
    ASSERT_TRUE(refused->answer.has_value());
    EXPECT_EQ(refused->answer->status, 429);
    EXPECT_EQ(FindHeader(refused->answer->headers, "retry-after"), "60");
    EXPECT_EQ(FindHeader(refused->answer->headers, "x-should-retry"), "true");
    const json error = json::parse(refused->answer->body)["error"];
    EXPECT_EQ(error["type"], "rate_limit_error");
    EXPECT_FALSE(
        Send("POST", door.path, body, {{"x-api-key", "two"}})->answer.has_value());
  }
}

TEST_F(Access, AnswersTellWhatIsLeftOfTheGrant) {
  auto options = tessera::tests::SmallApiOptions();
  options.access.keys = {Record("one", "a"), Record("two", "b")};
  options.access.tenants = {
      {.name = "a", .tokens_per_minute = 120, .requests_per_minute = 60}};
  Build(options);
  const size_t first = engine_.num_submitted();
  const auto whole =
      Send("POST", "/v1/completions", R"({"prompt":"abc"})", {{"x-api-key", "one"}});
  engine_.Token(first, 0, "x");
  engine_.Finish(first, 1);
  whole->Run();
  const HttpHeaders& headers = whole->answer->headers;
  EXPECT_EQ(FindHeader(headers, "x-ratelimit-limit-requests"), "60");
  EXPECT_EQ(FindHeader(headers, "x-ratelimit-remaining-requests"), "59");
  EXPECT_EQ(FindHeader(headers, "x-ratelimit-reset-requests"), "1s");
  EXPECT_EQ(FindHeader(headers, "x-ratelimit-limit-tokens"), "120");
  EXPECT_EQ(FindHeader(headers, "x-ratelimit-remaining-tokens"), "116");
  EXPECT_EQ(FindHeader(headers, "x-ratelimit-reset-tokens"), "2s");
  const auto stream =
      Send("POST", "/v1/messages", std::string(kDoors[3].body) + R"(,"stream":true})",
           {{"x-api-key", "one"}});
  EXPECT_EQ(FindHeader(stream->stream->headers, "anthropic-ratelimit-requests-remaining"),
            "58");
  EXPECT_EQ(FindHeader(stream->stream->headers, "anthropic-ratelimit-requests-reset"),
            "1970-01-01T00:16:42Z");
  EXPECT_EQ(FindHeader(stream->stream->headers, "x-ratelimit-limit-requests"), "");
  const auto free = Send("GET", "/v1/models", "", {{"x-api-key", "two"}});
  EXPECT_EQ(FindHeader(free->answer->headers, "x-ratelimit-limit-requests"), "");
}

TEST_F(Access, APromptLargerThanTheGrantIsRefusedForGood) {
  auto options = tessera::tests::SmallApiOptions();
  options.access.keys = {Record("one", "a")};
  options.access.tenants = {{.name = "a", .tokens_per_minute = 2}};
  Build(options);
  const auto refused =
      Send("POST", "/v1/completions", R"({"prompt":"abc"})", {{"x-api-key", "one"}});
  EXPECT_EQ(refused->answer->status, 429);
  EXPECT_EQ(FindHeader(refused->answer->headers, "retry-after"), "");
  EXPECT_EQ(FindHeader(refused->answer->headers, "x-should-retry"), "false");
  EXPECT_EQ(json::parse(refused->answer->body)["error"]["code"], "rate_limit_exceeded");
}

TEST_F(Access, NewKeysTakeThePlaceOfTheOldAtOnce) {
  BuildWith({Record("old", "a")});
  const auto running = Send("POST", kDoors[1].path, std::string(kDoors[1].body) + "}",
                            {{"x-api-key", "old"}});
  AccessConfig next;
  next.keys = {Record("new", "a")};
  ASSERT_THAT(service_->access()->Replace(next), IsOk());
  EXPECT_EQ(Send("GET", "/v1/models", "", {{"x-api-key", "old"}})->answer->status, 401);
  EXPECT_EQ(Send("GET", "/v1/models", "", {{"x-api-key", "new"}})->answer->status, 200);
  // What was let in goes on.
  engine_.Finish(0, 1);
  running->Run();
  EXPECT_EQ(running->answer->status, 200);
}

TEST_F(Access, AServerWithKeysIsNeverLeftWithoutAny) {
  BuildWith({Record("old", "a")});
  EXPECT_THAT(service_->access()->Replace(AccessConfig()),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(Get("/v1/models").status, 401);
  EXPECT_EQ(Send("GET", "/v1/models", "", {{"x-api-key", "old"}})->answer->status, 200);
}

TEST_F(Access, AnExpiredKeyIsNoKey) {
  ApiKeyRecord record = Record("one", "a");
  record.expires = clock_.Now() + absl::Seconds(5);
  BuildWith({record});
  const HttpHeaders key = {{"x-api-key", "one"}};
  EXPECT_EQ(Send("GET", "/v1/models", "", key)->answer->status, 200);
  clock_.Advance(absl::Seconds(5));
  const auto writer = Send("GET", "/v1/models", "", key);
  EXPECT_EQ(writer->answer->status, 401);
  EXPECT_EQ(json::parse(writer->answer->body)["error"]["code"], "invalid_api_key");
}

}  // namespace
}  // namespace tessera::coordinator
