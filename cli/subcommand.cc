#include "cli/subcommand.h"

#include <algorithm>
#include <iostream>
#include <ostream>

#include "fmt/format.h"

#include "common/build_info.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

constexpr int kUsageError = 2;

std::string Help(std::span<const Subcommand> subcommands) {
  size_t width = 0;
  for (const Subcommand& subcommand : subcommands) {
    width = std::max(width, subcommand.name.size());
  }
  std::string text =
      "Serves DeepSeek-V4-class mixture-of-experts models.\n\n"
      "Usage: tessera SUBCOMMAND [OPTIONS]\n\nSubcommands:\n";
  for (const Subcommand& subcommand : subcommands) {
    text += fmt::format("  {:<{}}  {}\n", subcommand.name, width, subcommand.summary);
  }
  return text +
         "\nOptions:\n"
         "  -h, --help   Prints this text and exits.\n"
         "  --version    Prints the version and exits.\n\n"
         "`tessera SUBCOMMAND --help` lists the options of a subcommand.\n";
}

int Run(const Subcommand& subcommand, Arguments arguments, std::ostream& err) {
  const absl::Status status = subcommand.run(arguments);
  if (status.ok()) {
    return 0;
  }
  err << "tessera " << subcommand.name << ": " << status.message() << '\n';
  if (status.code() != absl::StatusCode::kInvalidArgument) {
    return 1;
  }
  err << "`tessera " << subcommand.name << " --help` lists the options\n";
  return kUsageError;
}

}  // namespace

int Dispatch(std::span<const Subcommand> subcommands, Arguments arguments,
             std::ostream& out, std::ostream& err) {
  if (arguments.empty()) {
    err << Help(subcommands);
    return kUsageError;
  }
  const std::string& name = arguments.front();
  if (name == "-h" || name == "--help" || name == "help") {
    out << Help(subcommands);
    return 0;
  }
  if (name == "--version") {
    out << "tessera " << Version() << " (" << Compiler() << ")\n";
    return 0;
  }
  const auto it = std::find_if(
      subcommands.begin(), subcommands.end(),
      [&name](const Subcommand& subcommand) { return subcommand.name == name; });
  if (it == subcommands.end()) {
    err << "tessera: " << name << " is not a subcommand\n\n" << Help(subcommands);
    return kUsageError;
  }
  return Run(*it, arguments.subspan(1), err);
}

absl::StatusOr<bool> ParseOptions(OptionTable* table, Arguments arguments) {
  TESSERA_ASSIGN_OR_RETURN(const ParsedOptions parsed,
                           table->Parse(arguments, ProcessEnvironment()));
  for (const std::string& notice : parsed.notices) {
    log::Warning("options", notice);
  }
  if (parsed.print_and_exit.has_value()) {
    std::cout << *parsed.print_and_exit << std::flush;
    return false;
  }
  return true;
}

}  // namespace tessera::cli
