#include "coordinator/api/api_service.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/testing/api_fixture.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Api = tessera::tests::ApiFixture;

// What the observer heard, one line each.
class RecordingObserver final : public ApiObserver {
 public:
  void OnHttpEnd(std::string_view route, std::string_view method, int code,
                 absl::Duration) override {
    lines.push_back(std::string(method) + " " + std::string(route) + " " +
                    std::to_string(code));
  }
  void OnStreamOpen() override { ++streams; }
  void OnStreamClose() override { --streams; }
  void OnClientDisconnect() override { ++disconnects; }
  void OnRejected(RejectReason reason) override { rejected.push_back(reason); }

  std::vector<std::string> lines;
  std::vector<RejectReason> rejected;
  int streams = 0;
  int disconnects = 0;
};

class FixedMetrics final : public MetricsText {
 public:
  std::string Render(MetricNames names) override {
    return names == MetricNames::kNative ? "native\n" : "others\n";
  }
};

TEST_F(Api, ModelsCarryTheContextLength) {
  const json list = json::parse(Get("/v1/models").body);
  ASSERT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(list["object"], "list");
  EXPECT_EQ(list["data"][0]["id"], "demo");
  EXPECT_EQ(list["data"][0]["max_model_len"], 64);
  EXPECT_EQ(json::parse(Get("/v1/models/alias").body)["id"], "alias");
  EXPECT_EQ(json::parse(Get("/v1/models/%61lias").body)["id"], "alias");
  EXPECT_EQ(Get("/v1/models/none").status, 404);
  EXPECT_EQ(json::parse(Get("/v1/models/none").body)["error"]["code"], "model_not_found");
}

