// Splits a command line into the texts of each option, with CLI11, and prints the help.
//
// It knows the shape of options and not their types or values: common/option_table.h
// gives the rows and makes values of the texts. Holds no state and lets no exception out.
#ifndef TESSERA_COMMON_COMMAND_LINE_H_
#define TESSERA_COMMON_COMMAND_LINE_H_

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tessera {

// How one option is typed.
struct CommandLineRow {
  std::string name = {};           // --name
  std::string short_letters = {};  // -tp; empty for none
  std::string positional = {};     // Its name when it needs no flag; empty for none.
  std::string type_name = {};      // What the help shows as its value.
  std::string help = {};
  std::string heading = {};     // Empty: not in the help.
  bool is_flag = false;         // --name or --no-name, without a value
  bool is_list = false;         // One or more values, any number of times.
  bool value_optional = false;  // For options that are only recognised to be refused.
};

struct CommandLine {
  bool print_config = false;
  std::optional<std::string> help;  // The text, when it was asked for.
  // By name; options that were not typed are absent. Of repeated single values the last
  // counts.
  std::map<std::string, std::vector<std::string>> texts;
  // What no option took, in the order typed.
  std::vector<std::string> rest;
};

// kInvalidArgument: a value is missing or one too many, or an option is given both with
// and without its flag. What is unknown goes to `rest`.
absl::StatusOr<CommandLine> ReadCommandLine(const std::string& command,
                                            const std::string& summary,
                                            const std::vector<CommandLineRow>& rows,
                                            std::span<const std::string> arguments);

}  // namespace tessera

#endif  // TESSERA_COMMON_COMMAND_LINE_H_
