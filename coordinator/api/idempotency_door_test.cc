// What Idempotency-Key does on the routes that generate, in every dialect.
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/api_service.h"
#include "tests/testing/api_fixture.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;
using tessera::tests::Door;
using tessera::tests::kDoors;
using tessera::tests::MemoryWriter;

class Idempotency : public tessera::tests::ApiFixture {
 protected:
  std::shared_ptr<MemoryWriter> Ask(const Door& door, const std::string& key,
                                    const std::string& more = "}",
                                    HttpHeaders headers = {}) {
    headers.emplace_back("idempotency-key", key);
    return Send("POST", door.path, door.body + more, std::move(headers));
  }

  // Lets the engine answer submission `index` and `writer` take it.
  void Finish(size_t index, MemoryWriter* writer) {
    engine_.Token(index, 0, "x");
    engine_.Finish(index, 1);
    writer->Run();
  }
};

TEST_F(Idempotency, ARepeatedRequestGetsTheFirstAnswerAndTheEngineSeesItOnce) {
  size_t count = 0;
  for (const Door& door : kDoors) {
    SCOPED_TRACE(door.path);
    const auto first = Ask(door, door.path);
    const auto waits = Ask(door, door.path);
    ASSERT_EQ(engine_.num_submitted(), count + 1);
    EXPECT_FALSE(waits->answer.has_value());
    Finish(count++, first.get());
    const auto later = Ask(door, door.path);
    ASSERT_TRUE(first->answer && waits->answer && later->answer);
    EXPECT_EQ(first->answer->status, 200);
    for (const auto& repeated : {waits, later}) {
      EXPECT_EQ(repeated->answer->body, first->answer->body);
      EXPECT_EQ(FindHeader(repeated->answer->headers, "idempotent-replayed"), "true");
      EXPECT_NE(FindHeader(repeated->answer->headers, "x-request-id"),
                FindHeader(first->answer->headers, "x-request-id"));
    }
    EXPECT_EQ(engine_.num_submitted(), count);
  }
}

struct CountedOutcomes : ApiObserver {
  void OnIdempotencyKey(IdempotencyOutcome outcome) override {
    outcomes.push_back(outcome);
  }
  std::vector<IdempotencyOutcome> outcomes;
};

TEST_F(Idempotency, EveryRequestWithAKeyIsCountedByWhatItGot) {
  CountedOutcomes counted;
  observer_ = &counted;
  Build(tests::SmallApiOptions());
  const Door& door = kDoors[0];
  Post(door.path, std::string(door.body) + "}");  // without a key: not counted
  const auto first = Ask(door, "a");
  Ask(door, "a");
  Finish(1, first.get());
  Ask(door, "a");
  Ask(door, "a", ",\"max_tokens\":3}");
  Ask(door, "");
  EXPECT_THAT(
      counted.outcomes,
      ::testing::ElementsAre(IdempotencyOutcome::kFirst, IdempotencyOutcome::kWaits,
                             IdempotencyOutcome::kReplayed, IdempotencyOutcome::kRefused,
                             IdempotencyOutcome::kRefused));
}

TEST_F(Idempotency, AStreamIsRepeatedByteForByte) {
  size_t count = 0;
  for (const Door& door : kDoors) {
    SCOPED_TRACE(door.path);
    const auto first = Ask(door, door.path, R"(,"stream":true})");
    Finish(count++, first.get());
    std::string bytes;
    for (const std::string& chunk : first->chunks) {
      bytes += chunk;
    }
    const auto later = Ask(door, door.path, R"(,"stream":true})");
    ASSERT_TRUE(later->answer.has_value());
    EXPECT_EQ(later->answer->body, bytes);
    EXPECT_EQ(later->answer->content_type, first->stream->content_type);
    EXPECT_EQ(engine_.num_submitted(), count);
  }
}

