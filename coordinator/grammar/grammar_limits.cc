#include "coordinator/grammar/grammar_limits.h"

#include <algorithm>
#include <charconv>

#include "common/status.h"

namespace tessera::coordinator {
namespace {

// The larger number of "n}", "n,}", "n,m}" at the start of `text`; 0 if it is none.
int64_t RepeatBound(std::string_view text) {
  int64_t bound = 0;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (int i = 0; i < 2 && at != end; ++i) {
    while (at != end && *at == ' ') {
      ++at;
    }
    int64_t value = 0;
    const auto parsed = std::from_chars(at, end, value);
    if (parsed.ec == std::errc::result_out_of_range) {
      return INT64_MAX;
    }
    if (parsed.ec == std::errc()) {
      bound = std::max(bound, value);
      at = parsed.ptr;
    }
    if (at == end || (*at != ',' && *at != '}')) {
      return 0;
    }
    if (*at == '}') {
      return bound;
    }
    ++at;
  }
  return 0;
}

}  // namespace

absl::Status CheckPattern(std::string_view text, const GrammarLimits& limits) {
  if (text.empty() || text.size() > limits.max_text_bytes) {
    return InvalidArgumentF("a grammar of {} bytes, expected 1 to {}", text.size(),
                            limits.max_text_bytes);
  }
  int64_t depth = 0;
  int64_t product = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '(' || text[i] == '[') {
      ++depth;
    } else if (text[i] == ')' || text[i] == ']') {
      depth = std::max<int64_t>(0, depth - 1);
    } else if (text[i] == '{') {
      const int64_t bound = RepeatBound(text.substr(i + 1));
      if (bound > limits.max_repeats) {
        return InvalidArgumentF("a repetition of {}, expected at most {}", bound,
                                limits.max_repeats);
      }
      product *= std::max<int64_t>(1, bound);
      if (product > limits.max_repeat_product) {
        return InvalidArgumentF(
            "repetitions that multiply to more than {}, the greatest allowed",
            limits.max_repeat_product);
      }
    }
    if (depth > limits.max_depth) {
      return InvalidArgumentF("brackets nested deeper than {}", limits.max_depth);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
