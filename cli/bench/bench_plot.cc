#include "cli/bench/bench_plot.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cli/client/chart.h"
#include "cli/client/load_report.h"
#include "fmt/format.h"

#include "common/build_info.h"
#include "common/status.h"

namespace tessera::cli {
namespace {

// A curve of distribution has a point for each of as many steps, however many requests.
constexpr int kDistributionPoints = 100;

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --faint: #d5d9de; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaee; --paper: #16191d; --faint: #3a4048; } }
body { margin: 2rem auto; max-width: 84rem; padding: 0 1rem; background: var(--paper);
  color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); }
svg { width: 100%; height: auto; } pre { overflow-x: auto; }
text { fill: var(--ink); font-size: 12px; } .title { font-size: 15px; font-weight: 600; }
.grid { stroke: var(--faint); } polyline { fill: none; stroke-width: 2; }
.c0 { --c: #2563eb; } .c1 { --c: #d9480f; } .c2 { --c: #2b8a3e; }
.c3 { --c: #9c36b5; } .c4 { --c: #b08900; } .c5 { --c: #c2255c; }
polyline { stroke: var(--c); } circle { fill: var(--c); } text.legend { fill: var(--c); }
)";

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

bool Completed(const RequestRecord& record) {
  return record.sent && record.error_kind.empty();
}

ChartSeries Distribution(const char* name, std::vector<double> values) {
  std::sort(values.begin(), values.end());
  ChartSeries series{name, {}, true};
  for (int i = 0; i <= kDistributionPoints && !values.empty(); ++i) {
    const double percent = 100.0 * i / kDistributionPoints;
    series.points.push_back({Percentile(values, percent), percent});
  }
  return series;
}

Chart FirstTokens(const BenchPlan& plan, const BenchRun& run) {
  ChartSeries times{"completed", {}, false};
  ChartSeries failures{"failed", {}, false};
  for (const RequestRecord& record : run.load.records) {
    const absl::Duration waited =
        plan.report.from_arrival ? record.queue_time() : absl::ZeroDuration();
    if (Completed(record)) {
      times.points.push_back(
          {Seconds(record.start),
           absl::ToDoubleMilliseconds(waited + record.time_to_first_token)});
    } else if (record.sent) {
      failures.points.push_back({Seconds(record.start), 0});
    }
  }
  return {"Time to first token of each request",
          "sent after (s)",
          "ms",
          {std::move(times), std::move(failures)}};
}

Chart Throughput(const BenchRun& run) {
  ChartSeries tokens{"output tokens/s", {}, true};
  const std::vector<double> by_second = TokensBySecond(run.load.records);
  for (size_t i = 0; i < by_second.size(); ++i) {
    tokens.points.push_back({static_cast<double>(i), by_second[i]});
  }
  return {"Output tokens of each second", "s", "tokens/s", {std::move(tokens)}};
}

Chart UnderWay(const BenchRun& run) {
  std::vector<std::pair<double, int>> changes;
  for (const RequestRecord& record : run.load.records) {
    if (record.sent) {
      changes.emplace_back(Seconds(record.start), 1);
      changes.emplace_back(Seconds(record.start + record.end_to_end), -1);
    }
  }
  std::sort(changes.begin(), changes.end());
  ChartSeries series{"requests", {}, true};
  int under_way = 0;
  for (const auto& [when, change] : changes) {
    series.points.push_back({when, static_cast<double>(under_way)});
    under_way += change;
    series.points.push_back({when, static_cast<double>(under_way)});
  }
  return {"Requests under way", "s", "requests", {std::move(series)}};
}

Chart Distributions(const BenchPlan& plan, const BenchRun& run) {
  std::vector<double> ttft;
  std::vector<double> e2el;
  std::vector<double> gaps;
  for (const RequestRecord& record : run.load.records) {
    if (!Completed(record)) {
      continue;
    }
    const absl::Duration waited =
        plan.report.from_arrival ? record.queue_time() : absl::ZeroDuration();
    ttft.push_back(absl::ToDoubleMilliseconds(waited + record.time_to_first_token));
    e2el.push_back(absl::ToDoubleMilliseconds(waited + record.end_to_end));
    for (const absl::Duration gap : record.gaps) {
      gaps.push_back(absl::ToDoubleMilliseconds(gap));
    }
  }
  return {"Share of requests (and gaps) below",
          "ms",
          "%",
          {Distribution("ttft", std::move(ttft)), Distribution("gaps", std::move(gaps)),
           Distribution("e2el", std::move(e2el))}};
}

// What `value` gives of every run, over the rate that was offered.
template <typename Value>
ChartSeries OverRate(std::string name, std::span<const BenchRun> runs,
                     const Value& value) {
  ChartSeries series{std::move(name), {}, true};
  for (const BenchRun& run : runs) {
    const double rate = std::isfinite(run.request_rate)
                            ? run.request_rate
                            : run.report.PerSecond(run.report.completed);
    series.points.push_back({rate, value(run.report)});
  }
  std::sort(series.points.begin(), series.points.end(),
            [](const ChartPoint& a, const ChartPoint& b) { return a.x < b.x; });
  return series;
}

Chart LatencyOverRate(const char* key, const char* title, const BenchPlan& plan,
                      std::span<const BenchRun> runs) {
  Chart chart{title, "requests/s offered", "ms", {}};
  chart.series.push_back(OverRate("median", runs, [key](const LoadReport& report) {
    return report.latencies.at(key).median;
  }));
  for (size_t i = 0; i < plan.report.percentiles.size(); ++i) {
    chart.series.push_back(OverRate(fmt::format("p{:g}", plan.report.percentiles[i]),
                                    runs, [key, i](const LoadReport& report) {
                                      return report.latencies.at(key).percentiles[i];
                                    }));
  }
  return chart;
}

std::vector<Chart> SweepCharts(const BenchPlan& plan, std::span<const BenchRun> runs) {
  Chart requests{"Requests answered", "requests/s offered", "requests/s", {}};
  requests.series.push_back(OverRate("completed", runs, [](const LoadReport& report) {
    return report.PerSecond(report.completed);
  }));
  if (plan.report.limits.any()) {
    requests.series.push_back(OverRate("good", runs, [](const LoadReport& report) {
      return report.PerSecond(report.good);
    }));
  }
  Chart tokens{"Output throughput", "requests/s offered", "tokens/s", {}};
  tokens.series.push_back(OverRate("tokens/s", runs, [](const LoadReport& report) {
    return report.PerSecond(report.output_tokens);
  }));
  return {LatencyOverRate("ttft", "Time to first token over the rate", plan, runs),
          LatencyOverRate("tpot", "Time per output token over the rate", plan, runs),
          std::move(requests), std::move(tokens)};
}

std::string ChartsHtml(const std::vector<Chart>& charts) {
  std::string out = "<div class=\"charts\">\n";
  for (const Chart& chart : charts) {
    out += ChartSvg(chart);
  }
  return out + "</div>\n";
}

std::string RunHtml(const BenchPlan& plan, const BenchRun& run) {
  std::string out =
      std::isfinite(run.request_rate)
          ? fmt::format("<h2>{:g} requests a second</h2>\n", run.request_rate)
          : std::string("<h2>Without waiting between requests</h2>\n");
  out += ChartsHtml(
      {FirstTokens(plan, run), Throughput(run), UnderWay(run), Distributions(plan, run)});
  out += "<pre>" + EscapeMarkup(ReportText(run.report, plan.report)) + "</pre>\n";
  for (const std::string& warning : Warnings(plan, run)) {
    out += "<p>Warning: " + EscapeMarkup(warning) + ".</p>\n";
  }
  return out;
}

}  // namespace

std::string PlotPage(const BenchPlan& plan, std::span<const BenchRun> runs) {
  const std::string what =
      EscapeMarkup(fmt::format("{} at {}", plan.load.model, plan.load.http.url));
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width\">"
      "<title>Load on {}</title><style>{}</style></head>\n<body>\n<h1>Load on {}</h1>\n",
      what, kStyle, what);
  if (runs.size() > 1) {
    page += ChartsHtml(SweepCharts(plan, runs));
  }
  for (const BenchRun& run : runs) {
    page += RunHtml(plan, run);
  }
  return page + fmt::format(
                    "<p>tessera {}; latencies from the {} of a request.</p>\n"
                    "</body>\n</html>\n",
                    Version(), plan.report.from_arrival ? "arrival" : "sending");
}

absl::Status WritePlot(const std::string& path, const BenchPlan& plan,
                       std::span<const BenchRun> runs) {
  std::ofstream file(path);
  file << PlotPage(plan, runs);
  file.close();
  return file ? absl::OkStatus() : UnavailableF("cannot write {}", path);
}

}  // namespace tessera::cli
