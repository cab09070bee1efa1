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

struct LatencyName {
  const char* key;
  const char* name;
};

constexpr std::array<LatencyName, 6> kLatencies = {
    {{"ttft", "Time to first token"},
     {"tpot", "Time per output token after the first"},
     {"itl", "Inter-token latency"},
     {"e2el", "End-to-end latency"},
     {"client_queue_time", "Wait in the client"},
     {"e2el_including_client_queue", "End-to-end latency with that wait"}}};

using Values = std::map<std::string, std::vector<double>>;

// A piece of k tokens is k gaps of a k-th each, so that a server that sends many tokens
// at once does not look slower than one that sends them singly.
void AppendGaps(const RequestRecord& record, std::vector<double>* values) {
  for (size_t i = 0; i < record.gaps.size(); ++i) {
    const int32_t tokens = i < record.gap_tokens.size() ? record.gap_tokens[i] : 0;
    const int32_t parts = std::max(tokens, 1);
    const double gap = Milliseconds(record.gaps[i]) / parts;
    values->insert(values->end(), static_cast<size_t>(parts), gap);
  }
}

void AddLatencies(const RequestRecord& record, const ReportOptions& options,
                  LoadReport* report, Values* values) {
  const absl::Duration queue = record.queue_time();
  const absl::Duration before = options.from_arrival ? queue : absl::ZeroDuration();
  const absl::Duration first = before + record.time_to_first_token;
  const absl::Duration all = before + record.end_to_end;
  const absl::Duration per_token = TimePerOutputToken(record);
  (*values)["ttft"].push_back(Milliseconds(first));
  (*values)["e2el"].push_back(Milliseconds(all));
  if (record.output_tokens > 1) {
    (*values)["tpot"].push_back(Milliseconds(per_token));
  }
  AppendGaps(record, &(*values)["itl"]);
  (*values)["client_queue_time"].push_back(Milliseconds(queue));
  (*values)["e2el_including_client_queue"].push_back(
      Milliseconds(queue + record.end_to_end));
  const LatencyLimits& limits = options.limits;
  const bool good = Within(first, limits.time_to_first_token) &&
                    Within(per_token, limits.time_per_output_token) &&
                    Within(all, limits.end_to_end);
  report->good += good ? 1 : 0;
}

void AddLag(std::vector<double> lags, LoadReport* report) {
  std::sort(lags.begin(), lags.end());
  report->lag_ms_median = Percentile(lags, 50);
  report->lag_ms_p99 = Percentile(lags, 99);
  report->lag_ms_max = Percentile(lags, 100);
}

void AddRates(std::span<const RequestRecord> records, LoadReport* report) {
  absl::Duration last_arrival;
  absl::Duration last_start;
  int64_t sent = 0;
  for (const RequestRecord& record : records) {
    last_arrival = std::max(last_arrival, record.arrival);
    if (record.sent) {
      last_start = std::max(last_start, record.start);
      ++sent;
    }
  }
  const auto rate = [](size_t count, absl::Duration over) {
    return over > absl::ZeroDuration()
               ? static_cast<double>(count) / absl::ToDoubleSeconds(over)
               : 0;
  };
  report->offered_rate = rate(records.size(), last_arrival);
  report->achieved_rate = rate(static_cast<size_t>(sent), last_start);
}

std::string PercentileName(double percent) { return fmt::format("p{:g}", percent); }

}  // namespace

std::vector<std::string> LatencyKeys() {
  std::vector<std::string> keys;
  for (const LatencyName& latency : kLatencies) {
    keys.emplace_back(latency.key);
  }
  return keys;
}

double Percentile(std::span<const double> sorted, double percent) {
  if (sorted.empty()) {
    return 0;
  }
  const double place = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(std::floor(place));
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - std::floor(place));
}

Summary Summarize(std::vector<double> values, std::span<const double> percents) {
  Summary out;
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
  for (const double percent : percents) {
    out.percentiles.push_back(Percentile(values, percent));
  }
  return out;
}

