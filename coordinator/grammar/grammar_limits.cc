#include "coordinator/grammar/grammar_limits.h"

#include <algorithm>
#include <charconv>

#include "common/status.h"

namespace tessera::coordinator {
namespace {

// Skips what stands between the signs of a grammar: blanks, and comments of an EBNF.
size_t SkipBlanks(std::string_view text, size_t at) {
  while (at < text.size()) {
    if (text[at] == '#') {
      at = std::min(text.find('\n', at), text.size());
    } else if (text[at] == ' ' || text[at] == '\t' || text[at] == '\r' ||
               text[at] == '\n') {
      ++at;
    } else {
      break;
    }
  }
  return at;
}

// The larger number of "n}", "n,}", "n,m}" at the start of `text`; 0 if it is none.
int64_t RepeatBound(std::string_view text) {
  int64_t bound = 0;
  size_t at = 0;
  for (int i = 0; i < 2 && at < text.size(); ++i) {
    at = SkipBlanks(text, at);
    int64_t value = 0;
    const auto parsed =
        std::from_chars(text.data() + at, text.data() + text.size(), value);
    if (parsed.ec == std::errc::result_out_of_range) {
      return INT64_MAX;
    }
    if (parsed.ec == std::errc()) {
      bound = std::max(bound, value);
      at = static_cast<size_t>(parsed.ptr - text.data());
    }
    at = SkipBlanks(text, at);
    if (at >= text.size() || (text[at] != ',' && text[at] != '}')) {
      return 0;
    }
    if (text[at] == '}') {
      return bound;
    }
    ++at;
  }
  return 0;
}

// Walks over a text; the signs inside of classes, strings and comments mean nothing.
class PatternWalk {
 public:
  PatternWalk(std::string_view text, PatternSyntax syntax)
      : text_(text), syntax_(syntax) {}

  // The next sign that opens, closes or repeats; '\0' at the end.
  char Next() {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\\' && inside_ != '\n') {
        ++at_;
      } else if (inside_ != '\0') {
        inside_ = c == inside_ ? '\0' : inside_;
      } else if (c == '[') {
        inside_ = ']';
      } else if (syntax_ == PatternSyntax::kEbnf && c == '"') {
        inside_ = '"';
      } else if (syntax_ == PatternSyntax::kEbnf && c == '#') {
        inside_ = '\n';
      } else if (c == '(' || c == ')' || c == '{') {
        ++at_;
        return c;
      }
    }
    return '\0';
  }

  std::string_view rest() const { return text_.substr(at_); }

 private:
  const std::string_view text_;
  const PatternSyntax syntax_;
  size_t at_ = 0;
  char inside_ = '\0';  // the sign that ends what the walk is inside of
};

}  // namespace

absl::StatusOr<int64_t> CheckPattern(std::string_view text, PatternSyntax syntax,
                                     const GrammarLimits& limits) {
  if (text.empty() || text.size() > limits.max_text_bytes) {
    return InvalidArgumentF("a grammar of {} bytes, expected 1 to {}", text.size(),
                            limits.max_text_bytes);
  }
  int64_t depth = 0;
  int64_t product = 1;
  PatternWalk walk(text, syntax);
  for (char sign = walk.Next(); sign != '\0'; sign = walk.Next()) {
    if (sign == '(') {
      ++depth;
    } else if (sign == ')') {
      depth = std::max<int64_t>(0, depth - 1);
    } else {
      const int64_t bound = RepeatBound(walk.rest());
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
  return product;
}

absl::Status CheckJsonText(std::string_view text, const GrammarLimits& limits) {
  if (text.empty() || text.size() > limits.max_text_bytes) {
    return InvalidArgumentF("{} bytes of JSON, expected 1 to {}", text.size(),
                            limits.max_text_bytes);
  }
  // A schema nests its sub-schemas in two levels each.
  int32_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      i += c == '\\' ? 1 : 0;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      --depth;
    }
    if (depth > 2 * limits.max_depth) {
      return InvalidArgumentF("JSON nested deeper than {}", 2 * limits.max_depth);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
