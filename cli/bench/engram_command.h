// `tessera bench engram`: how fast table rows reach a worker, by source, and what share
// of this machine's raw rate of random rows that is; and how fast tokens are hashed.
//
// It stands under RunBench.
#ifndef TESSERA_CLI_BENCH_ENGRAM_COMMAND_H_
#define TESSERA_CLI_BENCH_ENGRAM_COMMAND_H_

#include "absl/status/status.h"
#include "cli/subcommand.h"

namespace tessera::cli {

// Parses what stands behind its name and measures; the table goes to stdout.
// kInvalidArgument: the command line; kResourceExhausted: no memory for the tables;
// kUnavailable: the JSON file cannot be written.
absl::Status RunBenchEngram(Arguments arguments);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_ENGRAM_COMMAND_H_