TEST_F(Api, UnknownRoutesAndMethodsHaveTypedErrors) {
  EXPECT_EQ(Get("/nowhere").status, 404);
  EXPECT_EQ(Get("/nowhere?x=1").status, 404);
  const HttpResponse wrong = Get("/v1/chat/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(FindHeader(wrong.headers, "allow"), "POST, OPTIONS");
  EXPECT_EQ(Post("/v1/embeddings", "{}")->answer->status, 404);
  for (const std::string& body : {Get("/nowhere").body, wrong.body}) {
    const json error = json::parse(body)["error"];
    EXPECT_TRUE(error["message"].is_string());
    EXPECT_EQ(error["type"], "invalid_request_error");
    EXPECT_TRUE(error.contains("param"));
    EXPECT_TRUE(error["code"].is_string());
  }
}

TEST_F(Api, RoutesOfOtherServicesAreRefusedWithWhatThereIsInstead) {
  RecordingObserver observer;
  observer_ = &observer;
  auto options = tessera::tests::SmallApiOptions();
  options.access.keys = tests::PlainKeys({"key"});
  Build(options);
  const HttpHeaders key = {{"x-api-key", "key"}};
  struct Row {
    const char* method;
    const char* path;
    const char* label;
  };
  const Row rows[] = {{"POST", "/v1/embeddings", "/v1/embeddings"},
                      {"POST", "/embeddings", "/v1/embeddings"},
                      {"GET", "/v1/responses/resp_1?stream=true", "/v1/responses"},
                      {"DELETE", "/v1/responses/resp_1", "/v1/responses"},
                      {"POST", "/v1/responses/resp_1/cancel", "/v1/responses"},
                      {"POST", "/v1/audio/speech", "/v1/audio"},
                      {"POST", "/anthropic/v1/messages/batches", "/v1/messages/batches"},
                      {"GET", "/user/balance", "/user/balance"}};
  for (const Row& row : rows) {
    observer.lines.clear();
    EXPECT_EQ(Send(row.method, row.path)->answer->status, 401) << row.path;
    const auto writer = Send(row.method, row.path, "{}", key);
    EXPECT_EQ(writer->answer->status, 404) << row.path;
    const json error = json::parse(writer->answer->body)["error"];
    EXPECT_EQ(error["code"], "unsupported_endpoint") << row.path;
    EXPECT_THAT(error["message"].get<std::string>(),
                testing::AllOf(HasSubstr(row.label), HasSubstr("/v1/chat/completions")));
    EXPECT_EQ(FindHeader(writer->answer->headers, "x-should-retry"), "false");
    EXPECT_THAT(observer.lines.back(), HasSubstr(std::string(" ") + row.label + " 404"));
  }
  const auto other = Send("POST", "/v1/embeddingsx", "{}", key);
  EXPECT_EQ(json::parse(other->answer->body)["error"]["code"], "not_found");
}

TEST_F(Api, EveryAnswerCarriesARequestId) {
  EXPECT_THAT(std::string(FindHeader(Get("/livez").headers, "x-request-id")),
              testing::MatchesRegex("req-[0-9a-f]{32}"));
  EXPECT_NE(FindHeader(Get("/livez").headers, "x-request-id"),
            FindHeader(Get("/livez").headers, "x-request-id"));
  const auto kept = Send("GET", "/nowhere", "", {{"X-Request-Id", "mine-1"}});
  EXPECT_EQ(FindHeader(kept->answer->headers, "x-request-id"), "mine-1");
  const auto odd = Send("GET", "/livez", "", {{"x-request-id", "a\r\nSet-Cookie: b"}});
  EXPECT_THAT(std::string(FindHeader(odd->answer->headers, "x-request-id")),
              testing::StartsWith("req-"));
}

TEST_F(Api, EveryRouteButTheExemptOnesNeedsAKey) {
  auto options = tessera::tests::SmallApiOptions();
  options.access.keys = tests::PlainKeys({"first", "second"});
  Build(options);
  for (const char* open : {"/livez", "/readyz", "/ready", "/health", "/ping"}) {
    EXPECT_EQ(Get(open).status, 200) << open;
  }
  for (const char* get : {"/v1/models", "/v1/models/demo", "/version", "/load"}) {
    EXPECT_EQ(Get(get).status, 401) << get;
  }
  for (const char* post :
       {"/v1/chat/completions", "/chat/completions", "/v1/completions",
        "/beta/completions", "/v1/embeddings", "/tokenize", "/detokenize"}) {
    EXPECT_EQ(Post(post, "{}")->answer->status, 401) << post;
  }
  const json error = json::parse(Get("/v1/models").body)["error"];
  EXPECT_EQ(error["code"], "invalid_api_key");
  const auto status = [&](const char* name, const char* value) {
    return Send("GET", "/v1/models", "", {{name, value}})->answer->status;
  };
  EXPECT_EQ(status("Authorization", "Bearer first"), 200);
  EXPECT_EQ(status("Authorization", "Bearer second"), 200);
  EXPECT_EQ(status("x-api-key", "second"), 200);
  EXPECT_EQ(status("Authorization", "Bearer third"), 401);
  EXPECT_EQ(status("Authorization", "Bearer "), 401);
  EXPECT_EQ(status("Authorization", "first"), 401);
  EXPECT_EQ(status("x-api-key", "firs"), 401);
}

TEST_F(Api, ReadinessAndHealthDifferWhileDraining) {
  EngineStatus status;
  status.phase = "loading";
  engine_.set_status(status);
  EXPECT_EQ(Get("/livez").status, 200);
  EXPECT_EQ(Get("/readyz").status, 503);
  EXPECT_EQ(Get("/health").status, 503);
  EXPECT_THAT(Get("/readyz").body, HasSubstr("loading"));
  EXPECT_EQ(FindHeader(Get("/readyz").headers, "retry-after"), "1");
  status.draining = true;
  status.phase = "draining";
  engine_.set_status(status);
  EXPECT_EQ(Get("/readyz").status, 503);
  EXPECT_EQ(Get("/health").status, 200);
  status.ready = true;
  engine_.set_status(status);
  EXPECT_EQ(Get("/readyz").status, 503);
}

TEST_F(Api, MetricsAreRenderedWithTheNamesAskedFor) {
  EXPECT_EQ(Get("/metrics").status, 404);
  FixedMetrics metrics;
  metrics_ = &metrics;
  Build(tessera::tests::SmallApiOptions());
  EXPECT_EQ(Get("/metrics").body, "others\n");
  EXPECT_EQ(Get("/metrics?names=native").body, "native\n");
  EXPECT_EQ(Get("/metrics?names=bogus").status, 400);
  EXPECT_THAT(Get("/metrics").content_type,
              testing::StartsWith("text/plain; version=0.0.4"));
}

TEST_F(Api, CrossOriginCallsAreAllowedOnlyFromListedOrigins) {
  const auto preflight = [&] {
    return *Send("OPTIONS", "/v1/chat/completions", "", {{"Origin", "https://a.example"}})
                ->answer;
  };
  EXPECT_EQ(preflight().status, 204);
  EXPECT_EQ(FindHeader(preflight().headers, "access-control-allow-origin"), "");
  auto options = tessera::tests::SmallApiOptions();
  options.access.keys = tests::PlainKeys({"key"});
  options.allowed_origins = {"https://a.example"};
  Build(options);
  EXPECT_EQ(FindHeader(preflight().headers, "access-control-allow-origin"),
            "https://a.example");
  EXPECT_THAT(
      std::string(FindHeader(preflight().headers, "access-control-allow-headers")),
      HasSubstr("Authorization"));
  const auto other = Send("GET", "/livez", "", {{"Origin", "https://b.example"}});
  EXPECT_EQ(FindHeader(other->answer->headers, "access-control-allow-origin"), "");
}

TEST_F(Api, TheObserverHearsPatternsNeverPaths) {
  RecordingObserver observer;
  observer_ = &observer;
  Build(tessera::tests::SmallApiOptions());
  Get("/v1/models/secret-name");
  Get("/secret-path");
  Send("BREW", "/livez");
  EXPECT_THAT(observer.lines,
              testing::ElementsAre("GET /v1/models/{id} 404", "GET unknown 404",
                                   "other /livez 405"));
}

TEST_F(Api, TheObserverCountsStreamsAndClientsThatLeave) {
  RecordingObserver observer;
  observer_ = &observer;
  Build(tessera::tests::SmallApiOptions());
  const auto writer = Post("/v1/completions", R"({"prompt":"hi","stream":true})");
  EXPECT_EQ(observer.streams, 1);
  writer->Disconnect();
  EXPECT_EQ(observer.disconnects, 1);
  EXPECT_EQ(engine_.cancelled().size(), 1u);
  // The engine still ends the request; the answer goes nowhere.
  engine_.submitted(0).sink->OnError(absl::CancelledError(""));
  writer->Run();
  EXPECT_TRUE(writer->chunks.empty());
}

TEST_F(Api, ADrainingServiceRefusesNewWorkAndTellsWhenToRetry) {
  service_->SetDraining();
  const auto writer = Post("/v1/completions", R"({"prompt":"hi"})");
  EXPECT_EQ(writer->answer->status, 503);
  EXPECT_EQ(json::parse(writer->answer->body)["error"]["code"], "shutting_down");
  EXPECT_EQ(FindHeader(writer->answer->headers, "retry-after"), "1");
  EXPECT_EQ(engine_.num_submitted(), 0u);
  EXPECT_EQ(Get("/v1/models").status, 200);
}

TEST_F(Api, TokenizeAndDetokenizeAreInverse) {
  const auto tokens = json::parse(
      Post("/tokenize", R"({"prompt":"hi","return_token_strs":true})")->answer->body);
  EXPECT_EQ(tokens["tokens"], json({104, 105}));
  EXPECT_EQ(tokens["count"], 2);
  EXPECT_EQ(tokens["max_model_len"], 64);
  EXPECT_EQ(tokens["token_strs"], json({"h", "i"}));
  const auto text =
      json::parse(Post("/detokenize", R"({"tokens":[104,105]})")->answer->body);
  EXPECT_EQ(text["prompt"], "hi");
  EXPECT_EQ(Post("/detokenize", R"({"tokens":[999]})")->answer->status, 400);
  EXPECT_EQ(Post("/detokenize", R"({"tokens":["x"]})")->answer->status, 400);
  EXPECT_EQ(Post("/tokenize", "{}")->answer->status, 400);
}

TEST_F(Api, TokenizeAppliesTheChatEncodingToMessages) {
  const auto body =
      json::parse(Post("/tokenize", R"({"messages":[{"role":"user","content":"hi"}]})")
                      ->answer->body);
  EXPECT_EQ(body["count"], std::string("user=hi;").size());
}

TEST_F(Api, TokenizeAddsTheBeginTokenWhereTheModelHasOne) {
  auto options = tessera::tests::SmallApiOptions();
  options.bos_token_id = 257;
  Build(options);
  const auto with = json::parse(Post("/tokenize", R"({"prompt":"h"})")->answer->body);
  EXPECT_EQ(with["tokens"], json({257, 104}));
  const auto without = json::parse(
      Post("/tokenize", R"({"prompt":"h","add_special_tokens":false})")->answer->body);
  EXPECT_EQ(without["tokens"], json({104}));
}

TEST(ApiService, RefusesOptionsThatCannotServe) {
  tessera::tests::ByteTokenizer tokenizer;
  ApiServiceParts parts;
  parts.tokenizer = &tokenizer;
  auto options = tessera::tests::SmallApiOptions();
  options.model_names.clear();
  EXPECT_FALSE(ApiService::Create(options, parts).ok());
  options = tessera::tests::SmallApiOptions();
  options.access.keys.resize(kMaxApiKeys + 1);
  EXPECT_FALSE(ApiService::Create(options, parts).ok());
  options = tessera::tests::SmallApiOptions();
  options.limits.max_model_len = 0;
  EXPECT_FALSE(ApiService::Create(options, parts).ok());
}

}  // namespace
}  // namespace tessera::coordinator
