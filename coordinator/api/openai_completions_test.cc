#include "coordinator/api/openai_completions.h"

#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/testing/api_fixture.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;
using Completions = tessera::tests::ApiFixture;

constexpr char kRoute[] = "/v1/completions";

TEST_F(Completions, AWholeAnswerHasTextUsageAndReason) {
  const auto writer = Post(kRoute, R"({"model":"alias","prompt":"abc","max_tokens":5})");
  EXPECT_FALSE(writer->answer.has_value());
  EXPECT_THAT(engine_.submitted(0).request.prompt_ids(),
              testing::ElementsAre(97, 98, 99));
  EXPECT_EQ(engine_.submitted(0).request.max_tokens(), 5);
  engine_.Token(0, 0, "x");
  engine_.Token(0, 1, "y");
  engine_.Finish(0, 2, FinishReason::kLength);
  writer->Run();
  ASSERT_TRUE(writer->answer.has_value());
  EXPECT_EQ(writer->answer->status, 200);
  const json body = json::parse(writer->answer->body);
  EXPECT_THAT(body["id"].get<std::string>(), testing::StartsWith("cmpl-"));
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["created"], 1000);
  EXPECT_EQ(body["model"], "demo");
  EXPECT_EQ(body["system_fingerprint"], "fp-test");
  EXPECT_EQ(body["choices"][0]["text"], "xy");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["choices"][0]["logprobs"], nullptr);
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(body["usage"]["completion_tokens"], 2);
  EXPECT_EQ(body["usage"]["total_tokens"], 5);
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["host_cached_tokens"], 1);
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["disk_cached_tokens"], 1);
  EXPECT_EQ(body["usage"]["prompt_cache_hit_tokens"], 2);
  EXPECT_EQ(body["usage"]["prompt_cache_miss_tokens"], 1);
}

TEST_F(Completions, StreamsTextThenReasonThenUsageThenDone) {
  const auto writer = Post(
      kRoute, R"({"prompt":"a","stream":true,"stream_options":{"include_usage":true}})");
  ASSERT_TRUE(writer->stream.has_value());
  EXPECT_EQ(writer->stream->content_type, "text/event-stream");
  EXPECT_EQ(FindHeader(writer->stream->headers, "cache-control"), "no-cache");
  EXPECT_EQ(FindHeader(writer->stream->headers, "x-accel-buffering"), "no");
  engine_.Token(0, 0, "x");
  engine_.Token(0, 1, "");  // held back by the engine: no event
  engine_.Finish(0, 2);
  writer->Run();
  const auto events = Events(*writer);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0]["choices"][0]["text"], "x");
  EXPECT_EQ(events[0]["choices"][0]["finish_reason"], nullptr);
  EXPECT_EQ(events[0]["usage"], nullptr);
  EXPECT_EQ(events[1]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(events[2]["choices"], json::array());
  EXPECT_EQ(events[2]["usage"]["completion_tokens"], 2);
  EXPECT_EQ(events[3], "[DONE]");
  EXPECT_EQ(events[0]["id"], events[2]["id"]);
  EXPECT_EQ(writer->finished, false);
}

TEST_F(Completions, UsageIsAbsentUnlessItWasAskedFor) {
  const auto writer = Post(kRoute, R"({"prompt":"a","stream":true})");
  engine_.Token(0, 0, "x");
  engine_.Finish(0, 1);
  writer->Run();
  const auto events = Events(*writer);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_FALSE(events[0].contains("usage"));
}

TEST_F(Completions, AnErrorAfterTheStreamBeganEndsItWithoutDone) {
  const auto writer = Post(kRoute, R"({"prompt":"a","stream":true})");
  engine_.Token(0, 0, "x");
  engine_.submitted(0).sink->OnError(absl::UnavailableError("rank 3 died"));
  engine_.submitted(0).sink->OnError(absl::InternalError("again"));
  writer->Run();
  const auto events = Events(*writer);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1]["error"]["code"], "worker_lost");
  EXPECT_EQ(writer->finished, true);
}

