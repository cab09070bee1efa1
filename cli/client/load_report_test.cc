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
  const std::vector<double> percents = {90, 99.9};
  const Summary summary = Summarize({5, 1, 3, 2, 4}, percents);
  EXPECT_DOUBLE_EQ(summary.mean, 3);
  EXPECT_DOUBLE_EQ(summary.median, 3);
  EXPECT_NEAR(summary.std_dev, 1.41421356, 1e-8);
  ASSERT_EQ(summary.percentiles.size(), 2U);
  EXPECT_DOUBLE_EQ(summary.percentiles[0], 4.6);
  EXPECT_DOUBLE_EQ(summary.percentiles[1], 4.996);
}

TEST(LoadReport, CountsTokensAndLatenciesOfCompletedRequestsOnly) {
  const std::vector<RequestRecord> records = {
      Completed(5, 100, 500, {absl::Milliseconds(90), absl::Milliseconds(110)}),
      Completed(1, 300, 300, {}),
      Failed("http 429", "the queue is full"),
      Failed("http 429", "another text"),
      Failed("timeout", "no answer"),
      RequestRecord()};
  const LoadReport report = MakeReport(records, absl::Seconds(2), ReportOptions());
  EXPECT_EQ(report.completed, 2);
  EXPECT_EQ(report.failed, 3);
  EXPECT_EQ(report.not_sent, 1);
  EXPECT_EQ(report.errors.at("http 429"), 2);
  EXPECT_EQ(report.error_texts.at("http 429"), "the queue is full");
  EXPECT_DOUBLE_EQ(report.latencies.at("ttft").mean, 200);
  EXPECT_DOUBLE_EQ(report.latencies.at("tpot").mean,
                   100);  // (500 - 100) / 4; one token has none.
  EXPECT_DOUBLE_EQ(report.latencies.at("itl").mean, 100);
  EXPECT_DOUBLE_EQ(report.latencies.at("e2el").mean, 400);
}

TEST(LoadReport, WritesTheKeysOfOtherTools) {
  const std::vector<RequestRecord> records = {Completed(5, 100, 500, {}),
                                              Completed(5, 100, 500, {})};
  ReportOptions options;
  options.percentiles = {25, 99.9};
  const nlohmann::json json =
      ReportJson(MakeReport(records, absl::Seconds(4), options), options);
  EXPECT_EQ(json.at("completed"), 2);
  EXPECT_DOUBLE_EQ(json.at("request_throughput"), 0.5);
  EXPECT_DOUBLE_EQ(json.at("output_throughput"), 2.5);
  EXPECT_DOUBLE_EQ(json.at("total_token_throughput"), 7.5);
  EXPECT_TRUE(json.at("request_goodput").is_null());
  for (const char* metric : {"ttft", "tpot", "itl", "e2el"}) {
    for (const char* statistic : {"mean", "median", "std", "p25", "p99.9"}) {
      EXPECT_TRUE(json.contains(std::string(statistic) + "_" + metric + "_ms"))
          << statistic << " " << metric;
    }
  }
  EXPECT_FALSE(json.contains("mean_client_queue_time_ms"));
}

TEST(LoadReport, SelectsItsMetrics) {
  const std::vector<RequestRecord> records = {Completed(5, 100, 500, {})};
  ReportOptions options;
  options.metrics = {"e2el", "client_queue_time"};
  const LoadReport report = MakeReport(records, absl::Seconds(1), options);
  const nlohmann::json json = ReportJson(report, options);
  EXPECT_TRUE(json.contains("mean_client_queue_time_ms"));
  EXPECT_FALSE(json.contains("mean_ttft_ms"));
  EXPECT_THAT(ReportText(report, options), Not(HasSubstr("Time to first token")));
}

TEST(LoadReport, GoodRequestsKeepEveryLimit) {
  const std::vector<RequestRecord> records = {
      Completed(5, 100, 500, {}), Completed(5, 300, 500, {}), Completed(2, 100, 900, {}),
      Failed("timeout", "no answer")};
  ReportOptions options;
  options.limits.time_to_first_token = absl::Milliseconds(200);
  EXPECT_EQ(MakeReport(records, absl::Seconds(1), options).good, 2);
  options.limits.time_per_output_token = absl::Milliseconds(100);
  const LoadReport report = MakeReport(records, absl::Seconds(2), options);
  EXPECT_EQ(report.good, 1);
  EXPECT_DOUBLE_EQ(ReportJson(report, options).at("request_goodput"), 0.5);
}

