// The plot of `tessera bench serve`: one HTML page with its curves in it, no script and
// nothing from outside.
//
// Of one run: first-token times and throughput over the run, and how latencies are
// distributed. Of a sweep: latency and throughput over the rate.
#ifndef TESSERA_CLI_BENCH_BENCH_PLOT_H_
#define TESSERA_CLI_BENCH_BENCH_PLOT_H_

#include <span>
#include <string>

#include "absl/status/status.h"
#include "cli/bench/bench_options.h"
#include "cli/bench/bench_result.h"

namespace tessera::cli {

// The page. Of a sweep, the curves of single runs follow those over the rate.
std::string PlotPage(const BenchPlan& plan, std::span<const BenchRun> runs);

// kUnavailable: the file cannot be written.
absl::Status WritePlot(const std::string& path, const BenchPlan& plan,
                       std::span<const BenchRun> runs);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_BENCH_PLOT_H_