TEST_F(Completions, ErrorsBeforeTheAnswerAreStatusCodes) {
  struct Row {
    absl::Status status;
    int http;
    const char* code;
  };
  const Row rows[] = {
      {absl::DeadlineExceededError(""), 504, "deadline"},
      {absl::UnavailableError("engram shard 1 is gone"), 503, "engram_unavailable"},
      {absl::AbortedError(""), 503, "worker_lost"},
      {absl::InternalError(""), 500, "internal"}};
  size_t index = 0;
  for (const Row& row : rows) {
    const auto writer = Post(kRoute, R"({"prompt":"a"})");
    engine_.submitted(index++).sink->OnError(row.status);
    writer->Run();
    EXPECT_EQ(writer->answer->status, row.http);
    EXPECT_EQ(json::parse(writer->answer->body)["error"]["code"], row.code);
  }
}

TEST_F(Completions, AFullQueueIs429WithRetryAfter) {
  engine_.Refuse(absl::ResourceExhaustedError("full"));
  const auto writer = Post(kRoute, R"({"prompt":"a","stream":true})");
  ASSERT_TRUE(writer->answer.has_value());
  EXPECT_FALSE(writer->stream.has_value());
  EXPECT_EQ(writer->answer->status, 429);
  EXPECT_EQ(FindHeader(writer->answer->headers, "retry-after"), "3");
  EXPECT_EQ(FindHeader(writer->answer->headers, "x-should-retry"), "true");
}

TEST_F(Completions, AnEngineThatIsNotReadyIs503) {
  engine_.Refuse(absl::UnavailableError("no group"));
  const auto writer = Post(kRoute, R"({"prompt":"a"})");
  EXPECT_EQ(writer->answer->status, 503);
  EXPECT_EQ(json::parse(writer->answer->body)["error"]["code"], "not_ready");
  EXPECT_NE(FindHeader(writer->answer->headers, "retry-after"), "");
}

TEST_F(Completions, PromptsAnswerInOrderWhicheverEndsFirst) {
  const auto writer = Post(kRoute, R"({"prompt":["a",[98,99]],"echo":true})");
  ASSERT_EQ(engine_.num_submitted(), 2u);
  EXPECT_NE(engine_.submitted(0).request.request_id(),
            engine_.submitted(1).request.request_id());
  engine_.Token(1, 0, "y");
  engine_.Finish(1, 1);
  writer->Run();
  EXPECT_FALSE(writer->answer.has_value());
  engine_.Token(0, 0, "x");
  engine_.Finish(0, 1);
  writer->Run();
  const json body = json::parse(writer->answer->body);
  EXPECT_EQ(body["choices"][0]["text"], "ax");
  EXPECT_EQ(body["choices"][1]["text"], "bcy");
  EXPECT_EQ(body["choices"][1]["index"], 1);
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(body["usage"]["completion_tokens"], 2);
}

TEST_F(Completions, ARefusedSecondPromptCancelsTheFirst) {
  engine_.Refuse(absl::ResourceExhaustedError("full"), 1);
  const auto writer = Post(kRoute, R"({"prompt":["a","b"]})");
  EXPECT_EQ(writer->answer->status, 429);
  EXPECT_THAT(engine_.cancelled(),
              testing::ElementsAre(engine_.submitted(0).request.request_id()));
  engine_.Token(0, 0, "x");
  engine_.submitted(0).sink->OnError(absl::CancelledError(""));
  writer->Run();
  EXPECT_TRUE(writer->chunks.empty());
}

TEST_F(Completions, AClientThatLeavesCancelsEveryPrompt) {
  const auto writer = Post(kRoute, R"({"prompt":["a","b"]})");
  writer->Disconnect();
  EXPECT_EQ(engine_.cancelled().size(), 2u);
}

