#include "cli/bench/bench_plot.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

BenchRun RunAt(double rate, const ReportOptions& options) {
  BenchRun run;
  run.request_rate = rate;
  run.load.duration = absl::Seconds(2);
  run.load.records.resize(3);
  for (size_t i = 0; i < 2; ++i) {
    RequestRecord& record = run.load.records[i];
    record.sent = true;
    record.start = absl::Milliseconds(400 * i);
    record.output_tokens = 2;
    record.time_to_first_token = absl::Milliseconds(100);
    record.end_to_end = absl::Milliseconds(150);
    record.gaps = {absl::Milliseconds(50)};
  }
  run.load.records[1].error_kind = "timeout";
  run.load.records[1].error = "no <answer>";
  run.report = MakeReport(run.load.records, run.load.duration, options);
  return run;
}

BenchPlan PlanOf(std::string model) {
  BenchPlan plan;
  plan.load.model = std::move(model);
  plan.load.http.url = "http://127.0.0.1:8000";
  return plan;
}

TEST(BenchPlot, APageOfOneRunStandsAlone) {
  const BenchPlan plan = PlanOf("<b>demo");
  const std::vector<BenchRun> runs = {
      RunAt(std::numeric_limits<double>::infinity(), plan.report)};
  const std::string page = PlotPage(plan, runs);
  EXPECT_THAT(page, HasSubstr("&lt;b&gt;demo"));
  EXPECT_THAT(page, Not(HasSubstr("<b>demo")));
  EXPECT_THAT(page, HasSubstr("no &lt;answer&gt;"));
  EXPECT_THAT(page, HasSubstr("Requests under way"));
  EXPECT_THAT(page, Not(HasSubstr("over the rate")));
  for (const char* outside : {"<script", "src=", "href=", "@import", "url("}) {
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  }
}

TEST(BenchPlot, ASweepHasItsCurvesOverTheRate) {
  BenchPlan plan = PlanOf("demo");
  plan.report.limits.end_to_end = absl::Seconds(1);
  const std::vector<BenchRun> runs = {RunAt(1, plan.report), RunAt(2, plan.report)};
  const std::string page = PlotPage(plan, runs);
  EXPECT_THAT(page, HasSubstr("Time to first token over the rate"));
  EXPECT_THAT(page, HasSubstr(">good<"));
  EXPECT_THAT(page, HasSubstr("<h2>2 requests a second</h2>"));
}

TEST(BenchPlot, RunsWithoutAnyAnswerAreDrawnToo) {
  const BenchPlan plan = PlanOf("demo");
  BenchRun run;
  run.request_rate = 3;
  run.report = MakeReport(run.load.records, run.load.duration, plan.report);
  const std::vector<BenchRun> runs = {run};
  EXPECT_THAT(PlotPage(plan, runs), Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace tessera::cli
