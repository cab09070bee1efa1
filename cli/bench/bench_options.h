// The command line of `tessera bench serve`: the flags of `vllm bench serve`, and what
// they come to.
//
// It stands under RunBench. It checks what spans several options and reads no file and no
// network.
#ifndef TESSERA_CLI_BENCH_BENCH_OPTIONS_H_
#define TESSERA_CLI_BENCH_BENCH_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/client/load_generator.h"
#include "cli/client/load_report.h"
#include "cli/client/workload.h"

#include "common/option_table.h"

namespace tessera::cli {

// As typed, bound to the table by DeclareBench.
struct BenchOptions {
  std::optional<std::string> base_url;
  std::string ca_file;
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string backend = "openai";
  std::optional<std::string> endpoint;
  std::string api_key;
  std::string model;
  std::vector<std::string> headers;
  std::string extra_body;
  std::optional<bool> ignore_eos;
  bool continuous_usage = false;
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration read_timeout = absl::Minutes(10);

  WorkloadOptions workload;
  std::string dataset_name = "random";
  std::optional<std::string> prompt_format;
  std::optional<int64_t> input_len;
  std::optional<int64_t> output_len;
  std::optional<int64_t> sharegpt_output_len;
  std::optional<int64_t> custom_output_len;

  std::string request_rate = "inf";
  std::vector<std::string> request_rate_sweep;
  std::string burstiness = "1";
  std::optional<std::string> ramp_up_strategy;
  double ramp_up_start_rps = 0;
  double ramp_up_end_rps = 0;
  std::optional<int> max_concurrency;
  int64_t num_warmups = 0;
  int64_t ready_check_timeout_sec = 0;

  // Sampling: what is set goes into every request.
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<double> min_p;
  std::optional<double> frequency_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> repetition_penalty;
  std::optional<int64_t> logprobs;

  std::vector<std::string> goodput;
  std::string percentile_metrics = "ttft,tpot,itl,e2el";
  std::string metric_percentiles = "90,95,99";
  std::string latency_from = "auto";
  bool save_result = false;
  bool save_detailed = false;
  bool append_result = false;
  std::string result_dir;
  std::string result_filename;
  std::string plot_file;
  std::string label;
  std::vector<std::string> metadata;
};

void DeclareBench(OptionTable* table, BenchOptions* options);

// What the options come to.
struct BenchPlan {
  LoadRunOptions load;  // Without the model, where none was named, and the descriptor.
  WorkloadOptions workload;           // Without the rate.
  std::vector<double> request_rates;  // One run for each.
  ReportOptions report;
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Also takes the key of OPENAI_API_KEY where no other is given. kInvalidArgument: a value
// that is none, named with its flag.
absl::StatusOr<BenchPlan> PlanBench(const BenchOptions& options,
                                    const Environment& environment);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_BENCH_OPTIONS_H_
