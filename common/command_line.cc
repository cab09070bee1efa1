#include "common/command_line.h"

#include <algorithm>

#include "CLI/CLI.hpp"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera {
namespace {

constexpr size_t kHelpColumn = 40;
constexpr char kFooter[] =
    "Each option may also be set in the environment (TESSERA_MAX_MODEL_LEN for\n"
    "--max-model-len) or in the YAML file of --config. Flags win over the environment, "
    "which\n"
    "wins over the file.";

// CLI11 knows only one-letter short forms: -tp 4 and -tp=4 become the long flag before it
// looks.
std::vector<std::string> ExpandShortForms(const std::vector<CommandLineRow>& rows,
                                          std::span<const std::string> arguments) {
  std::map<std::string, std::string> long_of_short;
  for (const CommandLineRow& row : rows) {
    if (!row.short_letters.empty()) {
      long_of_short["-" + row.short_letters] = "--" + row.name;
    }
  }
  std::vector<std::string> expanded;
  bool only_values = false;
  for (const std::string& argument : arguments) {
    only_values = only_values || argument == "--";
    const size_t name_end = std::min(argument.find('='), argument.size());
    const auto it = long_of_short.find(argument.substr(0, name_end));
    expanded.push_back(only_values || it == long_of_short.end()
                           ? argument
                           : it->second + argument.substr(name_end));
  }
  return expanded;
}

// The options that one row becomes in CLI11.
struct Declared {
  CLI::Option* flag = nullptr;
  CLI::Option* negative = nullptr;  // --no-name of a flag
  CLI::Option* positional = nullptr;
};

Declared Declare(const CommandLineRow& row, CLI::App* app) {
  Declared declared;
  if (row.is_flag) {
    declared.flag = app->add_flag("--" + row.name);
    declared.flag->description(
        fmt::format("{}; --no-{} turns it off", row.help, row.name));
    declared.flag->group(row.heading);
    declared.negative = app->add_flag("--no-" + row.name)->group("");
    return declared;
  }
  const std::string short_note =
      row.short_letters.empty() ? "" : fmt::format(" (also -{})", row.short_letters);
  declared.flag = app->add_option("--" + row.name)->type_name(row.type_name);
  declared.flag->description(row.help + short_note)->group(row.heading);
  declared.flag->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  if (row.is_list) {
    declared.flag->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args();
  } else if (row.value_optional) {
    declared.flag->expected(0, 1);
  } else {
    declared.flag->expected(1);
  }
  if (!row.positional.empty()) {
    declared.positional = app->add_option(row.positional)->type_name(row.type_name);
    declared.positional->description(fmt::format("the same as --{}", row.name));
    if (row.is_list) {
      declared.positional->expected(1, CLI::detail::expected_max_vector_size)
          ->allow_extra_args();
    }
  }
  return declared;
}

// Which of --name and --no-name was typed last; both may be typed, as scripts append to
// options.
std::optional<std::string> FlagText(const Declared& declared, const CLI::App& app) {
  std::optional<std::string> text;
  for (const CLI::Option* typed : app.parse_order()) {
    if (typed == declared.flag) {
      text = declared.flag->results().back();  // "true", or what follows an equals sign
    } else if (typed == declared.negative) {
      text = "false";
    }
  }
  return text;
}

absl::Status Collect(const CommandLineRow& row, const Declared& declared,
                     const CLI::App& app, CommandLine* line) {
  if (row.is_flag) {
    if (const std::optional<std::string> text = FlagText(declared, app);
        text.has_value()) {
      line->texts[row.name] = {*text};
    }
    return absl::OkStatus();
  }
  const bool typed = declared.flag->count() > 0;
  if (declared.positional != nullptr && declared.positional->count() > 0) {
    if (typed) {
      return InvalidArgumentF("{} is given twice, as '{}' and with --{}", row.positional,
                              declared.positional->results().front(), row.name);
    }
    line->texts[row.name] = declared.positional->results();
  } else if (typed && row.is_list) {
    line->texts[row.name] = declared.flag->results();
  } else if (typed) {
    line->texts[row.name] = {declared.flag->results().back()};
  }
  return absl::OkStatus();
}

absl::StatusOr<CommandLine> Read(CLI::App* app, const std::vector<CommandLineRow>& rows,
                                 std::vector<std::string> arguments) {
  app->set_help_flag();
  app->allow_extras();
  app->footer(kFooter);
  app->get_formatter()->column_width(kHelpColumn);
  app->add_flag("-h,--help")->description("Prints this text and exits.");
  const CLI::Option* print_config =
      app->add_flag("--print-config")
          ->description("Prints the values in force with origins and exits.");
  std::vector<Declared> declared;
  for (const CommandLineRow& row : rows) {
    declared.push_back(Declare(row, app));
  }
  CommandLine line;
  // Asked for help, nothing else is read: a wrong option next to it must not hide it.
  if (std::any_of(arguments.begin(), std::find(arguments.begin(), arguments.end(), "--"),
                  [](const std::string& a) { return a == "-h" || a == "--help"; })) {
    line.help = app->help();
    return line;
  }
  std::reverse(arguments.begin(), arguments.end());  // The order that CLI11 wants.
  app->parse(std::move(arguments));
  line.print_config = print_config->count() > 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    TESSERA_RETURN_IF_ERROR(Collect(rows[i], declared[i], *app, &line));
  }
  line.rest = app->remaining();
  return line;
}

}  // namespace

absl::StatusOr<CommandLine> ReadCommandLine(const std::string& command,
                                            const std::string& summary,
                                            const std::vector<CommandLineRow>& rows,
                                            std::span<const std::string> arguments) {
  try {
    CLI::App app(summary, "tessera " + command);
    return Read(&app, rows, ExpandShortForms(rows, arguments));
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

}  // namespace tessera
