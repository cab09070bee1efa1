#include "model/tokenizer/tokenizer_json.h"

#include <exception>
#include <limits>

#include "nlohmann/json.hpp"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::model {
namespace {

using Json = nlohmann::json;

// Real files nest eight levels deep.
constexpr size_t kMaxDepth = 32;

// Builds a Json of everything but `model.vocab` and `model.merges`, which it streams into
// the spec. The SAX interface of nlohmann: every callback returns false to stop the
// parse.
class SpecReader final : public nlohmann::json_sax<Json> {
 public:
  explicit SpecReader(TokenizerSpec* spec) : spec_(spec) {}

  const Json& rest() const { return rest_; }
  const std::string& error() const { return error_; }

  bool null() override { return Value(nullptr); }
  bool boolean(bool value) override { return Value(value); }
  bool number_float(number_float_t value, const string_t&) override {
    return Value(value);
  }
  bool binary(binary_t&) override { return Fail("binary value"); }

  bool number_integer(number_integer_t value) override {
    return mode_ == Mode::kVocabulary ? Entry(value) : Value(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (mode_ != Mode::kVocabulary) {
      return Value(value);
    }
    return Entry(
        value > static_cast<uint64_t>(kMaxTokenId) ? -1 : static_cast<int64_t>(value));
  }

  bool string(string_t& value) override {
    if (mode_ == Mode::kMerges) {
      return Merge(value);
    }
    if (mode_ == Mode::kMergePair) {
      pair_.push_back(std::move(value));
      return pair_.size() <= 2 || Fail("a merge has more than two parts");
    }
    return Value(std::move(value));
  }

  bool key(string_t& value) override {
    key_ = std::move(value);
    return true;
  }

  bool start_object(std::size_t) override {
    if (mode_ == Mode::kDocument && InModel() && key_ == "vocab") {
      mode_ = Mode::kVocabulary;
      return true;
    }
    return Open(Json::object());
  }
  bool end_object() override {
    if (mode_ == Mode::kVocabulary) {
      mode_ = Mode::kDocument;
      return true;
    }
    return Close();
  }
  bool start_array(std::size_t) override {
    if (mode_ == Mode::kDocument && InModel() && key_ == "merges") {
      mode_ = Mode::kMerges;
      return true;
    }
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kMergePair;
      pair_.clear();
      return true;
    }
    return Open(Json::array());
  }
  bool end_array() override {
    if (mode_ == Mode::kMergePair) {
      mode_ = Mode::kMerges;
      if (pair_.size() != 2) {
        return Fail("a merge has other than two parts");
      }
      spec_->merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
      return true;
    }
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kDocument;
      return true;
    }
    return Close();
  }

  bool parse_error(std::size_t, const std::string&,
                   const nlohmann::detail::exception& error) override {
    return Fail(error.what());
  }

 private:
  enum class Mode { kDocument, kVocabulary, kMerges, kMergePair };

  bool Fail(std::string_view message) {
    if (error_.empty()) {
      error_ = message;
    }
    return false;
  }

  bool InModel() const { return open_.size() == 2 && path_top_ == "model"; }

  // Puts `value` where the document stands: the root, the current key, or the end of an
  // array.
  Json* Place(Json value) {
    if (open_.empty()) {
      rest_ = std::move(value);
      return &rest_;
    }
    Json* parent = open_.back();
    if (parent->is_array()) {
      parent->push_back(std::move(value));
      return &parent->back();
    }
    return &((*parent)[key_] = std::move(value));
  }

  bool Value(Json value) {
    if (mode_ != Mode::kDocument) {
      return Fail("model.vocab or model.merges holds a value of another type");
    }
    Place(std::move(value));
    return true;
  }

  // Pointers into Json stay valid: only the innermost open value grows.
  bool Open(Json value) {
    if (mode_ != Mode::kDocument) {
      return Fail("model.vocab or model.merges is nested");
    }
    if (open_.size() == kMaxDepth) {
      return Fail("nested too deeply");
    }
    if (open_.size() == 1) {
      path_top_ = key_;
    }
    open_.push_back(Place(std::move(value)));
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  bool Entry(int64_t id) {
    if (id < 0 || id > kMaxTokenId) {
      return Fail(fmt::format("id of vocabulary entry `{}`, expected 0 to {}", key_,
                              kMaxTokenId));
    }
    spec_->vocabulary.push_back({std::move(key_), static_cast<int32_t>(id)});
    return true;
  }

  bool Merge(const std::string& text) {
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return Fail(fmt::format("merge `{}`, expected two parts", text));
    }
    spec_->merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    return true;
  }

  TokenizerSpec* spec_;
  Mode mode_ = Mode::kDocument;
  Json rest_;
  std::vector<Json*> open_;
  std::string path_top_;  // the key of the root under which we are
  std::string key_;
  std::vector<std::string> pair_;
  std::string error_;
};

// `object[key]`, null where absent or where `object` is no object.
const Json& At(const Json& object, const char* key) {
  static const Json kNull;
  const auto it = object.find(key);
  return it == object.end() ? kNull : *it;
}

// True if a setting is absent, null, false or an empty string: switched off.
bool IsOff(const Json& value) { return value.is_null() || value == false || value == ""; }

std::string TypeOf(const Json& component) {
  const Json& type = At(component, "type");
  return type.is_string() ? type.get<std::string>() : component.dump().substr(0, 80);
}

absl::Status Unsupported(std::string_view component, std::string_view seen,
                         std::string_view expected) {
  return InvalidArgumentF("tokenizer {} is {}, expected {}", component, seen, expected);
}