TEST(LoadReport, FromArrivalTheWaitBeforeSendingCounts) {
  std::vector<RequestRecord> records = {Completed(5, 100, 500, {})};
  records[0].arrival = absl::Milliseconds(1000);
  records[0].start = absl::Milliseconds(1250);
  ReportOptions options;
  options.limits.end_to_end = absl::Milliseconds(600);
  LoadReport report = MakeReport(records, absl::Seconds(1), options);
  EXPECT_DOUBLE_EQ(report.latencies.at("ttft").mean, 100);
  EXPECT_EQ(report.good, 1);
  options.from_arrival = true;
  report = MakeReport(records, absl::Seconds(1), options);
  EXPECT_DOUBLE_EQ(report.latencies.at("ttft").mean, 350);
  EXPECT_DOUBLE_EQ(report.latencies.at("e2el").mean, 750);
  EXPECT_DOUBLE_EQ(report.latencies.at("tpot").mean, 100);  // Not the wait's.
  EXPECT_DOUBLE_EQ(report.latencies.at("client_queue_time").mean, 250);
  EXPECT_DOUBLE_EQ(report.latencies.at("e2el_including_client_queue").mean, 750);
  EXPECT_EQ(report.good, 0);
}

TEST(LoadReport, APieceOfSeveralTokensIsAsManyGaps) {
  std::vector<RequestRecord> records = {
      Completed(5, 100, 500, {absl::Milliseconds(300), absl::Milliseconds(100)})};
  records[0].gap_tokens = {3, 1};
  const LoadReport report = MakeReport(records, absl::Seconds(1), ReportOptions());
  EXPECT_DOUBLE_EQ(report.latencies.at("itl").mean, 100);
  EXPECT_DOUBLE_EQ(report.latencies.at("itl").std_dev, 0);
  EXPECT_DOUBLE_EQ(report.tokens_per_event, 5.0 / 3);
}

TEST(LoadReport, RatesAreOfThePlanAndOfTheSending) {
  std::vector<RequestRecord> records(4, Completed(5, 100, 500, {}));
  for (int i = 0; i < 4; ++i) {
    records[static_cast<size_t>(i)].arrival = absl::Milliseconds(100 * (i + 1));
    records[static_cast<size_t>(i)].start = absl::Milliseconds(200 * (i + 1));
  }
  const LoadReport report = MakeReport(records, absl::Seconds(1), ReportOptions());
  EXPECT_DOUBLE_EQ(report.offered_rate, 10);
  EXPECT_DOUBLE_EQ(report.achieved_rate, 5);
}

TEST(LoadReport, TheBestSecondIsThatOfItsTokens) {
  std::vector<RequestRecord> records = {
      Completed(3, 500, 2100, {absl::Milliseconds(300), absl::Milliseconds(1300)})};
  records[0].start = absl::Milliseconds(300);
  EXPECT_THAT(TokensBySecond(records), ::testing::ElementsAre(1, 1, 1));
  const LoadReport report = MakeReport(records, absl::Seconds(3), ReportOptions());
  EXPECT_DOUBLE_EQ(report.output_tokens_per_second_max, 1);
}

TEST(LoadReport, DetailsHaveAnEntryForEveryRequest) {
  const std::vector<RequestRecord> records = {
      Completed(5, 100, 500, {absl::Milliseconds(250)}), Failed("timeout", "late"),
      RequestRecord()};
  const nlohmann::json json = DetailJson(records);
  for (const auto& [key, values] : json.items()) {
    EXPECT_EQ(values.size(), 3U) << key;
  }
  EXPECT_DOUBLE_EQ(json.at("ttfts")[0], 0.1);
  EXPECT_DOUBLE_EQ(json.at("itls")[0][0], 0.25);
  EXPECT_EQ(json.at("errors"), nlohmann::json({"", "late", "not sent"}));
}

TEST(LoadReport, TheTextNamesEveryKindOfError) {
  const std::vector<RequestRecord> records = {Failed("timeout", "no answer within 1s")};
  const LoadReport report = MakeReport(records, absl::Seconds(1), ReportOptions());
  const std::string text = ReportText(report, ReportOptions());
  EXPECT_THAT(text, HasSubstr("1 x timeout: no answer within 1s"));
  EXPECT_THAT(text, Not(HasSubstr("goodput")));
}

}  // namespace
}  // namespace tessera::cli
