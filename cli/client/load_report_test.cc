#include "cli/client/load_report.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tessera::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

RequestRecord Completed(int64_t tokens, int ttft_ms, int end_ms,
                        std::vector<absl::Duration> gaps) {
  RequestRecord record;
  record.sent = true;
  record.input_tokens = 10;
  record.output_tokens = tokens;
  record.time_to_first_token = absl::Milliseconds(ttft_ms);
  record.end_to_end = absl::Milliseconds(end_ms);
  record.gaps = std::move(gaps);
  return record;
}

RequestRecord Failed(const std::string& kind, const std::string& message) {
  RequestRecord record;
  record.sent = true;
  record.error_kind = kind;
  record.error = message;
  return record;
}

TEST(Percentile, LiesLinearlyBetweenNeighbours) {
  const std::vector<double> values = {10, 20, 30, 40};
  EXPECT_DOUBLE_EQ(Percentile(values, 0), 10);
  EXPECT_DOUBLE_EQ(Percentile(values, 50), 25);
  EXPECT_DOUBLE_EQ(Percentile(values, 90), 37);
  EXPECT_DOUBLE_EQ(Percentile(values, 100), 40);
}

TEST(Percentile, OfFewValues) {
  EXPECT_DOUBLE_EQ(Percentile({}, 99), 0);
  const std::vector<double> one = {7};
  EXPECT_DOUBLE_EQ(Percentile(one, 1), 7);
  EXPECT_DOUBLE_EQ(Percentile(one, 99), 7);
}

TEST(Summarize, TakesValuesInAnyOrder) {
  const Summary summary = Summarize({5, 1, 3, 2, 4});
  EXPECT_DOUBLE_EQ(summary.mean, 3);
  EXPECT_DOUBLE_EQ(summary.median, 3);
  EXPECT_NEAR(summary.std_dev, 1.41421356, 1e-8);
  EXPECT_DOUBLE_EQ(summary.p90, 4.6);
  EXPECT_DOUBLE_EQ(summary.p95, 4.8);
  EXPECT_DOUBLE_EQ(summary.p99, 4.96);
}

TEST(LoadReport, CountsTokensAndLatenciesOfCompletedRequestsOnly) {
  const std::vector<RequestRecord> records = {
      Completed(5, 100, 500, {absl::Milliseconds(90), absl::Milliseconds(110)}),
      Completed(1, 300, 300, {}),
      Failed("http 429", "the queue is full"),
      Failed("http 429", "another text"),
      Failed("timeout", "no answer"),
      RequestRecord()};
  const LoadReport report = MakeReport(records, absl::Seconds(2), LatencyLimits());
  EXPECT_EQ(report.completed, 2);
  EXPECT_EQ(report.failed, 3);
  EXPECT_EQ(report.not_sent, 1);
  EXPECT_EQ(report.errors.at("http 429"), 2);
  EXPECT_EQ(report.error_texts.at("http 429"), "the queue is full");
  EXPECT_DOUBLE_EQ(report.ttft_ms.mean, 200);
  EXPECT_DOUBLE_EQ(report.tpot_ms.mean, 100);  // (500 - 100) / 4; one token has none.
  EXPECT_DOUBLE_EQ(report.itl_ms.mean, 100);
  EXPECT_DOUBLE_EQ(report.e2el_ms.mean, 400);
}

TEST(LoadReport, WritesTheKeysOfOtherTools) {
  const std::vector<RequestRecord> records = {Completed(5, 100, 500, {}),
                                              Completed(5, 100, 500, {})};
  const nlohmann::json json =
      ReportJson(MakeReport(records, absl::Seconds(4), LatencyLimits()), LatencyLimits());
  EXPECT_EQ(json.at("completed"), 2);
  EXPECT_DOUBLE_EQ(json.at("request_throughput"), 0.5);
  EXPECT_DOUBLE_EQ(json.at("output_throughput"), 2.5);
  EXPECT_DOUBLE_EQ(json.at("total_token_throughput"), 7.5);
  EXPECT_TRUE(json.at("request_goodput").is_null());
  for (const char* metric : {"ttft", "tpot", "itl", "e2el"}) {
    for (const char* statistic : {"mean", "median", "std", "p90", "p95", "p99"}) {
      EXPECT_TRUE(json.contains(std::string(statistic) + "_" + metric + "_ms"))
          << statistic << " " << metric;
    }
  }
}

TEST(LoadReport, GoodRequestsKeepEveryLimit) {
  const std::vector<RequestRecord> records = {
      Completed(5, 100, 500, {}), Completed(5, 300, 500, {}), Completed(2, 100, 900, {}),
      Failed("timeout", "no answer")};
  LatencyLimits limits;
  limits.time_to_first_token = absl::Milliseconds(200);
  EXPECT_EQ(MakeReport(records, absl::Seconds(1), limits).good, 2);
  limits.time_per_output_token = absl::Milliseconds(100);
  EXPECT_EQ(MakeReport(records, absl::Seconds(1), limits).good, 1);
}

TEST(LoadReport, TheTextNamesEveryKindOfError) {
  const std::vector<RequestRecord> records = {Failed("timeout", "no answer within 1s")};
  const LoadReport report = MakeReport(records, absl::Seconds(1), LatencyLimits());
  const std::string text = ReportText(report, LatencyLimits());
  EXPECT_THAT(text, HasSubstr("1 x timeout: no answer within 1s"));
  EXPECT_THAT(text, Not(HasSubstr("goodput")));
}

}  // namespace
}  // namespace tessera::cli
