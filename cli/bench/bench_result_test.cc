#include "cli/bench/bench_result.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
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
using ::testing::HasSubstr;

BenchPlan PlanAtRate(double rate) {
  BenchPlan plan;
  plan.load.model = "org/demo";
  plan.load.http.url = "http://127.0.0.1:8000";
  plan.request_rates = {rate};
  plan.report.from_arrival = true;
  return plan;
}

BenchRun RunWith(const BenchPlan& plan, absl::Duration lag) {
  BenchRun run;
  run.request_rate = plan.request_rates.front();
  run.load.duration = absl::Seconds(10);
  run.load.max_concurrent_requests = 2;
  RequestRecord record;
  record.sent = true;
  record.arrival = absl::Seconds(1);
  record.start = absl::Seconds(1) + lag;
  record.generator_lag = lag;
  record.output_tokens = 3;
  record.time_to_first_token = absl::Milliseconds(50);
  record.end_to_end = absl::Milliseconds(90);
  record.gaps = {absl::Milliseconds(20), absl::Milliseconds(20)};
  run.load.records = {record, record};
  run.report = MakeReport(run.load.records, run.load.duration, plan.report);
  return run;
}

TEST(BenchResult, HasTheKeysThatScriptsOfOtherToolsRead) {
  const BenchPlan plan = PlanAtRate(2);
  const json result = ResultJson(BenchOptions(), plan,
                                 RunWith(plan, absl::ZeroDuration()), absl::UnixEpoch());
  for (const char* key : {"date",
                          "backend",
                          "endpoint_type",
                          "label",
                          "model_id",
                          "tokenizer_id",
                          "num_prompts",
                          "request_rate",
                          "burstiness",
                          "max_concurrency",
                          "duration",
                          "completed",
                          "failed",
                          "total_input_tokens",
                          "total_output_tokens",
                          "request_throughput",
                          "request_goodput",
                          "output_throughput",
                          "total_token_throughput",
                          "max_output_tokens_per_s",
                          "max_concurrent_requests",
                          "mean_ttft_ms",
                          "median_ttft_ms",
                          "std_ttft_ms",
                          "p99_ttft_ms",
                          "mean_tpot_ms",
                          "median_tpot_ms",
                          "std_tpot_ms",
                          "p99_tpot_ms",
                          "mean_itl_ms",
                          "median_itl_ms",
                          "std_itl_ms",
                          "p99_itl_ms",
                          "mean_e2el_ms",
                          "p99_e2el_ms",
                          "offered_request_rate",
                          "achieved_request_rate",
                          "errors_by_kind",
                          "environment",
                          "warnings"}) {
    EXPECT_TRUE(result.contains(key)) << key;
  }
  EXPECT_EQ(result["date"], "19700101-000000");
  EXPECT_FALSE(result.contains("ttfts"));
}

TEST(BenchResult, DetailsAndMetadataAreThereWhenAskedFor) {
  BenchOptions options;
  options.save_detailed = true;
  BenchPlan plan = PlanAtRate(std::numeric_limits<double>::infinity());
  plan.metadata = {{"tp", "2"}};
  const json result =
      ResultJson(options, plan, RunWith(plan, absl::ZeroDuration()), absl::UnixEpoch());
  EXPECT_EQ(result["ttfts"].size(), 2U);
  EXPECT_EQ(result["tp"], "2");
  EXPECT_EQ(result["request_rate"], "inf");
}

TEST(BenchResult, TheNameSaysWhatRan) {
  BenchOptions options;
  options.request_rate = "2";
  options.max_concurrency = 8;
  const BenchPlan plan = PlanAtRate(2);
  EXPECT_EQ(ResultPath(options, plan, absl::UnixEpoch()),
            "openai-2qps-concurrency8-demo-19700101-000000.json");
  options.result_dir = "d";
  options.result_filename = "x.json";
  EXPECT_EQ(ResultPath(options, plan, absl::UnixEpoch()), "d/x.json");
}

TEST(BenchResult, AppendedResultsAreLines) {
  const std::string path = ::testing::TempDir() + "/bench_result_test.json";
  const std::vector<json> one = {{{"a", 1}}};
  ASSERT_THAT(WriteResults(path, false, one), IsOk());
  ASSERT_THAT(WriteResults(path, false, one), IsOk());
  std::stringstream whole;
  whole << std::ifstream(path).rdbuf();
  EXPECT_EQ(json::parse(whole.str()), one[0]);
  ASSERT_THAT(WriteResults(path, false, std::vector<json>{{{"a", 1}}, {{"a", 2}}}),
              IsOk());
  ASSERT_THAT(WriteResults(path, true, one), IsOk());
  std::ifstream file(path);
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(json::parse(line)["a"]);
  }
  EXPECT_EQ(lines, (std::vector<json>{1, 2, 1}));
  EXPECT_FALSE(WriteResults("/dev/null/x", false, one).ok());
}

TEST(BenchResult, TheFolderOfTheFileIsMade) {
  const std::string folder = ::testing::TempDir() + "/bench_result_folder";
  std::filesystem::remove_all(folder);
  const std::vector<json> one = {{{"a", 1}}};
  EXPECT_THAT(WriteResults(folder + "/deeper/x.json", false, one), IsOk());
  EXPECT_TRUE(std::filesystem::exists(folder + "/deeper/x.json"));
}

TEST(BenchResult, ALateGeneratorIsWarnedAbout) {
  const BenchPlan plan = PlanAtRate(2);
  EXPECT_THAT(Warnings(plan, RunWith(plan, absl::Milliseconds(1))), ::testing::IsEmpty());
  EXPECT_THAT(Warnings(plan, RunWith(plan, absl::Milliseconds(40))),
              ::testing::Contains(HasSubstr("the generator was late by up to 40.0 ms")));
}

TEST(BenchResult, AClosedLoopAndABusyClientAreWarnedAbout) {
  const BenchPlan plan = PlanAtRate(2);
  BenchRun run = RunWith(plan, absl::ZeroDuration());
  run.load.num_held_back = 7;
  run.load.client_cpu = absl::Hours(24);
  const std::vector<std::string> warnings = Warnings(plan, run);
  EXPECT_THAT(warnings, ::testing::Contains(HasSubstr("7 requests waited")));
  EXPECT_THAT(warnings, ::testing::Contains(HasSubstr("of this machine's processors")));
}

TEST(BenchResult, PiecesOfSeveralTokensAreWarnedAbout) {
  BenchPlan plan = PlanAtRate(2);
  BenchRun run = RunWith(plan, absl::ZeroDuration());
  run.report.tokens_per_event = 2.5;
  EXPECT_THAT(Warnings(plan, run),
              ::testing::Contains(HasSubstr("2.5 tokens in a piece")));
  plan.load.continuous_usage = true;
  EXPECT_THAT(Warnings(plan, run), ::testing::IsEmpty());
}

}  // namespace
}  // namespace tessera::cli