TEST_F(Idempotency, ThoseWhoLeftDoNotKeepOthersFromWaiting) {
  const auto first = Ask(kDoors[0], "k");
  for (int i = 0; i < 20; ++i) {
    const auto waits = Ask(kDoors[0], "k");
    ASSERT_FALSE(waits->answer.has_value()) << i << ": " << waits->answer->body;
    waits->Disconnect();
  }
  const auto waits = Ask(kDoors[0], "k");
  Finish(0, first.get());
  ASSERT_TRUE(waits->answer.has_value());
  EXPECT_EQ(waits->answer->body, first->answer->body);
}

TEST_F(Idempotency, AnotherBodyOrRouteUnderTheSameKeyIs409) {
  const auto first = Ask(kDoors[0], "k");
  const auto body = Ask(kDoors[0], "k", R"(,"seed":1})");
  const auto route = Ask(kDoors[3], "k");
  ASSERT_TRUE(body->answer && route->answer);
  EXPECT_EQ(body->answer->status, 409);
  EXPECT_EQ(json::parse(body->answer->body)["error"]["code"], "idempotency_key_reused");
  EXPECT_EQ(FindHeader(body->answer->headers, "x-should-retry"), "false");
  EXPECT_EQ(route->answer->status, 409);
  EXPECT_EQ(json::parse(route->answer->body)["error"]["type"], "invalid_request_error");
  EXPECT_EQ(engine_.num_submitted(), 1);
}

TEST_F(Idempotency, TenantsDoNotSeeEachOthersKeys) {
  auto options = tessera::tests::SmallApiOptions();
  options.access.keys = tessera::tests::PlainKeys({"one", "two"});
  options.access.keys[0].info.tenant = "a";
  options.access.keys[1].info.tenant = "b";
  Build(options);
  Ask(kDoors[0], "k", "}", {{"x-api-key", "one"}});
  Ask(kDoors[0], "k", R"(,"seed":1})", {{"x-api-key", "two"}});
  EXPECT_EQ(engine_.num_submitted(), 2);
}

TEST_F(Idempotency, ARepeatedRequestIsChargedToNoGrant) {
  auto options = tessera::tests::SmallApiOptions();
  options.access.keys = tessera::tests::PlainKeys({"one"});
  options.access.keys[0].info.tenant = "a";
  options.access.tenants = {{.name = "a", .requests_per_minute = 2}};
  Build(options);
  const HttpHeaders key = {{"x-api-key", "one"}};
  const auto first = Ask(kDoors[1], "k", "}", key);
  Finish(0, first.get());
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Ask(kDoors[1], "k", "}", key)->answer->status, 200);
  }
  const auto next = Ask(kDoors[1], "other", "}", key);
  EXPECT_EQ(engine_.num_submitted(), 2);
}

TEST_F(Idempotency, AnErrorMayBeTriedAgain) {
  engine_.Refuse(absl::ResourceExhaustedError("full"));
  EXPECT_EQ(Ask(kDoors[1], "k")->answer->status, 429);
  engine_.Refuse(absl::OkStatus());
  const auto again = Ask(kDoors[1], "k");
  Finish(0, again.get());
  EXPECT_EQ(again->answer->status, 200);
}

TEST_F(Idempotency, AKeyThatNoHeaderShouldHoldIs400) {
  for (const std::string& key :
       {std::string(), std::string(256, 'k'), std::string("a\tb"), std::string("ä")}) {
    const auto refused = Ask(kDoors[1], key);
    ASSERT_TRUE(refused->answer.has_value());
    EXPECT_EQ(refused->answer->status, 400) << key;
    EXPECT_EQ(json::parse(refused->answer->body)["error"]["param"], "Idempotency-Key");
  }
  EXPECT_EQ(Ask(kDoors[1], "a", "}", {{"Idempotency-Key", "b"}})->answer->status, 400);
  EXPECT_EQ(engine_.num_submitted(), 0);
}

TEST_F(Idempotency, AServerWithoutThemSaysSo) {
  auto options = tessera::tests::SmallApiOptions();
  options.idempotency.max_keys = 0;
  Build(options);
  const auto refused = Ask(kDoors[1], "k");
  EXPECT_EQ(refused->answer->status, 400);
  EXPECT_EQ(json::parse(refused->answer->body)["error"]["code"], "unsupported_parameter");
}

}  // namespace
}  // namespace tessera::coordinator
