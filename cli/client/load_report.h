// LoadReport: what a load run measured, under the names that other benchmark tools use,
// so that numbers compare.
//
// It stands behind LoadGenerator and takes no time itself: records in, text or JSON out.
#ifndef TESSERA_CLI_CLIENT_LOAD_REPORT_H_
#define TESSERA_CLI_CLIENT_LOAD_REPORT_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "nlohmann/json_fwd.hpp"

namespace tessera::cli {

// One request, as it went. Durations count from sending it.
struct RequestRecord {
  bool sent = false;
  std::string error_kind;  // Empty: completed.
  std::string error;       // The message of the failure.
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  absl::Duration time_to_first_token;
  absl::Duration end_to_end;
  std::vector<absl::Duration> gaps;  // Between pieces of text.
};

// Of a set of values; all 0 for none.
struct Summary {
  double mean = 0;
  double std_dev = 0;  // Of the population.
  double median = 0;
  double p90 = 0;
  double p95 = 0;
  double p99 = 0;
};

// The value below which `percent` of 100 lie, linear between neighbours; `sorted` is
// ascending. 0 for no values.
double Percentile(std::span<const double> sorted, double percent);

Summary Summarize(std::vector<double> values);

// What a request must keep to count as good; zero: no limit.
struct LatencyLimits {
  absl::Duration time_to_first_token;
  absl::Duration time_per_output_token;
  absl::Duration end_to_end;

  bool any() const {
    return time_to_first_token > absl::ZeroDuration() ||
           time_per_output_token > absl::ZeroDuration() ||
           end_to_end > absl::ZeroDuration();
  }
};

// A value.
struct LoadReport {
  absl::Duration duration;
  int64_t completed = 0;
  int64_t failed = 0;
  int64_t not_sent = 0;
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  int64_t good = 0;  // Completed within the limits.
  Summary ttft_ms;   // Time to first token.
  Summary tpot_ms;   // Time per output token after the first.
  Summary itl_ms;    // Between pieces of text, all requests together.
  Summary e2el_ms;   // From sending to the end.
  std::map<std::string, int64_t> errors;           // How many, by kind.
  std::map<std::string, std::string> error_texts;  // The first message of each kind.

  double PerSecond(int64_t count) const;
};

// Latencies are those of completed requests only.
LoadReport MakeReport(std::span<const RequestRecord> records, absl::Duration duration,
                      const LatencyLimits& limits);

// The measured keys of `vllm bench serve`, and errors_by_kind.
nlohmann::json ReportJson(const LoadReport& report, const LatencyLimits& limits);

// A table for people.
std::string ReportText(const LoadReport& report, const LatencyLimits& limits);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_LOAD_REPORT_H_
