#include "cli/client/openai_client.h"

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/testing/scripted_http_server.h"
#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::nlohmann::json;
using ::tessera::testing::IsOk;
using ::tessera::testing::IsOkAndHolds;
using ::tessera::testing::ReceivedRequest;
using ::tessera::testing::ScriptedAnswer;
using ::tessera::testing::ScriptedHttpServer;
using ::tessera::testing::StatusIs;
using ::tessera::testing::StreamAnswer;
using ::tessera::testing::WholeAnswer;
using ::testing::HasSubstr;

absl::StatusOr<std::string> FirstModelOf(int status, const std::string& body) {
  ScriptedHttpServer server([&](const ReceivedRequest& request) {
    EXPECT_EQ(request.target, "/v1/models");
    return WholeAnswer(status, "application/json", body);
  });
  return (*OpenAiClient::Create({.url = server.url() + "/v1/"}, ""))->FirstModel();
}

// Sends one request to a server with this answer; stops after `chunks_max` chunks.
StreamEnd EndOf(const ScriptedAnswer& answer, int* num_chunks = nullptr,
                int chunks_max = 100) {
  ScriptedHttpServer server([&](const ReceivedRequest&) { return answer; });
  auto client = OpenAiClient::Create({.url = server.url()}, "");
  int seen = 0;
  const StreamEnd end =
      (*client)->Stream("/v1/completions", json::object(),
                        [&](const json&) { return ++seen < chunks_max; });
  if (num_chunks != nullptr) {
    *num_chunks = seen;
  }
  return end;
}

TEST(OpenAiClient, TheFirstModelIsTheFirstListed) {
  EXPECT_THAT(FirstModelOf(200, R"({"data":[{"id":"a"},{"id":"b"}]})"),
              IsOkAndHolds("a"));
}

TEST(OpenAiClient, AListWithoutModelsIsNotFound) {
  EXPECT_THAT(FirstModelOf(200, R"({"data":[]})"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(FirstModelOf(200, R"({"data":[7,{"id":null}]})"),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST(OpenAiClient, WhatIsNoListIsDataLoss) {
  for (const char* body : {"", "[]", "{}", R"({"data":{}})", "<html>"}) {
    EXPECT_THAT(FirstModelOf(200, body), StatusIs(absl::StatusCode::kDataLoss)) << body;
  }
}

TEST(OpenAiClient, ARefusalCarriesTheMessageOfTheServer) {
  EXPECT_THAT(FirstModelOf(401, R"({"error":{"message":"wrong key"}})"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("wrong key")));
  EXPECT_THAT(FirstModelOf(502, "<html>"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("502")));
}

TEST(OpenAiClient, AStreamEndsWithDone) {
  int num_chunks = 0;
  const StreamEnd end = EndOf(StreamAnswer({"{}", "{}", "[DONE]"}), &num_chunks);
  EXPECT_THAT(end.status, IsOk());
  EXPECT_EQ(end.kind, "");
  EXPECT_EQ(num_chunks, 2);
}

TEST(OpenAiClient, ASinkThatHasEnoughIsNoFailure) {
  int num_chunks = 0;
  const StreamEnd end = EndOf(StreamAnswer({"{}", "{}", "{}"}), &num_chunks, 2);
  EXPECT_THAT(end.status, IsOk());
  EXPECT_EQ(num_chunks, 2);
}

TEST(OpenAiClient, EveryOtherEndHasItsKind) {
  const std::string error = R"({"error":{"message":"why","code":null}})";
  EXPECT_EQ(EndOf(WholeAnswer(429, "application/json", error)).kind, "http 429");
  EXPECT_EQ(EndOf(WholeAnswer(500, "text/html", "<p>")).kind, "http 500");
  EXPECT_EQ(EndOf(StreamAnswer({"{}", error})).kind, "stream error");
  EXPECT_EQ(EndOf(StreamAnswer({"{}"})).kind, "cut short");
  EXPECT_EQ(EndOf(StreamAnswer({"[]"})).kind, "malformed");
  EXPECT_EQ(EndOf(WholeAnswer(200, "application/json", "{}")).kind, "malformed");
  ScriptedAnswer cut = StreamAnswer({"{}"});
  cut.pieces.pop_back();
  cut.close = true;
  EXPECT_EQ(EndOf(cut).kind, "connection");
}

TEST(OpenAiClient, AMessageOfAServerIsBounded) {
  const json error = {{"error", {{"message", std::string(100000, 'x')}}}};
  EXPECT_LT(
      EndOf(WholeAnswer(400, "application/json", error.dump())).status.message().size(),
      1000U);
}

}  // namespace
}  // namespace tessera::cli
