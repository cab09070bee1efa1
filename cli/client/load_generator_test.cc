#include "cli/client/load_generator.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/mutex.h"
#include "tests/testing/scripted_http_server.h"
#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::nlohmann::json;
using ::tessera::testing::IsOk;
using ::tessera::testing::ReceivedRequest;
using ::tessera::testing::ScriptedAnswer;
using ::tessera::testing::ScriptedHttpServer;
using ::tessera::testing::StatusIs;
using ::tessera::testing::StreamAnswer;
using ::tessera::testing::WholeAnswer;

std::vector<PlannedRequest> Planned(int count) {
  return std::vector<PlannedRequest>(static_cast<size_t>(count),
                                     PlannedRequest{{11, 12, 13}, 4, {}});
}

// Three pieces of text, four tokens.
ScriptedAnswer Answer() {
  return StreamAnswer(
      {R"({"choices":[{"index":0,"text":"a","finish_reason":null}],"usage":null})",
       R"({"choices":[{"index":0,"text":"","finish_reason":null}],"usage":null})",
       R"({"choices":[{"index":0,"text":"bc","finish_reason":null}],"usage":null})",
       R"({"choices":[{"index":0,"text":"","finish_reason":"length"}],"usage":null})",
       R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}})", "[DONE]"});
}

LoadRunOptions OptionsFor(const ScriptedHttpServer& server) {
  LoadRunOptions options;
  options.http.url = server.url();
  options.model = "demo";
  options.max_concurrency = 4;
  return options;
}

TEST(LoadGenerator, SendsTokenIdsAndCountsFromUsage) {
  Mutex mutex;
  std::vector<json> bodies;
  ScriptedHttpServer server([&](const ReceivedRequest& request) {
    MutexLock lock(&mutex);
    bodies.push_back(json::parse(request.body));
    EXPECT_EQ(request.target, "/v1/completions");
    EXPECT_EQ(request.authorization, "Bearer secret");
    return Answer();
  });
  LoadRunOptions options = OptionsFor(server);
  options.ignore_eos = true;
  options.extra_body = R"({"temperature":0.0})";
  options.api_key = "secret";
  const auto run = RunLoad(options, Planned(6), Clock::Real());
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->records.size(), 6U);
  for (const RequestRecord& record : run->records) {
    EXPECT_TRUE(record.sent);
    EXPECT_EQ(record.error_kind, "");
    EXPECT_EQ(record.input_tokens, 3);
    EXPECT_EQ(record.output_tokens, 4);
    EXPECT_EQ(record.gaps.size(), 2U);
    EXPECT_GT(record.time_to_first_token, absl::ZeroDuration());
    EXPECT_GE(record.end_to_end, record.time_to_first_token);
  }
  EXPECT_GT(run->duration, absl::ZeroDuration());
  ASSERT_EQ(bodies.size(), 6U);
  const json expected = {{"model", "demo"},
                         {"prompt", {11, 12, 13}},
                         {"max_tokens", 4},
                         {"ignore_eos", true},
                         {"temperature", 0.0},
                         {"stream", true},
                         {"stream_options", {{"include_usage", true}}}};
  EXPECT_EQ(bodies[0], expected);
  EXPECT_LE(server.num_connections(), 4);
}

TEST(LoadGenerator, AnAnswerThatIsItsEndAloneIsAnAnswer) {
  ScriptedHttpServer server([](const ReceivedRequest&) {
    return StreamAnswer(
        {R"({"choices":[{"text":"","finish_reason":"stop"}]})",
         R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}})",
         "[DONE]"});
  });
  const auto run = RunLoad(OptionsFor(server), Planned(1), Clock::Real());
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->records[0].error_kind, "");
  EXPECT_EQ(run->records[0].output_tokens, 1);
  EXPECT_GT(run->records[0].time_to_first_token, absl::ZeroDuration());
  EXPECT_EQ(run->records[0].gaps.size(), 0U);
}

