// The frame of the command line: a table of subcommands, and the one way each reads its
// options.
//
// A subcommand lies in a file of its name (cli/serve.cc), declares its Run function here,
// and has a row in main.cc. It wires the folders together and holds no logic of theirs.
// Nothing includes cli/ but its own files.
#ifndef TESSERA_CLI_SUBCOMMAND_H_
#define TESSERA_CLI_SUBCOMMAND_H_

#include <iosfwd>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/option_table.h"

namespace tessera::cli {

// What stands behind the subcommand's name.
using Arguments = std::span<const std::string>;

struct Subcommand {
  std::string_view name;
  std::string_view summary;  // One line, for `tessera --help`.
  // Runs to the end. An error is printed as `tessera NAME: message`; kInvalidArgument
  // makes the process exit with 2, any other error with 1.
  absl::Status (*run)(Arguments arguments);
};

// Runs the subcommand that `arguments` (those of main, without the program's name) names,
// or
// --help or --version, and returns the exit code. An unknown name is 2. External
// synchronisation.
int Dispatch(std::span<const Subcommand> subcommands, Arguments arguments,
             std::ostream& out, std::ostream& err);

// Fills the table's fields from flags, environment and file, and logs the notices. False:
// --help or
// --print-config was asked for and printed on stdout; return OK then. Errors as
// OptionTable::Parse.
absl::StatusOr<bool> ParseOptions(OptionTable* table, Arguments arguments);

// The subcommands, each in the file of its name.
absl::Status RunBench(Arguments arguments);
absl::Status RunChat(Arguments arguments);
absl::Status RunInspect(Arguments arguments);
absl::Status RunCoordinator(Arguments arguments);
absl::Status RunEngram(Arguments arguments);
absl::Status RunKey(Arguments arguments);
absl::Status RunServe(Arguments arguments);
absl::Status RunWorker(Arguments arguments);
absl::Status RunTrace(Arguments arguments);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_SUBCOMMAND_H_