absl::Status CheckModel(const Json& model) {
  if (TypeOf(model) != "BPE") {
    return Unsupported("model", TypeOf(model), "BPE");
  }
  for (const char* key : {"dropout", "unk_token", "continuing_subword_prefix",
                          "end_of_word_suffix", "byte_fallback", "ignore_merges"}) {
    if (!IsOff(At(model, key))) {
      return Unsupported(fmt::format("model.{}", key), At(model, key).dump(), "off");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSurroundings(const Json& root) {
  for (const char* key : {"truncation", "padding"}) {
    if (!IsOff(At(root, key))) {
      return Unsupported(key, "set", "null");
    }
  }
  const Json& normalizer = At(root, "normalizer");
  const bool empty_sequence =
      TypeOf(normalizer) == "Sequence" && At(normalizer, "normalizers").empty();
  if (!normalizer.is_null() && !empty_sequence) {
    return Unsupported("normalizer", TypeOf(normalizer), "none");
  }
  // A ByteLevel post-processor moves offsets only.
  const Json& post_processor = At(root, "post_processor");
  if (!post_processor.is_null() && TypeOf(post_processor) != "ByteLevel") {
    return Unsupported("post_processor", TypeOf(post_processor), "none or ByteLevel");
  }
  if (TypeOf(At(root, "decoder")) != "ByteLevel") {
    return Unsupported("decoder", TypeOf(At(root, "decoder")), "ByteLevel");
  }
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const Json& pre_tokenizer, TokenizerSpec* spec) {
  const Json& parts = At(pre_tokenizer, "pretokenizers");
  if (TypeOf(pre_tokenizer) != "Sequence" || !parts.is_array() || parts.empty()) {
    return Unsupported("pre_tokenizer", TypeOf(pre_tokenizer), "a Sequence");
  }
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const Json& part = parts[i];
    const Json& regex = At(At(part, "pattern"), "Regex");
    if (TypeOf(part) != "Split" || !regex.is_string() ||
        At(part, "behavior") != "Isolated" || !IsOff(At(part, "invert"))) {
      return Unsupported(fmt::format("pre_tokenizer.pretokenizers[{}]", i), TypeOf(part),
                         "an isolated Split by a regular expression");
    }
    spec->split_patterns.push_back(regex.get<std::string>());
  }
  const Json& last = parts.back();
  if (TypeOf(last) != "ByteLevel" || !IsOff(At(last, "add_prefix_space")) ||
      At(last, "use_regex") != false) {
    return Unsupported(fmt::format("pre_tokenizer.pretokenizers[{}]", parts.size() - 1),
                       last.dump(),
                       "ByteLevel without prefix space and regular expression");
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const Json& entries, TokenizerSpec* spec) {
  if (!entries.is_null() && !entries.is_array()) {
    return InvalidArgumentF("tokenizer added_tokens is no array");
  }
  for (const Json& entry : entries) {
    const Json& id = At(entry, "id");
    const Json& content = At(entry, "content");
    if (!id.is_number_integer() || id < 0 || id > kMaxTokenId || !content.is_string() ||
        content == "") {
      return InvalidArgumentF(
          "tokenizer added_tokens entry {}, expected an id and a content",
          entry.dump().substr(0, 200));
    }
    for (const char* key : {"lstrip", "rstrip", "single_word"}) {
      if (!IsOff(At(entry, key))) {
        return Unsupported(fmt::format("added token {}.{}", id.get<int64_t>(), key),
                           "set", "false");
      }
    }
    spec->added_tokens.push_back({.id = id.get<int32_t>(),
                                  .content = content.get<std::string>(),
                                  .special = At(entry, "special") == true,
                                  .normalized = At(entry, "normalized") == true});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view json) try {
  TokenizerSpec spec;
  SpecReader reader(&spec);
  if (!Json::sax_parse(json.begin(), json.end(), &reader)) {
    return InvalidArgumentF("tokenizer.json: {}", reader.error());
  }
  const Json& root = reader.rest();
  if (!root.is_object()) {
    return InvalidArgumentF("tokenizer.json is no object");
  }
  TESSERA_RETURN_IF_ERROR(CheckModel(At(root, "model")));
  TESSERA_RETURN_IF_ERROR(CheckSurroundings(root));
  TESSERA_RETURN_IF_ERROR(ReadPreTokenizer(At(root, "pre_tokenizer"), &spec));
  TESSERA_RETURN_IF_ERROR(ReadAddedTokens(At(root, "added_tokens"), &spec));
  return spec;
} catch (const std::exception& error) {
  return InvalidArgumentF("tokenizer.json: {}", error.what());
}

absl::Status ApplyTokenizerConfig(std::string_view json, TokenizerSpec* spec) try {
  const Json root = Json::parse(json.begin(), json.end());
  const Json& entries = At(root, "added_tokens_decoder");
  if (!entries.is_object()) {
    return absl::OkStatus();
  }
  for (AddedToken& token : spec->added_tokens) {
    const Json& entry = At(entries, std::to_string(token.id).c_str());
    if (entry.is_null()) {
      continue;
    }
    if (At(entry, "content") != token.content) {
      return InvalidArgumentF(
          "tokenizer_config.json: token {} is {}, tokenizer.json has `{}`", token.id,
          At(entry, "content").dump(), token.content);
    }
    if (At(entry, "special").is_boolean()) {
      token.special = At(entry, "special").get<bool>();
    }
  }
  return absl::OkStatus();
} catch (const std::exception& error) {
  return InvalidArgumentF("tokenizer_config.json: {}", error.what());
}

}  // namespace tessera::model
