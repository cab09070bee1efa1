// `tessera bench kernels`: products with weights, by format and rows, and what share of
// the nearer bound they reach: the machine's read bandwidth or its multiply-adds.
//
// It stands under RunBench.
#ifndef TESSERA_CLI_BENCH_KERNELS_COMMAND_H_
#define TESSERA_CLI_BENCH_KERNELS_COMMAND_H_

#include "absl/status/status.h"
#include "cli/subcommand.h"

namespace tessera::cli {

// Parses what stands behind its name and measures; the table goes to stdout.
// kInvalidArgument: the command line, or a backend that this machine has not;
// kResourceExhausted: no memory; kUnavailable: the JSON file cannot be written.
absl::Status RunBenchKernels(Arguments arguments);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_KERNELS_COMMAND_H_
