// `tessera bench sources`: what it costs a model's steps that its Engram rows come from
// elsewhere, against rows in the process's own memory.
//
// It stands under RunBench.
#ifndef TESSERA_CLI_BENCH_SOURCES_COMMAND_H_
#define TESSERA_CLI_BENCH_SOURCES_COMMAND_H_

#include "absl/status/status.h"
#include "cli/subcommand.h"

namespace tessera::cli {

// Parses what stands behind its name and measures; the table goes to stdout.
// kInvalidArgument: the command line; else the errors of loading and running the model;
// kUnavailable: the JSON file cannot be written.
absl::Status RunBenchSources(Arguments arguments);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_SOURCES_COMMAND_H_