TEST(LoadGenerator, NeverMoreRequestsThanTheConcurrencyAndAsManyWhenTheyWait) {
  Mutex mutex;
  int running = 0;
  int most = 0;
  int arrived = 0;
  ScriptedHttpServer server([&](const ReceivedRequest&) {
    MutexLock lock(&mutex);
    most = std::max(most, ++running);
    ++arrived;
    // The first four wait for each other, so they must be under way together.
    mutex.Await(Condition(
        +[](int* count) { return *count >= 4; }, &arrived));
    --running;
    return Answer();
  });
  const auto run = RunLoad(OptionsFor(server), Planned(12), Clock::Real());
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(most, 4);
  EXPECT_EQ(run->max_concurrent_requests, 4);
  EXPECT_EQ(server.num_connections(), 4);
}

TEST(LoadGenerator, FailuresAreRecordedByKindAndTheRunGoesOn) {
  std::atomic<int> count{0};
  ScriptedHttpServer server([&count](const ReceivedRequest&) {
    switch (count.fetch_add(1)) {
      case 0:
        return WholeAnswer(429, "application/json", R"({"error":{"message":"full"}})");
      case 1:
        return StreamAnswer({R"({"error":{"message":"lost","code":"worker_lost"}})"});
      case 2:
        return StreamAnswer({R"({"choices":[{"text":"a","finish_reason":null}]})"});
      case 3:
        return StreamAnswer({"[DONE]"});
      case 4:
        return StreamAnswer({"not json"});
      default:
        return Answer();
    }
  });
  LoadRunOptions options = OptionsFor(server);
  options.max_concurrency = 1;
  const auto run = RunLoad(options, Planned(6), Clock::Real());
  ASSERT_THAT(run, IsOk());
  std::vector<std::string> kinds;
  for (const RequestRecord& record : run->records) {
    kinds.push_back(record.error_kind);
  }
  EXPECT_THAT(kinds, ::testing::ElementsAre("http 429", "stream worker_lost", "cut short",
                                            "no tokens", "malformed", ""));
}

TEST(LoadGenerator, CancellingLeavesTheRestUnsent) {
  const int event = ::eventfd(0, EFD_CLOEXEC);
  // Closed after the server, whose threads write to it.
  const std::shared_ptr<void> closing(nullptr, [event](void*) { ::close(event); });
  std::atomic<int> count{0};
  ScriptedHttpServer server([&count, event](const ReceivedRequest&) {
    if (count.fetch_add(1) == 1) {
      const uint64_t value = 1;
      EXPECT_EQ(::write(event, &value, sizeof(value)), ssize_t{sizeof(value)});
      ScriptedAnswer silent;
      silent.pieces = {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"};
      return silent;
    }
    return Answer();
  });
  LoadRunOptions options = OptionsFor(server);
  options.max_concurrency = 1;
  options.http.cancel_descriptor = event;
  const auto run = RunLoad(options, Planned(4), Clock::Real());
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->records[0].error_kind, "");
  EXPECT_EQ(run->records[1].error_kind, "cancelled");
  EXPECT_FALSE(run->records[2].sent);
  EXPECT_FALSE(run->records[3].sent);
}

TEST(LoadGenerator, RequestsStartAtTheirTime) {
  ScriptedHttpServer server([](const ReceivedRequest&) { return Answer(); });
  std::vector<PlannedRequest> planned = Planned(3);
  planned[2].start = absl::Milliseconds(30);
  const auto run = RunLoad(OptionsFor(server), planned, Clock::Real());
  ASSERT_THAT(run, IsOk());
  EXPECT_GE(run->duration, absl::Milliseconds(30));
}

