// The options of a subcommand, declared in one table that is bound to the fields of a
// struct:
//
//   struct BenchOptions { std::string model; int port = 8000; std::optional<int> seed; };
//   BenchOptions options;
//   OptionTable table("bench", "Loads a server and reports latency and throughput.");
//   table.Add("model", &options.model, "checkpoint folder").Positional("MODEL");
//   table.Add("port", &options.port, "port of the API").Range(0, 65535);
//   TESSERA_ASSIGN_OR_RETURN(ParsedOptions parsed, table.Parse(arguments,
//   ProcessEnvironment()));
//
// The value that a field has when it is added is the default. Flags win over the
// environment (TESSERA_MAX_MODEL_LEN for --max-model-len), which wins over one YAML file
// (--config FILE, keys are the long flags). --help and --print-config are part of every
// table. Every source that is given is checked, also where a stronger one overrides it: a
// mistake never hides.
//
// It stands on CLI11 and yaml-cpp and lets none of their exceptions out. It does not know
// what any option means; a subcommand checks what spans several options.
#ifndef TESSERA_COMMON_OPTION_TABLE_H_
#define TESSERA_COMMON_OPTION_TABLE_H_

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/command_line.h"
#include "common/option_value.h"

namespace tessera {

// Looks up an environment variable by name; nothing when it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// The environment of this process.
Environment ProcessEnvironment();

enum class OptionOrigin { kDefault, kYaml, kEnvironment, kFlag };

// One row of the table. The setters return the row, so that a declaration is one
// statement. Owned by its table; external synchronisation.
class Option {
 public:
  // A short form of several letters with one dash: Short("tp") lets users type -tp 4.
  Option& Short(std::string letters);

  // May also be given without its flag; `placeholder` is its name in --help. In the order
  // added.
  Option& Positional(std::string placeholder);

  // --print-config and errors show *** in place of the value.
  Option& Secret();

  // Numbers and durations (in seconds) only: both bounds are allowed values.
  Option& Range(double min, double max);
  Option& AtLeast(double min);

  // Text only: any other value is refused with this list.
  Option& OneOf(std::vector<std::string> choices);

  const std::string& name() const { return name_; }

  // Where the value in force came from; fit for use after Parse.
  OptionOrigin origin() const { return origin_; }

  // TESSERA_<NAME>.
  std::string EnvironmentName() const;

 private:
  friend class OptionTable;

  // How a row reaches the field that it is bound to, whatever the field's type.
  struct Binding {
    std::string type_name;
    bool is_flag = false;
    bool is_list = false;
    std::function<absl::Status(const std::string& text)> set;  // A list appends.
    std::function<void()> clear;                               // A list only.
    std::function<std::vector<std::string>()> show;  // Empty when an optional is not set.
    std::function<std::optional<double>()> number;
  };

  Option(std::string name, std::string help, std::string heading, Binding binding);

  absl::Status Assign(const std::vector<std::string>& texts, OptionOrigin origin,
                      std::string place);
  absl::Status AssignOne(const std::string& text);

  std::string name_;
  std::string help_;
  std::string heading_;
  Binding binding_;
  std::string short_;
  std::string positional_;
  bool secret_ = false;
  std::optional<double> min_;
  std::optional<double> max_;
  std::vector<std::string> choices_;
  // A flag that is accepted without effect, or refused, for this reason.
  std::string ignored_;
  std::string refused_;
  OptionOrigin origin_ = OptionOrigin::kDefault;
  std::string place_;  // The YAML file, the variable or the flag.
};

// What a command line asked for.
struct ParsedOptions {
  // Set by --help and --print-config: print it and exit with 0.
  std::optional<std::string> print_and_exit;
  // Lines about options that were accepted without effect, and secrets on the command
  // line; the caller logs them.
  std::vector<std::string> notices;
};

// External synchronisation. The fields that it is bound to must outlive it.
class OptionTable {
 public:
  OptionTable(std::string command, std::string summary);

  // The options that follow stand under this heading in --help.
  void Heading(std::string heading) { heading_ = std::move(heading); }

  // `field` is a std::string, bool, int, int64_t, uint64_t, double or absl::Duration, a
  // std::optional of one of these (unset until given), or a std::vector<std::string>
  // (several values after one flag, or the flag several times; in the environment, with
  // commas). A bool `x` is typed --x or --no-x. A name that is already taken is a bug.
  template <typename T>
  Option& Add(const std::string& name, T* field, const std::string& help);
  template <typename T>
  Option& Add(const std::string& name, std::optional<T>* field, const std::string& help);
  Option& Add(const std::string& name, std::vector<std::string>* field,
              const std::string& help);

  // Accepts a flag of other servers that has no effect here, and gives the reason as a
  // notice.
  void Ignore(const std::string& name, bool takes_value, const std::string& reason);

  // Refuses a flag of other servers with the reason, kUnimplemented.
  void Refuse(const std::string& name, const std::string& reason);

  // Fills the fields. Call it once. `arguments` are those after the subcommand's name.
  // kInvalidArgument: an unknown, repeated or malformed option, flag or YAML key;
  // kNotFound: no such YAML file; kUnimplemented: a refused flag. Reads one file at most.
  absl::StatusOr<ParsedOptions> Parse(std::span<const std::string> arguments,
                                      const Environment& environment);

  // Every value in force with its origin, as YAML that --config takes; secrets as ***.
  std::string PrintConfig() const;

  // The row of that name, or null.
  const Option* Find(const std::string& name) const;

 private:
  Option& AddBound(const std::string& name, const std::string& help,
                   Option::Binding binding);
  Option* FindMutable(const std::string& name);
  std::vector<CommandLineRow> Rows() const;
  absl::Status CheckRest(const std::vector<std::string>& rest) const;
  absl::Status ApplyYaml(const std::string& path);
  absl::Status ApplyEnvironment(const Environment& environment);
  absl::Status ApplyFlags(const CommandLine& line);
  std::string Suggestion(const std::string& prefix, const std::string& typed) const;

  const std::string command_;
  const std::string summary_;
  std::string heading_ = "Options";
  std::string config_path_;
  std::vector<std::unique_ptr<Option>> options_;
};

template <typename T>
Option& OptionTable::Add(const std::string& name, T* field, const std::string& help) {
  Option::Binding binding;
  binding.type_name = OptionTypeName(*field);
  binding.is_flag = std::is_same_v<T, bool>;
  binding.set = [field](const std::string& text) { return ParseOption(text, field); };
  binding.show = [field] { return std::vector<std::string>{ShowOption(*field)}; };
  binding.number = [field] { return OptionNumber(*field); };
  return AddBound(name, help, std::move(binding));
}

template <typename T>
Option& OptionTable::Add(const std::string& name, std::optional<T>* field,
                         const std::string& help) {
  Option::Binding binding;
  binding.type_name = OptionTypeName(T{});
  binding.is_flag = std::is_same_v<T, bool>;
  binding.set = [field](const std::string& text) {
    T value{};
    const absl::Status status = ParseOption(text, &value);
    if (status.ok()) {
      *field = std::move(value);
    }
    return status;
  };
  binding.show = [field] {
    return field->has_value() ? std::vector<std::string>{ShowOption(**field)}
                              : std::vector<std::string>{};
  };
  binding.number = [field] {
    return field->has_value() ? OptionNumber(**field) : std::nullopt;
  };
  return AddBound(name, help, std::move(binding));
}

}  // namespace tessera

#endif  // TESSERA_COMMON_OPTION_TABLE_H_
