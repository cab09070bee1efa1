#include "model/chat/python_json.h"

#include <charconv>
#include <exception>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "nlohmann/json.hpp"

#include "common/status.h"

namespace tessera::model {
namespace {

using Json = nlohmann::json;
using Kind = PythonJson::Kind;

// Deeper documents are attacks: the tree is destroyed and printed by recursion.
constexpr size_t kMaxDepth = 100;
// Python's own limit for int(): longer integers take quadratic time there.
constexpr size_t kMaxIntegerDigits = 4300;

// Builds the tree from nlohmann's SAX events, which hand over the digits of a number as
// written.
class TreeBuilder final : public nlohmann::json_sax<Json> {
 public:
  PythonJson TakeRoot() { return std::move(root_); }
  const std::string& error() const { return error_; }

  bool null() override { return Leaf(Kind::kNull, {}); }
  bool boolean(bool value) override {
    return Leaf(value ? Kind::kTrue : Kind::kFalse, {});
  }
  bool number_integer(number_integer_t value) override {
    return Leaf(Kind::kNumber, std::to_string(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return Leaf(Kind::kNumber, std::to_string(value));
  }
  bool number_float(number_float_t value, const string_t& written) override {
    if (written.find_first_of(".eE") != string_t::npos) {
      return Leaf(Kind::kNumber, PythonFloat(value));
    }
    // An integer that fits no 64 bits.
    if (written.size() > kMaxIntegerDigits) {
      return Fail(fmt::format("an integer of {} digits, expected at most {}",
                              written.size(), kMaxIntegerDigits));
    }
    return Leaf(Kind::kNumber, written);
  }
  bool string(string_t& value) override { return Leaf(Kind::kString, std::move(value)); }
  bool binary(binary_t&) override { return Fail("a binary value"); }

  bool start_object(std::size_t) override { return Open(Kind::kObject); }
  bool key(string_t& value) override {
    open_.back().key = std::move(value);
    return true;
  }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t) override { return Open(Kind::kArray); }
  bool end_array() override { return Close(); }

  bool parse_error(std::size_t, const std::string&,
                   const nlohmann::detail::exception& error) override {
    return Fail(error.what());
  }

 private:
  struct OpenValue {
    PythonJson value;
    std::string key;  // of the member that comes next
    absl::flat_hash_map<std::string, size_t>
        item_of;  // kObject: key -> index of its item
  };

  bool Fail(std::string message) {
    error_ = std::move(message);
    return false;
  }

  bool Leaf(Kind kind, std::string text) {
    PythonJson value;
    value.kind = kind;
    value.text = std::move(text);
    Place(std::move(value));
    return true;
  }

  bool Open(Kind kind) {
    if (open_.size() == kMaxDepth) {
      return Fail(fmt::format("nested deeper than {} levels", kMaxDepth));
    }
    open_.emplace_back();
    open_.back().value.kind = kind;
    return true;
  }

  bool Close() {
    PythonJson value = std::move(open_.back().value);
    open_.pop_back();
    Place(std::move(value));
    return true;
  }

  void Place(PythonJson value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return;
    }
    OpenValue& parent = open_.back();
    if (parent.value.kind == Kind::kObject) {
      const auto [it, is_new] =
          parent.item_of.emplace(parent.key, parent.value.items.size());
      if (!is_new) {
        parent.value.items[it->second] = std::move(value);
        return;
      }
      parent.value.keys.push_back(std::move(parent.key));
    }
    parent.value.items.push_back(std::move(value));
  }

  PythonJson root_;
  std::vector<OpenValue> open_;
  std::string error_;
};

void AppendString(std::string_view text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      case '\b':
        *out += "\\b";
        break;
      case '\f':
        *out += "\\f";
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          *out += fmt::format("\\u{:04x}", static_cast<int>(c));
        } else {
          out->push_back(c);
        }
    }
  }
  out->push_back('"');
}

void AppendItems(const PythonJson& value, std::string* out);

void AppendValue(const PythonJson& value, std::string* out) {
  switch (value.kind) {
    case Kind::kNull:
      *out += "null";
      break;
    case Kind::kTrue:
      *out += "true";
      break;
    case Kind::kFalse:
      *out += "false";
      break;
    case Kind::kNumber:
      *out += value.text;
      break;
    case Kind::kString:
      AppendString(value.text, out);
      break;
    case Kind::kArray:
    case Kind::kObject:
      AppendItems(value, out);
  }
}

void AppendItems(const PythonJson& value, std::string* out) {
  const bool is_object = value.kind == Kind::kObject;
  out->push_back(is_object ? '{' : '[');
  for (size_t i = 0; i < value.items.size(); ++i) {
    if (i > 0) {
      *out += ", ";
    }
    if (is_object) {
      AppendString(value.keys[i], out);
      *out += ": ";
    }
    AppendValue(value.items[i], out);
  }
  out->push_back(is_object ? '}' : ']');
}

}  // namespace

absl::StatusOr<PythonJson> PythonJson::Parse(std::string_view text) try {
  TreeBuilder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return InvalidArgumentF("not readable as json: {}", builder.error());
  }
  return builder.TakeRoot();
} catch (const std::exception& error) {
  return InvalidArgumentF("not readable as json: {}", error.what());
}

std::string PythonJson::Dump() const {
  std::string out;
  AppendValue(*this, &out);
  return out;
}

const PythonJson* PythonJson::Find(std::string_view key) const {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i] == key) {
      return &items[i];
    }
  }
  return nullptr;
}

bool PythonJson::IsTruthy() const {
  switch (kind) {
    case Kind::kNull:
    case Kind::kFalse:
      return false;
    case Kind::kTrue:
      return true;
    case Kind::kNumber:
      return text.find_first_of("123456789") != std::string::npos;
    case Kind::kString:
      return !text.empty();
    case Kind::kArray:
    case Kind::kObject:
      return !items.empty();
  }
  return false;
}

std::string PythonJsonString(std::string_view text) {
  std::string out;
  AppendString(text, &out);
  return out;
}

// repr() prints the shortest digits that read back, as 0.0001 to 9999999999999998.0
// without an exponent, and always shows that the number is a float.
std::string PythonFloat(double value) {
  char buffer[32] = {};
  const auto scientific = std::to_chars(buffer, buffer + sizeof(buffer), value,
                                        std::chars_format::scientific);
  const std::string_view written(buffer, static_cast<size_t>(scientific.ptr - buffer));
  const size_t e = written.find('e');
  int exponent = 0;
  const size_t digits =
      written[e + 1] == '+' ? e + 2 : e + 1;  // from_chars takes no plus sign
  std::from_chars(written.data() + digits, written.data() + written.size(), exponent);
  if (exponent < -4 || exponent >= 16) {
    // Both write two digits of exponent at least, and no fraction where it is zero.
    return std::string(written);
  }
  char fixed[64] = {};
  const auto end =
      std::to_chars(fixed, fixed + sizeof(fixed), value, std::chars_format::fixed).ptr;
  std::string text(fixed, static_cast<size_t>(end - fixed));
  if (text.find('.') == std::string::npos) {
    text += ".0";
  }
  return text;
}

}  // namespace tessera::model