TEST(LoadGenerator, AChatIsAMessageAndTheRoleIsNoToken) {
  Mutex mutex;
  json body;
  ScriptedHttpServer server([&](const ReceivedRequest& request) {
    MutexLock lock(&mutex);
    body = json::parse(request.body);
    EXPECT_EQ(request.target, "/v1/chat/completions");
    return StreamAnswer(
        {R"({"choices":[{"delta":{"role":"assistant","content":""}}]})",
         R"({"choices":[{"delta":{"reasoning_content":"hm"}}]})",
         R"({"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":4}})",
         R"({"choices":[{"delta":{"content":"bc"}}],"usage":{"completion_tokens":7}})",
         R"({"choices":[{"delta":{},"finish_reason":"stop"}]})",
         R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7}})",
         "[DONE]"});
  });
  LoadRunOptions options = OptionsFor(server);
  options.chat = true;
  options.keep_texts = true;
  options.endpoint = "/v1/chat/completions";
  std::vector<PlannedRequest> planned(1);
  planned[0].prompt_text = "the of";
  planned[0].output_len = 7;
  const auto run = RunLoad(options, planned, Clock::Real());
  ASSERT_THAT(run, IsOk());
  const RequestRecord& record = run->records[0];
  EXPECT_EQ(record.error_kind, "");
  EXPECT_EQ(record.output_tokens, 7);
  EXPECT_EQ(record.input_tokens, 3);
  EXPECT_EQ(record.text, "hmabc");
  EXPECT_THAT(record.gap_tokens, ::testing::ElementsAre(0, 3));
  EXPECT_EQ(body["messages"], json({{{"role", "user"}, {"content", "the of"}}}));
  EXPECT_EQ(body["max_completion_tokens"], 7);
}

TEST(LoadGenerator, AChatOfTokenIdsIsRefused) {
  LoadRunOptions options;
  options.http.url = "http://127.0.0.1:1";
  options.chat = true;
  EXPECT_THAT(RunLoad(options, Planned(1), Clock::Real()),
              StatusIs(absl::StatusCode::kInvalidArgument));
  options.chat = false;
  options.extra_body = "[]";
  EXPECT_THAT(RunLoad(options, Planned(1), Clock::Real()),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(LoadGenerator, AStalledAnswerHoldsNoOtherBack) {
  Mutex mutex;
  int answered = 0;
  ScriptedHttpServer server([&](const ReceivedRequest& request) {
    MutexLock lock(&mutex);
    if (json::parse(request.body)["prompt"][0] == 99) {
      // Ends only after all others, which an open loop sends nevertheless.
      mutex.Await(Condition(
          +[](int* count) { return *count == 5; }, &answered));
    } else {
      ++answered;
    }
    return Answer();
  });
  LoadRunOptions options = OptionsFor(server);
  options.max_concurrency.reset();
  std::vector<PlannedRequest> planned = Planned(6);
  planned[0].prompt_ids[0] = 99;
  const auto run = RunLoad(options, planned, Clock::Real());
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->num_held_back, 0);
  for (const RequestRecord& record : run->records) {
    EXPECT_EQ(record.error_kind, "");
  }
}

TEST(LoadGenerator, WaitingForAPlaceIsNoLagOfTheGenerator) {
  // One place, and a first answer that takes its time: the second request waits, and the
  // generator is not to blame.
  Mutex mutex;
  int count = 0;
  ScriptedHttpServer server([&](const ReceivedRequest&) {
    MutexLock lock(&mutex);
    if (count++ == 0) {
      // Nobody makes it true: a wait with a limit.
      mutex.AwaitWithTimeout(Condition(
                                 +[](int* seen) { return *seen > 1; }, &count),
                             absl::Milliseconds(200));
    }
    return Answer();
  });
  LoadRunOptions options = OptionsFor(server);
  options.max_concurrency = 1;
  const auto run = RunLoad(options, Planned(2), Clock::Real());
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->num_held_back, 1);
  const RequestRecord& second = run->records[1];
  EXPECT_GE(second.queue_time(), absl::Milliseconds(100));
  EXPECT_LT(second.generator_lag, second.queue_time());
}

TEST(LoadGenerator, NoConcurrencyIsRefused) {
  LoadRunOptions options;
  options.http.url = "http://127.0.0.1:1";
  options.max_concurrency = 0;
  EXPECT_THAT(RunLoad(options, Planned(1), Clock::Real()),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace tessera::cli
