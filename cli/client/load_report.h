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
#include "cli/client/load_record.h"
#include "nlohmann/json_fwd.hpp"

namespace tessera::cli {

// Of a set of values; all 0 for none.
struct Summary {
  double mean = 0;
  double std_dev = 0;  // Of the population.
  double median = 0;
  std::vector<double> percentiles;  // One for each that was asked for.
};

// The value below which `percent` of 100 lie, linear between neighbours; `sorted` is
// ascending. 0 for no values.
double Percentile(std::span<const double> sorted, double percent);

Summary Summarize(std::vector<double> values, std::span<const double> percents);

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

// ttft, tpot, itl, e2el, client_queue_time, e2el_including_client_queue.
std::vector<std::string> LatencyKeys();

struct ReportOptions {
  LatencyLimits limits = {};
  std::vector<std::string> metrics = {"ttft", "tpot", "itl", "e2el"};  // LatencyKeys.
  std::vector<double> percentiles = {90, 95, 99};
  // Latencies count from the arrival that the plan gave a request, and not from its
  // sending: what a stalled server delayed is counted too (no coordinated omission).
  bool from_arrival = false;
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
  // In milliseconds, by key:
  //   ttft               time to first token
  //   tpot               time per output token after the first
  //   itl                between tokens, all requests together; of pieces of text where
  //                      the server does not say how many tokens a piece has
  //   e2el               to the last token
  //   client_queue_time  from the arrival to the sending
  std::map<std::string, Summary> latencies;
  double offered_rate = 0;   // Requests a second as planned; 0: all at once.
  double achieved_rate = 0;  // As they were sent.
  double output_tokens_per_second_max = 0;
  double tokens_per_event = 0;
  // What the generator itself was late by, in milliseconds: median, 99 of 100, most.
  double lag_ms_median = 0;
  double lag_ms_p99 = 0;
  double lag_ms_max = 0;
  std::map<std::string, int64_t> errors;           // How many, by kind.
  std::map<std::string, std::string> error_texts;  // The first message of each kind.

  double PerSecond(int64_t count) const;
};

// Latencies are those of completed requests only.
LoadReport MakeReport(std::span<const RequestRecord> records, absl::Duration duration,
                      const ReportOptions& options);

// Output tokens of each second of the run, of completed requests.
std::vector<double> TokensBySecond(std::span<const RequestRecord> records);

// The measured keys of `vllm bench serve`, errors_by_kind, and what it does not measure:
// rates offered and achieved, the generator's lag.
nlohmann::json ReportJson(const LoadReport& report, const ReportOptions& options);

// Its keys of single requests: input_lens, output_lens, ttfts, itls, latencies,
// start_times, queue_times, generated_texts, errors. Times in seconds, from sending.
nlohmann::json DetailJson(std::span<const RequestRecord> records);

// A table for people.
std::string ReportText(const LoadReport& report, const ReportOptions& options);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_LOAD_REPORT_H_
