#include "cli/bench/bench_options.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::nlohmann::json;
using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

absl::StatusOr<BenchPlan> PlanOf(const std::vector<std::string>& arguments,
                                 const std::map<std::string, std::string>& set = {}) {
  BenchOptions options;
  OptionTable table("bench serve", "");
  DeclareBench(&table, &options);
  const Environment environment =
      [&set](const std::string& name) -> std::optional<std::string> {
    const auto it = set.find(name);
    return it != set.end() ? std::optional(it->second) : std::nullopt;
  };
  const auto parsed = table.Parse(arguments, environment);
  if (!parsed.ok()) {
    return parsed.status();
  }
  return PlanBench(options, environment);
}

TEST(BenchOptions, WithoutAnyAllRequestsGoAtOnceAsTheOtherToolDoes) {
  const auto plan = PlanOf({});
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->load.http.url, "http://127.0.0.1:8000");
  EXPECT_EQ(plan->load.endpoint, "/v1/completions");
  EXPECT_EQ(plan->load.max_concurrency, std::nullopt);
  EXPECT_TRUE(plan->load.ignore_eos);
  EXPECT_EQ(plan->load.extra_body, "{}");
  EXPECT_THAT(plan->request_rates, ::testing::ElementsAre(HUGE_VAL));
  EXPECT_FALSE(plan->report.from_arrival);
  EXPECT_EQ(plan->workload.num_prompts, 1000);
  EXPECT_FALSE(plan->workload.as_text);
}

TEST(BenchOptions, AChatHasItsEndpointAndTexts) {
  const auto plan = PlanOf({"--backend", "openai-chat", "--host", "::1", "--port", "9",
                            "--logprobs", "3", "--no-ignore-eos"});
  ASSERT_THAT(plan, IsOk());
  EXPECT_TRUE(plan->load.chat);
  EXPECT_EQ(plan->load.http.url, "http://[::1]:9");
  EXPECT_EQ(plan->load.endpoint, "/v1/chat/completions");
  EXPECT_TRUE(plan->workload.as_text);
  EXPECT_FALSE(plan->load.ignore_eos);
  EXPECT_EQ(json::parse(plan->load.extra_body),
            json({{"logprobs", true}, {"top_logprobs", 3}}));
}

TEST(BenchOptions, EosIsIgnoredForRandomPromptsAlone) {
  const auto plan = PlanOf({"--dataset-name", "prefix_repetition"});
  ASSERT_THAT(plan, IsOk());
  EXPECT_FALSE(plan->load.ignore_eos);
  EXPECT_EQ(plan->workload.dataset, Dataset::kPrefixRepetition);
}

TEST(BenchOptions, TheKeyOfOpenAiIsTheLastResort) {
  const std::map<std::string, std::string> both = {{"OPENAI_API_KEY", "a"},
                                                   {"TESSERA_API_KEY", "b"}};
  const auto with_both = PlanOf({}, both);
  ASSERT_THAT(with_both, IsOk());
  EXPECT_EQ(with_both->load.api_key, "b");
  const auto with_one = PlanOf({}, {{"OPENAI_API_KEY", "a"}});
  ASSERT_THAT(with_one, IsOk());
  EXPECT_EQ(with_one->load.api_key, "a");
}

TEST(BenchOptions, AFiniteRateIsTimedFromTheArrival) {
  auto plan = PlanOf({"--request-rate", "2.5", "--burstiness", "0.5"});
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->request_rates, ::testing::ElementsAre(2.5));
  EXPECT_EQ(plan->workload.arrivals.burstiness, 0.5);
  EXPECT_TRUE(plan->report.from_arrival);
  plan = PlanOf({"--request-rate", "2.5", "--latency-from", "send"});
  ASSERT_THAT(plan, IsOk());
  EXPECT_FALSE(plan->report.from_arrival);
}

TEST(BenchOptions, ASweepHasARunForEachRate) {
  const auto plan = PlanOf({"--request-rate-sweep", "1,2", "4.5"});
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->request_rates, ::testing::ElementsAre(1, 2, 4.5));
}

TEST(BenchOptions, ARampHasItsRates) {
  const auto plan = PlanOf({"--ramp-up-strategy", "linear", "--ramp-up-start-rps", "1",
                            "--ramp-up-end-rps", "8"});
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->workload.arrivals.ramp_up, RampUp::kLinear);
  EXPECT_EQ(plan->workload.arrivals.ramp_up_end_rate, 8);
  EXPECT_TRUE(plan->report.from_arrival);
}

TEST(BenchOptions, MetricsPercentilesAndLimitsAreRead) {
  const auto plan =
      PlanOf({"--percentile-metrics", "ttft,client_queue_time", "--metric-percentiles",
              "50,99.9", "--goodput", "ttft:500", "tpot:12.5", "--metadata", "tp=2"});
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->report.metrics, ::testing::ElementsAre("ttft", "client_queue_time"));
  EXPECT_THAT(plan->report.percentiles, ::testing::ElementsAre(50, 99.9));
  EXPECT_EQ(plan->report.limits.time_to_first_token, absl::Milliseconds(500));
  EXPECT_EQ(plan->report.limits.time_per_output_token, absl::Microseconds(12500));
  EXPECT_THAT(plan->metadata, ::testing::ElementsAre(::testing::Pair("tp", "2")));
}

TEST(BenchOptions, GeneralLengthsAreThoseOfTheDataset) {
  auto plan = PlanOf({"--input-len", "7", "--output-len", "9"});
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->workload.input_len, 7);
  EXPECT_EQ(plan->workload.output_len, 9);
  plan =
      PlanOf({"--output-len", "9", "--dataset-name", "sharegpt", "--dataset-path", "f"});
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->workload.file_output_len, 9);
}

TEST(BenchOptions, SamplingGoesIntoTheBodyAndTheExtraBodyWins) {
  const auto plan = PlanOf({"--temperature", "0.5", "--top-k", "3", "--extra-body",
                            R"({"top_k": 4, "thinking": false})"});
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(json::parse(plan->load.extra_body),
            json({{"temperature", 0.5}, {"top_k", 4}, {"thinking", false}}));
}

TEST(BenchOptions, MistakesAreNamedWithTheirFlag) {
  const std::vector<std::vector<std::string>> mistakes = {
      {"--request-rate", "fast"},
      {"--request-rate", "0"},
      {"--request-rate", "nan"},
      {"--request-rate-sweep", "1,x"},
      {"--burstiness", "-1"},
      {"--goodput", "ttft"},
      {"--goodput", "speed:1"},
      {"--percentile-metrics", "speed"},
      {"--metric-percentiles", "101"},
      {"--header", "novalue"},
      {"--metadata", "=1"},
      {"--extra-body", "[1]"},
      {"--dataset-name", "sharegpt"},
      {"--dataset-path", "f"},
      {"--prompt-format", "ids", "--backend", "openai-chat"},
      {"--ramp-up-strategy", "linear", "--request-rate", "3"}};
  for (const auto& arguments : mistakes) {
    const absl::Status status = PlanOf(arguments).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument)) << arguments[0];
  }
}

}  // namespace
}  // namespace tessera::cli