TEST_F(Completions, LogprobsListTokensWithOffsets) {
  const auto writer = Post(kRoute, R"({"prompt":"a","logprobs":1})");
  TokenEvent event;
  event.token = 'x';
  event.logprob = -std::numeric_limits<float>::infinity();
  event.top = {{'z', -0.25f}};
  event.text = "x";
  engine_.submitted(0).sink->OnToken(event);
  engine_.Token(0, 1, "y");
  engine_.Finish(0, 2);
  writer->Run();
  const json logprobs = json::parse(writer->answer->body)["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json({"x", "y"}));
  EXPECT_EQ(logprobs["token_logprobs"], json({-9999.0, -0.5}));
  EXPECT_EQ(logprobs["top_logprobs"][0], json({{"x", -9999.0}, {"z", -0.25}}));
  EXPECT_EQ(logprobs["text_offset"], json({0, 1}));
}

// A token of choice `choice` with the scores of a prompt "ab".
TokenEvent Scored(int32_t choice, const std::string& text, float logprob) {
  TokenEvent event;
  event.choice = choice;
  event.token = static_cast<unsigned char>(text[0]);
  event.logprob = logprob;
  event.text = text;
  if (choice == 0) {
    event.prompt = {
        {.token = 'b', .position = 1, .logprob = -1.5f, .top = {{'q', -0.25f}}}};
  }
  return event;
}

TEST_F(Completions, AnEchoWithLogprobsScoresThePromptFirst) {
  const auto writer = Post(kRoute, R"({"prompt":"ab","echo":true,"logprobs":1})");
  EXPECT_EQ(engine_.submitted(0).request.sampling(0).num_prompt_logprobs, 1);
  engine_.submitted(0).sink->OnToken(Scored(0, "x", -0.5f));
  engine_.Finish(0, 1);
  writer->Run();
  const json choice = json::parse(writer->answer->body)["choices"][0];
  EXPECT_EQ(choice["text"], "abx");
  EXPECT_EQ(choice["logprobs"]["tokens"], json({"a", "b", "x"}));
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], json({nullptr, -1.5, -0.5}));
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][0], nullptr);
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][1], json({{"b", -1.5}, {"q", -0.25}}));
  EXPECT_EQ(choice["logprobs"]["text_offset"], json({0, 1, 2}));
}

TEST_F(Completions, AStreamedEchoWithLogprobsStartsWithThePromptOfEveryChoice) {
  const auto writer =
      Post(kRoute, R"({"prompt":"ab","echo":true,"logprobs":1,"n":2,"stream":true})");
  EXPECT_EQ(engine_.submitted(0).request.sampling(1).num_prompt_logprobs, -1);
  engine_.submitted(0).sink->OnToken(Scored(1, "y", -2.0f));
  writer->Run();
  EXPECT_TRUE(Events(*writer).empty());
  engine_.submitted(0).sink->OnToken(Scored(0, "x", -0.5f));
  writer->Run();
  const auto events = Events(*writer);
  ASSERT_EQ(events.size(), 4u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(events[i]["choices"][0]["index"], i);
    EXPECT_EQ(events[i]["choices"][0]["text"], "ab");
    EXPECT_EQ(events[i]["choices"][0]["logprobs"]["token_logprobs"],
              json({nullptr, -1.5}));
  }
  EXPECT_EQ(events[2]["choices"][0]["text"], "y");
  EXPECT_EQ(events[3]["choices"][0]["text"], "x");
}

TEST_F(Completions, MaxTokensZeroScoresThePromptAlone) {
  const auto writer =
      Post(kRoute, R"({"prompt":"ab","echo":true,"logprobs":0,"max_tokens":0})");
  EXPECT_EQ(engine_.submitted(0).request.max_tokens(), 1);
  engine_.submitted(0).sink->OnToken(Scored(0, "x", -0.5f));
  engine_.Finish(0, 1);
  writer->Run();
  const json body = json::parse(writer->answer->body);
  EXPECT_EQ(body["choices"][0]["text"], "ab");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["choices"][0]["logprobs"]["tokens"], json({"a", "b"}));
  EXPECT_EQ(body["choices"][0]["logprobs"]["top_logprobs"][1], json({{"b", -1.5}}));
  EXPECT_EQ(body["usage"]["completion_tokens"], 0);
}

TEST_F(Completions, BestOfShowsTheChoicesOfTheHighestMeanLogprob) {
  const auto writer = Post(kRoute, R"({"prompt":"ab","n":2,"best_of":3})");
  EXPECT_EQ(engine_.submitted(0).request.num_choices(), 3);
  engine_.submitted(0).sink->OnToken(Scored(0, "x", -3.0f));
  engine_.submitted(0).sink->OnToken(Scored(1, "y", -2.0f));
  engine_.submitted(0).sink->OnToken(Scored(2, "z", -1.0f));
  engine_.submitted(0).sink->OnToken(Scored(2, "z", -1.5f));
  engine_.Finish(0, 4);
  writer->Run();
  const json choices = json::parse(writer->answer->body)["choices"];
  ASSERT_EQ(choices.size(), 2u);
  EXPECT_EQ(choices[0]["text"], "zz");
  EXPECT_EQ(choices[1]["text"], "y");
  EXPECT_EQ(choices[1]["index"], 1);
  EXPECT_EQ(choices[0]["logprobs"], nullptr);
}

