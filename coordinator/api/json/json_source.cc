#include "coordinator/api/json/json_source.h"

#include <cstddef>
#include <string>

#include "nlohmann/json.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // the parser skips it too

// Walks over one text, value by value. Every step moves on or stops at the end.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {
    if (text.substr(0, kByteOrderMark.size()) == kByteOrderMark) {
      at_ = kByteOrderMark.size();
    }
  }

  // Steps over `c`, if that is what comes next.
  bool Take(char c) {
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != c) {
      return false;
    }
    ++at_;
    return true;
  }

  // Steps over one value and returns it.
  std::string_view TakeValue() {
    SkipSpace();
    const size_t begin = at_;
    int depth = 0;
    do {
      Step(&depth);
    } while (depth > 0 && at_ < text_.size());
    return text_.substr(begin, at_ - begin);
  }

 private:
  void SkipSpace() {
    const size_t next = text_.find_first_not_of(kSpace, at_);
    at_ = next == std::string_view::npos ? text_.size() : next;
  }

  // Over a string, a bracket, a separator or a run of anything else.
  void Step(int* depth) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    if (c == '"') {
      StepOverString();
    } else if (c == '{' || c == '[') {
      ++*depth;
      ++at_;
    } else if (c == '}' || c == ']') {
      --*depth;
      ++at_;
    } else if (*depth > 0 && (c == ',' || c == ':')) {
      ++at_;
    } else {
      const size_t end = text_.find_first_of("\"{}[],: \t\r\n", at_);
      at_ = end == std::string_view::npos ? text_.size() : end;
    }
    if (*depth > 0) {
      SkipSpace();
    }
  }

  void StepOverString() {
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\\') {
        ++at_;
      } else if (text_[at_] == '"') {
        break;
      }
    }
    at_ = at_ < text_.size() ? at_ + 1 : text_.size();
  }

  std::string_view text_;
  size_t at_ = 0;
};

// Whether the string `written`, quotes included, says `key`.
bool Says(std::string_view written, std::string_view key) {
  if (written.find('\\') == std::string_view::npos) {
    return written.size() == key.size() + 2 && written.substr(1, key.size()) == key;
  }
  const auto read = nlohmann::json::parse(written, nullptr, /*allow_exceptions=*/false);
  return read.is_string() && read.get_ref<const std::string&>() == key;
}

}  // namespace

std::string_view JsonMember(std::string_view object, std::string_view key) {
  std::string_view found;
  Cursor cursor(object);
  if (!cursor.Take('{')) {
    return found;
  }
  do {
    const std::string_view name = cursor.TakeValue();
    if (!cursor.Take(':')) {
      break;  // an object without members
    }
    const std::string_view value = cursor.TakeValue();
    if (Says(name, key)) {
      found = value;
    }
  } while (cursor.Take(','));
  return found;
}

std::vector<std::string_view> JsonElements(std::string_view array) {
  std::vector<std::string_view> values;
  Cursor cursor(array);
  if (!cursor.Take('[') || cursor.Take(']')) {
    return values;
  }
  do {
    values.push_back(cursor.TakeValue());
  } while (cursor.Take(','));
  return values;
}

}  // namespace tessera::coordinator