double LoadReport::PerSecond(int64_t count) const {
  const double seconds = absl::ToDoubleSeconds(duration);
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

std::vector<double> TokensBySecond(std::span<const RequestRecord> records) {
  std::vector<double> tokens;
  const auto add = [&tokens](absl::Duration when, double count) {
    const auto second =
        static_cast<size_t>(std::max(0.0, std::floor(absl::ToDoubleSeconds(when))));
    tokens.resize(std::max(tokens.size(), second + 1), 0);
    tokens[second] += count;
  };
  for (const RequestRecord& record : records) {
    if (!record.sent || !record.error_kind.empty()) {
      continue;
    }
    // Every piece counts the same where the server does not say what it held.
    const double each = static_cast<double>(record.output_tokens) /
                        static_cast<double>(record.gaps.size() + 1);
    absl::Duration when = record.start + record.time_to_first_token;
    add(when, each);
    for (const absl::Duration gap : record.gaps) {
      when += gap;
      add(when, each);
    }
  }
  return tokens;
}

LoadReport MakeReport(std::span<const RequestRecord> records, absl::Duration duration,
                      const ReportOptions& options) {
  LoadReport report;
  report.duration = duration;
  Values values;
  std::vector<double> lags;
  int64_t events = 0;
  for (const RequestRecord& record : records) {
    if (!record.sent) {
      ++report.not_sent;
      continue;
    }
    lags.push_back(Milliseconds(record.generator_lag));
    if (!record.error_kind.empty()) {
      ++report.failed;
      ++report.errors[record.error_kind];
      report.error_texts.emplace(record.error_kind, record.error);
      continue;
    }
    ++report.completed;
    report.input_tokens += record.input_tokens;
    report.output_tokens += record.output_tokens;
    events += static_cast<int64_t>(record.gaps.size()) + 1;
    AddLatencies(record, options, &report, &values);
  }
  for (const std::string& key : LatencyKeys()) {
    report.latencies[key] = Summarize(std::move(values[key]), options.percentiles);
  }
  const std::vector<double> by_second = TokensBySecond(records);
  report.output_tokens_per_second_max =
      by_second.empty() ? 0 : *std::max_element(by_second.begin(), by_second.end());
  report.tokens_per_event =
      events > 0 ? static_cast<double>(report.output_tokens) / static_cast<double>(events)
                 : 0;
  AddLag(std::move(lags), &report);
  AddRates(records, &report);
  return report;
}

json ReportJson(const LoadReport& report, const ReportOptions& options) {
  const bool limited = options.limits.any();
  json out = {
      {"duration", absl::ToDoubleSeconds(report.duration)},
      {"completed", report.completed},
      {"failed", report.failed},
      {"not_sent", report.not_sent},
      {"total_input_tokens", report.input_tokens},
      {"total_output_tokens", report.output_tokens},
      {"request_throughput", report.PerSecond(report.completed)},
      {"request_goodput", limited ? json(report.PerSecond(report.good)) : json(nullptr)},
      {"output_throughput", report.PerSecond(report.output_tokens)},
      {"total_token_throughput",
       report.PerSecond(report.input_tokens + report.output_tokens)},
      {"max_output_tokens_per_s", report.output_tokens_per_second_max},
      {"tokens_per_event", report.tokens_per_event},
      {"offered_request_rate",
       report.offered_rate > 0 ? json(report.offered_rate) : json("inf")},
      {"achieved_request_rate", report.achieved_rate},
      {"latency_from", options.from_arrival ? "arrival" : "send"},
      {"median_generator_lag_ms", report.lag_ms_median},
      {"p99_generator_lag_ms", report.lag_ms_p99},
      {"max_generator_lag_ms", report.lag_ms_max},
      {"errors_by_kind", report.errors},
  };
  for (const std::string& key : options.metrics) {
    const Summary& summary = report.latencies.at(key);
    out[fmt::format("mean_{}_ms", key)] = summary.mean;
    out[fmt::format("median_{}_ms", key)] = summary.median;
    out[fmt::format("std_{}_ms", key)] = summary.std_dev;
    for (size_t i = 0; i < options.percentiles.size(); ++i) {
      out[fmt::format("{}_{}_ms", PercentileName(options.percentiles[i]), key)] =
          summary.percentiles[i];
    }
  }
  return out;
}

json DetailJson(std::span<const RequestRecord> records) {
  json out = {{"input_lens", json::array()},  {"output_lens", json::array()},
              {"ttfts", json::array()},       {"itls", json::array()},
              {"latencies", json::array()},   {"start_times", json::array()},
              {"queue_times", json::array()}, {"generated_texts", json::array()},
              {"errors", json::array()}};
  for (const RequestRecord& record : records) {
    const bool ended = record.sent && record.error_kind.empty();
    json gaps = json::array();
    for (const absl::Duration gap : record.gaps) {
      gaps.push_back(absl::ToDoubleSeconds(gap));
    }
    out["input_lens"].push_back(record.input_tokens);
    out["output_lens"].push_back(ended ? record.output_tokens : 0);
    out["ttfts"].push_back(absl::ToDoubleSeconds(record.time_to_first_token));
    out["itls"].push_back(std::move(gaps));
    out["latencies"].push_back(absl::ToDoubleSeconds(record.end_to_end));
    out["start_times"].push_back(absl::ToDoubleSeconds(record.start));
    out["queue_times"].push_back(record.sent ? absl::ToDoubleSeconds(record.queue_time())
                                             : 0);
    out["generated_texts"].push_back(record.text);
    out["errors"].push_back(record.sent ? record.error : "not sent");
  }
  return out;
}

std::string ReportText(const LoadReport& report, const ReportOptions& options) {
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
  if (report.offered_rate > 0) {
    text += line("Request rate offered (1/s)", report.offered_rate);
    text += line("Request rate achieved (1/s)", report.achieved_rate);
  }
  text += line("Request throughput (1/s)", report.PerSecond(report.completed));
  if (options.limits.any()) {
    text += line("Request goodput (1/s)", report.PerSecond(report.good));
  }
  text += line("Output throughput (tokens/s)", report.PerSecond(report.output_tokens));
  text +=
      line("Output throughput of the best second", report.output_tokens_per_second_max);
  text += line("Total throughput (tokens/s)",
               report.PerSecond(report.input_tokens + report.output_tokens));
  text += line("Lag of the generator, p99 (ms)", report.lag_ms_p99);
  text +=
      fmt::format("\n{:<42}{:>10}{:>10}{:>10}", "Latency (ms)", "mean", "std", "median");
  for (const double percent : options.percentiles) {
    text += fmt::format("{:>10}", PercentileName(percent));
  }
  text += '\n';
  for (const LatencyName& latency : kLatencies) {
    if (std::find(options.metrics.begin(), options.metrics.end(), latency.key) ==
        options.metrics.end()) {
      continue;
    }
    const Summary& summary = report.latencies.at(latency.key);
    text += fmt::format("{:<42}{:>10.2f}{:>10.2f}{:>10.2f}", latency.name, summary.mean,
                        summary.std_dev, summary.median);
    for (const double value : summary.percentiles) {
      text += fmt::format("{:>10.2f}", value);
    }
    text += '\n';
  }
  for (const auto& [kind, number] : report.errors) {
    text += fmt::format("\n{} x {}: {}", number, kind, report.error_texts.at(kind));
  }
  return report.errors.empty() ? text : text + '\n';
}

}  // namespace tessera::cli
