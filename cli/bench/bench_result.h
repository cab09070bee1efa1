// The files that `tessera bench serve` writes, and what it says when a result should not
// be trusted.
//
// It stands under RunBench, behind the reports of the runs.
#ifndef TESSERA_CLI_BENCH_BENCH_RESULT_H_
#define TESSERA_CLI_BENCH_BENCH_RESULT_H_

#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/bench/bench_options.h"
#include "cli/client/load_generator.h"
#include "cli/client/load_report.h"
#include "nlohmann/json_fwd.hpp"

namespace tessera::cli {

// One run of a plan, of one rate.
struct BenchRun {
  double request_rate = 0;  // Infinity: all at once.
  LoadRun load;
  LoadReport report;
};

// Everything of a run under the keys of `vllm bench serve`, with the environment of the
// client and the details where they were asked for.
nlohmann::json ResultJson(const BenchOptions& options, const BenchPlan& plan,
                          const BenchRun& run, absl::Time now);

// Where the result goes; the name that the other tool gives where none was asked for.
std::string ResultPath(const BenchOptions& options, const BenchPlan& plan,
                       absl::Time now);

// One result is a JSON document; of a sweep, and where it is appended, each is a line.
// Makes the folder where there is none. kUnavailable: the file cannot be written.
absl::Status WriteResults(const std::string& path, bool append,
                          std::span<const nlohmann::json> results);

// Why the figures are worth less than they look: a generator that was late or had no
// processor left, requests that were held back, pieces of several tokens.
std::vector<std::string> Warnings(const BenchPlan& plan, const BenchRun& run);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_BENCH_RESULT_H_
