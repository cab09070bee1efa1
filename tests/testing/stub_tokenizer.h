// StubTokenizer: decodes from a table of token bytes, for tests of everything behind the
// tokenizer.
#ifndef TESSERA_TESTS_TESTING_STUB_TOKENIZER_H_
#define TESSERA_TESTS_TESTING_STUB_TOKENIZER_H_

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "model/tokenizer/tokenizer.h"

namespace tessera::testing {

// Immutable; thread-safe.
class StubTokenizer final : public model::Tokenizer {
 public:
  explicit StubTokenizer(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}

  // `count` tokens of one letter each: a to z, again and again.
  static StubTokenizer Letters(size_t count) {
    std::vector<std::string> tokens;
    for (size_t i = 0; i < count; ++i) {
      tokens.emplace_back(1, static_cast<char>('a' + i % 26));
    }
    return StubTokenizer(std::move(tokens));
  }

  // One token per byte of `text` that is a token by itself; other bytes are left out.
  std::vector<int32_t> Encode(std::string_view text, model::AddedTokens) const override {
    std::vector<int32_t> ids;
    for (const char byte : text) {
      if (const std::optional<int32_t> id = TokenId(std::string_view(&byte, 1))) {
        ids.push_back(*id);
      }
    }
    return ids;
  }

  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids, bool) const override {
    std::string text;
    for (const int32_t id : ids) {
      text += TokenBytes(id);
    }
    return text;
  }

  std::string_view TokenBytes(int32_t id) const override {
    return id >= 0 && id < size() ? std::string_view(tokens_[static_cast<size_t>(id)])
                                  : std::string_view();
  }

  std::optional<int32_t> TokenId(std::string_view text) const override {
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id] == text) {
        return static_cast<int32_t>(id);
      }
    }
    return std::nullopt;
  }

  bool IsSpecial(int32_t) const override { return false; }
  int32_t size() const override { return static_cast<int32_t>(tokens_.size()); }

 private:
  std::vector<std::string> tokens_;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_STUB_TOKENIZER_H_
