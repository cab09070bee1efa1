// `tessera bench host`: what runs on the host around a model's steps: text to tokens and
// back, the scheduler, and the hand-over of work to the threads of a rank.
//
// It stands under RunBench.
#ifndef TESSERA_CLI_BENCH_HOST_COMMAND_H_
#define TESSERA_CLI_BENCH_HOST_COMMAND_H_

#include "absl/status/status.h"
#include "cli/subcommand.h"

namespace tessera::cli {

// Parses what stands behind its name and measures; the table goes to stdout.
// kInvalidArgument: the command line; kNotFound and the like: the tokenizer or the text;
// kUnavailable: the JSON file cannot be written.
absl::Status RunBenchHost(Arguments arguments);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_HOST_COMMAND_H_
