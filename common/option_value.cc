#include "common/option_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>
#include <system_error>

#include "fmt/format.h"

#include "common/status.h"

namespace tessera {
namespace {

constexpr std::string_view kSuffixes = "kmgtKMGT";

uint64_t SuffixFactor(char suffix) {
  const size_t place = kSuffixes.find(suffix);
  const uint64_t base = place < 4 ? 1000 : 1024;
  uint64_t factor = base;
  for (size_t i = 0; i < place % 4; ++i) {
    factor *= base;
  }
  return factor;
}

// Parses into the widest type of the sign, applies the suffix, and checks the range of T.
template <typename T>
absl::Status ParseInteger(const std::string& text, T* value) {
  using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
  std::string_view digits = text;
  uint64_t factor = 1;
  if (!digits.empty() && kSuffixes.find(digits.back()) != std::string_view::npos) {
    factor = SuffixFactor(digits.back());
    digits.remove_suffix(1);
  }
  Wide wide = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, wide);
  if (error == std::errc::result_out_of_range) {
    return InvalidArgumentF("'{}' is out of range", text);
  }
  if (error != std::errc() || stop != end) {
    return InvalidArgumentF("'{}' is not {} integer", text,
                            std::is_signed_v<T> ? "an" : "a non-negative");
  }
  Wide scaled = 0;
  if (__builtin_mul_overflow(wide, factor, &scaled) ||
      scaled < static_cast<Wide>(std::numeric_limits<T>::min()) ||
      scaled > static_cast<Wide>(std::numeric_limits<T>::max())) {
    return InvalidArgumentF("'{}' is out of range", text);
  }
  *value = static_cast<T>(scaled);
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseOption(const std::string& text, std::string* value) {
  *value = text;
  return absl::OkStatus();
}

absl::Status ParseOption(const std::string& text, bool* value) {
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (lower == "true" || lower == "yes" || lower == "on" || lower == "1") {
    *value = true;
  } else if (lower == "false" || lower == "no" || lower == "off" || lower == "0") {
    *value = false;
  } else {
    return InvalidArgumentF("'{}' is neither true nor false", text);
  }
  return absl::OkStatus();
}

absl::Status ParseOption(const std::string& text, int* value) {
  return ParseInteger(text, value);
}

absl::Status ParseOption(const std::string& text, int64_t* value) {
  return ParseInteger(text, value);
}

absl::Status ParseOption(const std::string& text, uint64_t* value) {
  return ParseInteger(text, value);
}

absl::Status ParseOption(const std::string& text, double* value) {
  double parsed = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, parsed);
  if (error != std::errc() || stop != end || !std::isfinite(parsed)) {
    return InvalidArgumentF("'{}' is not a finite number", text);
  }
  *value = parsed;
  return absl::OkStatus();
}

absl::Status ParseOption(const std::string& text, absl::Duration* value) {
  absl::Duration parsed;
  double seconds = 0;
  if (ParseOption(text, &seconds).ok()) {
    parsed = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, &parsed)) {
    return InvalidArgumentF("'{}' is not a duration, such as 200ms, 1.5s or 2m", text);
  }
  if (parsed < absl::ZeroDuration()) {
    return InvalidArgumentF("'{}' is a negative duration", text);
  }
  *value = parsed;
  return absl::OkStatus();
}

std::string ShowOption(const std::string& value) { return value; }
std::string ShowOption(bool value) { return value ? "true" : "false"; }
std::string ShowOption(int value) { return fmt::to_string(value); }
std::string ShowOption(int64_t value) { return fmt::to_string(value); }
std::string ShowOption(uint64_t value) { return fmt::to_string(value); }
std::string ShowOption(double value) { return fmt::to_string(value); }
std::string ShowOption(absl::Duration value) { return absl::FormatDuration(value); }

}  // namespace tessera