TEST_F(Completions, PromptLogprobsAreInTheShapeOfVllm) {
  const auto writer = Post(kRoute, R"({"prompt":"ab","prompt_logprobs":1})");
  engine_.submitted(0).sink->OnToken(Scored(0, "x", -0.5f));
  engine_.Finish(0, 1);
  writer->Run();
  const json scores = json::parse(writer->answer->body)["choices"][0]["prompt_logprobs"];
  ASSERT_EQ(scores.size(), 2u);
  EXPECT_EQ(scores[0], nullptr);
  EXPECT_EQ(scores[1]["98"],
            json({{"logprob", -1.5}, {"rank", nullptr}, {"decoded_token", "b"}}));
  EXPECT_EQ(scores[1]["113"],
            json({{"logprob", -0.25}, {"rank", 1}, {"decoded_token", "q"}}));
}

TEST_F(Completions, BadWordsAreForbiddenAtTheStartAndInsideOfText) {
  Post(kRoute, R"({"prompt":"a","bad_words":["xy"],"allowed_token_ids":[9,5,9]})");
  const proto::SamplingParams sampling = engine_.submitted(0).request.sampling(0);
  EXPECT_THAT(sampling.bad_words,
              testing::ElementsAre(testing::ElementsAre('x', 'y'),
                                   testing::ElementsAre(' ', 'x', 'y')));
  EXPECT_THAT(sampling.allowed_token_ids, testing::ElementsAre(5, 9));
}

TEST_F(Completions, ATruncatedPromptKeepsItsEnd) {
  const std::string text(70, 'a');
  Post(kRoute, R"({"prompt":"abc","truncate_prompt_tokens":2})");
  Post(kRoute, R"({"prompt":["abc",[1,2]],"truncate_prompt_tokens":64,"max_tokens":1})");
  Post(kRoute, R"({"prompt":")" + text + R"(b","truncate_prompt_tokens":-1,)" +
                   R"("max_tokens":60})");
  EXPECT_THAT(engine_.submitted(0).request.prompt_ids(), testing::ElementsAre('b', 'c'));
  EXPECT_THAT(engine_.submitted(1).request.prompt_ids(),
              testing::ElementsAre('a', 'b', 'c'));
  EXPECT_THAT(engine_.submitted(2).request.prompt_ids(), testing::ElementsAre(1, 2));
  EXPECT_THAT(engine_.submitted(3).request.prompt_ids(),
              testing::ElementsAre('a', 'a', 'a', 'b'));
}

TEST_F(Completions, TokenIdsAreReturnedWhenAskedFor) {
  const auto writer = Post(kRoute, R"({"prompt":"a","return_token_ids":true})");
  engine_.Token(0, 0, "x");
  engine_.Finish(0, 1);
  writer->Run();
  const json choice = json::parse(writer->answer->body)["choices"][0];
  EXPECT_EQ(choice["token_ids"], json({'x'}));
  EXPECT_EQ(choice["prompt_token_ids"], json({'a'}));
}

TEST_F(Completions, ControlTokensInAPromptAreRecognised) {
  Post(kRoute, R"({"prompt":"<｜Assistant｜>"})");
  EXPECT_THAT(engine_.submitted(0).request.prompt_ids(),
              testing::ElementsAre(tessera::tests::ByteTokenizer::kAssistant));
}

TEST_F(Completions, RequestsWithoutSeedsDrawDifferentOnes) {
  Post(kRoute, R"({"prompt":"a"})");
  Post(kRoute, R"({"prompt":"a"})");
  Post(kRoute, R"({"prompt":"a","seed":5})");
  EXPECT_NE(engine_.submitted(0).request.sampling(0).seed,
            engine_.submitted(1).request.sampling(0).seed);
  EXPECT_EQ(engine_.submitted(2).request.sampling(0).seed, 5u);
}

}  // namespace
}  // namespace tessera::coordinator
