// Texts and grammars: whether a grammar allows a text, and texts that one allows.
#ifndef TESSERA_TESTS_TESTING_GRAMMAR_TEXT_H_
#define TESSERA_TESTS_TESTING_GRAMMAR_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "common/check.h"
#include "coordinator/grammar/grammar.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::testing {

inline bool IsAllowed(const std::vector<uint32_t>& words, int32_t token) {
  return (words[static_cast<size_t>(token) / 32] >> (token % 32) & 1) != 0;
}

// Whether `text` with the token `eos` behind it is what `grammar` allows from its begin
// to its end. Control tokens in `text` are recognised.
inline bool GrammarAllows(const coordinator::Grammar& grammar,
                          const model::Tokenizer& tokenizer, int32_t eos,
                          std::string_view text,
                          std::optional<int32_t> begins_after = std::nullopt) {
  const auto matcher = grammar.NewMatcher(begins_after);
  std::vector<int32_t> ids = tokenizer.Encode(text, model::AddedTokens::kRecognize);
  ids.push_back(eos);
  std::vector<uint32_t> words(grammar.num_words());
  for (const int32_t id : ids) {
    if (!matcher->FillMask(words).ok() || !IsAllowed(words, id)) {
      return false;
    }
    TESSERA_CHECK(matcher->Accept(id).ok());
  }
  return true;
}

// A text made of tokens drawn evenly among the allowed ones, without its end; nothing if
// it did not end within `max_tokens`.
inline std::optional<std::string> WalkGrammar(const coordinator::Grammar& grammar,
                                              const model::Tokenizer& tokenizer,
                                              int32_t eos, size_t max_tokens,
                                              std::mt19937* random) {
  const auto matcher = grammar.NewMatcher(std::nullopt);
  std::vector<uint32_t> words(grammar.num_words());
  std::vector<int32_t> allowed;
  std::string text;
  for (size_t i = 0; i < max_tokens; ++i) {
    TESSERA_CHECK(matcher->FillMask(words).ok());
    allowed.clear();
    for (int32_t id = 0; id < tokenizer.size(); ++id) {
      if (IsAllowed(words, id)) {
        allowed.push_back(id);
      }
    }
    TESSERA_CHECK(!allowed.empty());
    const int32_t token = allowed[(*random)() % allowed.size()];
    if (token == eos) {
      return text;
    }
    TESSERA_CHECK(matcher->Accept(token).ok());
    text.append(tokenizer.TokenBytes(token));
  }
  return std::nullopt;
}

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_GRAMMAR_TEXT_H_
