// Structured logs: one JSON object a line on stderr, or text where stderr is a terminal.
// The only header that stands before spdlog; nothing else includes it. No prompt text is
// ever logged.
//
//   log::Info("worker", "weights loaded", {{"rank", rank}, {"bytes", bytes}});
//
// A field `request_id` ties a line to a request. Thread-safe; a line is written whole.
#ifndef TESSERA_COMMON_LOG_H_
#define TESSERA_COMMON_LOG_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace tessera::log {

enum class Level { kDebug, kInfo, kWarning, kError, kOff };
enum class Format { kAuto, kText, kJson };

// One key and its value, already spelled as JSON.
struct Field {
  Field(std::string_view key, std::string_view value);
  Field(std::string_view key, const char* value);
  Field(std::string_view key, const std::string& value);
  Field(std::string_view key, bool value);
  Field(std::string_view key, double value);
  template <typename T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
      Field(std::string_view k, T value)
      : key(k), json(std::to_string(value)) {}

  std::string key;
  std::string json;
};

// Call once from main, before threads start. kAuto is text on a terminal, JSON elsewhere.
void Configure(Level level, Format format);

void Write(Level level, std::string_view component, std::string_view message,
           std::initializer_list<Field> fields);

inline void Debug(std::string_view component, std::string_view message,
                  std::initializer_list<Field> fields = {}) {
  Write(Level::kDebug, component, message, fields);
}
inline void Info(std::string_view component, std::string_view message,
                 std::initializer_list<Field> fields = {}) {
  Write(Level::kInfo, component, message, fields);
}
inline void Warning(std::string_view component, std::string_view message,
                    std::initializer_list<Field> fields = {}) {
  Write(Level::kWarning, component, message, fields);
}
inline void Error(std::string_view component, std::string_view message,
                  std::initializer_list<Field> fields = {}) {
  Write(Level::kError, component, message, fields);
}

// `text` as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD.
std::string JsonString(std::string_view text);

}  // namespace tessera::log

#endif  // TESSERA_COMMON_LOG_H_
