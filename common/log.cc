#include "common/log.h"

#include <atomic>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "fmt/format.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"
#include <unistd.h>

namespace tessera::log {
namespace {

// spdlog's own patterns do not escape JSON, so lines are built here and written as they
// are.
std::shared_ptr<spdlog::logger> Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto created = std::make_shared<spdlog::logger>(
        "tessera", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    created->set_pattern("%v");
    created->set_level(spdlog::level::trace);
    created->flush_on(spdlog::level::trace);
    return created;
  }();
  return logger;
}

std::atomic<Level> minimum_level{Level::kInfo};
std::atomic<bool> json_lines{false};

const char* Name(Level level) {
  switch (level) {
    case Level::kDebug:
      return "debug";
    case Level::kInfo:
      return "info";
    case Level::kWarning:
      return "warning";
    default:
      return "error";
  }
}

// Length of the valid UTF-8 sequence at text[at], or 0.
size_t Utf8Length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  const size_t length = lead < 0x80    ? 1
                        : lead >= 0xF5 ? 0
                        : lead >= 0xF0 ? 4
                        : lead >= 0xE0 ? 3
                        : lead >= 0xC2 ? 2
                                       : 0;
  if (length == 0 || at + length > text.size()) {
    return 0;
  }
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) {
      return 0;
    }
  }
  if ((lead == 0xE0 && byte(at + 1) < 0xA0) || (lead == 0xED && byte(at + 1) > 0x9F) ||
      (lead == 0xF0 && byte(at + 1) < 0x90) || (lead == 0xF4 && byte(at + 1) > 0x8F)) {
    return 0;
  }
  return length;
}

}  // namespace

std::string JsonString(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += text[i++];
    } else if (c < 0x20 || c == 0x7F) {
      out += fmt::format("\\u{:04x}", c);
      ++i;
    } else if (const size_t length = Utf8Length(text, i); length > 0) {
      out.append(text.substr(i, length));
      i += length;
    } else {
      out += "\xEF\xBF\xBD";
      ++i;
    }
  }
  out += '"';
  return out;
}

Field::Field(std::string_view k, std::string_view value)
    : key(k), json(JsonString(value)) {}
Field::Field(std::string_view k, const char* value) : Field(k, std::string_view(value)) {}
Field::Field(std::string_view k, const std::string& value)
    : Field(k, std::string_view(value)) {}
Field::Field(std::string_view k, bool value) : key(k), json(value ? "true" : "false") {}
Field::Field(std::string_view k, double value) : key(k), json(fmt::format("{}", value)) {}

void Configure(Level level, Format format) {
  minimum_level = level;
  json_lines = format == Format::kJson ||
               (format == Format::kAuto && ::isatty(STDERR_FILENO) == 0);
}

void Write(Level level, std::string_view component, std::string_view message,
           std::initializer_list<Field> fields) {
  if (level < minimum_level.load(std::memory_order_relaxed)) {
    return;
  }
  const std::string now =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  std::string line;
  if (json_lines.load(std::memory_order_relaxed)) {
    line = fmt::format(R"({{"ts":"{}","level":"{}","component":{},"msg":{})", now,
                       Name(level), JsonString(component), JsonString(message));
    for (const Field& field : fields) {
      line += fmt::format(",{}:{}", JsonString(field.key), field.json);
    }
    line += '}';
  } else {
    line = fmt::format("{} {:7} {:12} {}", now, Name(level), component, message);
    for (const Field& field : fields) {
      line += fmt::format(" {}={}", field.key, field.json);
    }
  }
  Logger()->info(line);
}

}  // namespace tessera::log
