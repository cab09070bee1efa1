// How the text of an option becomes a value, and back: one ParseOption and one ShowOption
// per type that an option may have. common/option_table.h is built on it; nothing here
// knows flags or files.
//
// Text is what a user types after a flag, sets in the environment or writes in YAML; all
// three are read alike. ParseOption returns kInvalidArgument with what was seen and what
// was expected, and leaves the value alone then. No function here blocks or keeps state.
#ifndef TESSERA_COMMON_OPTION_VALUE_H_
#define TESSERA_COMMON_OPTION_VALUE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace tessera {

// Any text, the empty one included.
absl::Status ParseOption(const std::string& text, std::string* value);

// true, false, yes, no, on, off, 1, 0, in any case.
absl::Status ParseOption(const std::string& text, bool* value);

// A decimal integer that fits the type, with an optional suffix as vLLM reads it: k, m,
// g, t are powers of 1000 and K, M, G, T powers of 1024.
absl::Status ParseOption(const std::string& text, int* value);
absl::Status ParseOption(const std::string& text, int64_t* value);
absl::Status ParseOption(const std::string& text, uint64_t* value);

// A finite decimal number.
absl::Status ParseOption(const std::string& text, double* value);

// Abseil's form (1.5s, 200ms, 1h30m), or a bare number of seconds. Never negative.
absl::Status ParseOption(const std::string& text, absl::Duration* value);

std::string ShowOption(const std::string& value);
std::string ShowOption(bool value);
std::string ShowOption(int value);
std::string ShowOption(int64_t value);
std::string ShowOption(uint64_t value);
std::string ShowOption(double value);
std::string ShowOption(absl::Duration value);

// What `--help` prints for the value of an option of this type.
inline const char* OptionTypeName(const std::string&) { return "TEXT"; }
inline const char* OptionTypeName(bool) { return ""; }
inline const char* OptionTypeName(int) { return "INT"; }
inline const char* OptionTypeName(int64_t) { return "INT"; }
inline const char* OptionTypeName(uint64_t) { return "INT"; }
inline const char* OptionTypeName(double) { return "NUMBER"; }
inline const char* OptionTypeName(absl::Duration) { return "DURATION"; }

// The value as a number, for range checks; nothing for types that have no order.
inline std::optional<double> OptionNumber(const std::string&) { return std::nullopt; }
inline std::optional<double> OptionNumber(bool) { return std::nullopt; }
inline std::optional<double> OptionNumber(int value) { return value; }
inline std::optional<double> OptionNumber(int64_t value) {
  return static_cast<double>(value);
}
inline std::optional<double> OptionNumber(uint64_t value) {
  return static_cast<double>(value);
}
inline std::optional<double> OptionNumber(double value) { return value; }
inline std::optional<double> OptionNumber(absl::Duration value) {
  return absl::ToDoubleSeconds(value);
}

}  // namespace tessera

#endif  // TESSERA_COMMON_OPTION_VALUE_H_
