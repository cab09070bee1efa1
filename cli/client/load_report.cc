#include "cli/client/load_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace tessera::cli {
namespace {

using nlohmann::json;

double Milliseconds(absl::Duration duration) {
  return absl::ToDoubleMilliseconds(duration);
}

// After the first token, which prefill made; zero for a single token.
absl::Duration TimePerOutputToken(const RequestRecord& record) {
  return record.output_tokens > 1 ? (record.end_to_end - record.time_to_first_token) /
                                        (record.output_tokens - 1)
                                  : absl::ZeroDuration();
}

bool Within(absl::Duration value, absl::Duration limit) {
  return limit <= absl::ZeroDuration() || value <= limit;
}

// The four latencies with their keys and their names.
struct Row {
  const char* key;
  const char* name;
  const Summary* summary;
};

std::array<Row, 4> RowsOf(const LoadReport& report) {
  return {Row{"ttft", "Time to first token", &report.ttft_ms},
          Row{"tpot", "Time per output token after the first", &report.tpot_ms},
          Row{"itl", "Inter-token latency", &report.itl_ms},
          Row{"e2el", "End-to-end latency", &report.e2el_ms}};
}

}  // namespace

double Percentile(std::span<const double> sorted, double percent) {
  if (sorted.empty()) {
    return 0;
  }
  const double place = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(std::floor(place));
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - std::floor(place));
}

Summary Summarize(std::vector<double> values) {
  Summary out;
  if (values.empty()) {
    return out;
  }
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(values.size());
  for (const double value : values) {
    out.mean += value / count;
  }
  double variance = 0;
  for (const double value : values) {
    variance += (value - out.mean) * (value - out.mean) / count;
  }
  out.std_dev = std::sqrt(variance);
  out.median = Percentile(values, 50);
  out.p90 = Percentile(values, 90);
  out.p95 = Percentile(values, 95);
  out.p99 = Percentile(values, 99);
  return out;
}

double LoadReport::PerSecond(int64_t count) const {
  const double seconds = absl::ToDoubleSeconds(duration);
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

LoadReport MakeReport(std::span<const RequestRecord> records, absl::Duration duration,
                      const LatencyLimits& limits) {
  LoadReport report;
  report.duration = duration;
  std::vector<double> ttft;
  std::vector<double> tpot;
  std::vector<double> itl;
  std::vector<double> e2el;
  for (const RequestRecord& record : records) {
    if (!record.sent) {
      ++report.not_sent;
      continue;
    }
    if (!record.error_kind.empty()) {
      ++report.failed;
      ++report.errors[record.error_kind];
      report.error_texts.emplace(record.error_kind, record.error);
      continue;
    }
    ++report.completed;
    report.input_tokens += record.input_tokens;
    report.output_tokens += record.output_tokens;
    const absl::Duration per_token = TimePerOutputToken(record);
    ttft.push_back(Milliseconds(record.time_to_first_token));
    e2el.push_back(Milliseconds(record.end_to_end));
    if (record.output_tokens > 1) {
      tpot.push_back(Milliseconds(per_token));
    }
    for (const absl::Duration gap : record.gaps) {
      itl.push_back(Milliseconds(gap));
    }
    const bool good = Within(record.time_to_first_token, limits.time_to_first_token) &&
                      Within(per_token, limits.time_per_output_token) &&
                      Within(record.end_to_end, limits.end_to_end);
    report.good += good ? 1 : 0;
  }
  report.ttft_ms = Summarize(std::move(ttft));
  report.tpot_ms = Summarize(std::move(tpot));
  report.itl_ms = Summarize(std::move(itl));
  report.e2el_ms = Summarize(std::move(e2el));
  return report;
}

json ReportJson(const LoadReport& report, const LatencyLimits& limits) {
  json out = {
      {"duration", absl::ToDoubleSeconds(report.duration)},
      {"completed", report.completed},
      {"failed", report.failed},
      {"not_sent", report.not_sent},
      {"total_input_tokens", report.input_tokens},
      {"total_output_tokens", report.output_tokens},
      {"request_throughput", report.PerSecond(report.completed)},
      {"request_goodput",
       limits.any() ? json(report.PerSecond(report.good)) : json(nullptr)},
      {"output_throughput", report.PerSecond(report.output_tokens)},
      {"total_token_throughput",
       report.PerSecond(report.input_tokens + report.output_tokens)},
      {"errors_by_kind", report.errors},
  };
  for (const Row& row : RowsOf(report)) {
    const Summary& summary = *row.summary;
    for (const auto& [name, value] :
         {std::pair{"mean", summary.mean}, std::pair{"median", summary.median},
          std::pair{"std", summary.std_dev}, std::pair{"p90", summary.p90},
          std::pair{"p95", summary.p95}, std::pair{"p99", summary.p99}}) {
      out[fmt::format("{}_{}_ms", name, row.key)] = value;
    }
  }
  return out;
}

std::string ReportText(const LoadReport& report, const LatencyLimits& limits) {
  const auto line = [](const char* name, double value) {
    return fmt::format("{:<42}{:>14.2f}\n", name, value);
  };
  const auto count = [](const std::string& name, int64_t value) {
    return fmt::format("{:<42}{:>14}\n", name, value);
  };
  std::string text = count("Completed requests", report.completed);
  text += count("Failed requests", report.failed);
  if (report.not_sent > 0) {
    text += count("Requests not sent", report.not_sent);
  }
  text += line("Duration (s)", absl::ToDoubleSeconds(report.duration));
  text += count("Input tokens", report.input_tokens);
  text += count("Output tokens", report.output_tokens);
  text += line("Request throughput (1/s)", report.PerSecond(report.completed));
  if (limits.any()) {
    text += line("Request goodput (1/s)", report.PerSecond(report.good));
  }
  text += line("Output throughput (tokens/s)", report.PerSecond(report.output_tokens));
  text += line("Total throughput (tokens/s)",
               report.PerSecond(report.input_tokens + report.output_tokens));
  text += fmt::format("\n{:<42}{:>10}{:>10}{:>10}{:>10}\n", "Latency (ms)", "mean",
                      "median", "p90", "p99");
  for (const Row& row : RowsOf(report)) {
    text += fmt::format("{:<42}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}\n", row.name,
                        row.summary->mean, row.summary->median, row.summary->p90,
                        row.summary->p99);
  }
  for (const auto& [kind, number] : report.errors) {
    text += fmt::format("\n{} x {}: {}", number, kind, report.error_texts.at(kind));
  }
  return report.errors.empty() ? text : text + '\n';
}

}  // namespace tessera::cli
