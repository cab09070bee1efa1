// `tessera bench decode` and `tessera bench prefill`: the speed of a model on this
// machine, and its share of what the machine can do.
//
// It stands under RunBench.
#ifndef TESSERA_CLI_BENCH_MODEL_COMMAND_H_
#define TESSERA_CLI_BENCH_MODEL_COMMAND_H_

#include "absl/status/status.h"
#include "cli/subcommand.h"

namespace tessera::cli {

// Each parses what stands behind its name and measures; the table goes to stdout.
// kInvalidArgument: the command line; else the errors of loading and running the model;
// kUnavailable: the JSON file cannot be written.
absl::Status RunBenchDecode(Arguments arguments);
absl::Status RunBenchPrefill(Arguments arguments);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_MODEL_COMMAND_H_
