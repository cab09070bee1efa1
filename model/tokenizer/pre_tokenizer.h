// PreTokenizer: cuts text into the pieces that BPE may not cross, by the regular
// expressions of tokenizer.json, applied one after the other as HF's `Split` with
// behaviour `Isolated` does. Sits between the added tokens and BPE; knows no vocabulary.
#ifndef TESSERA_MODEL_TOKENIZER_PRE_TOKENIZER_H_
#define TESSERA_MODEL_TOKENIZER_PRE_TOKENIZER_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tessera::model {

class DeepSeekSplitter;

// Immutable after Create; thread-safe (each call has its own match state).
class PreTokenizer {
 public:
  // Compiles `patterns` with PCRE2 in UTF mode with Unicode properties, and its JIT where
  // the platform has one; DeepSeek's own run without it (deepseek_splitter.h).
  // kInvalidArgument names the pattern and what is wrong with it.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(
      const std::vector<std::string>& patterns);
  ~PreTokenizer();
  PreTokenizer(const PreTokenizer&) = delete;
  PreTokenizer& operator=(const PreTokenizer&) = delete;

  // Appends the pieces of `text`, which must be well-formed UTF-8, to `pieces`: in order,
  // none empty, together the whole text; they point into `text`. Every match has a
  // bounded number of steps; a pattern that runs past it leaves the rest of its piece
  // whole and logs a warning.
  void Split(std::string_view text, std::vector<std::string_view>* pieces) const;

 private:
  class Pattern;
  class MatchState;

  PreTokenizer(std::vector<std::unique_ptr<Pattern>> patterns,
               std::unique_ptr<const DeepSeekSplitter> splitter);
  void SplitFrom(size_t pattern_idx, std::string_view text, MatchState* state,
                 std::vector<std::string_view>* pieces) const;

  const std::vector<std::unique_ptr<Pattern>> patterns_;
  // In place of the patterns, where they are those that it knows.
  const std::unique_ptr<const DeepSeekSplitter> splitter_;
};

// `pattern` with `\s` spelled out as the White_Space characters of Unicode, which is what
// the regular expressions of tokenizer.json mean by it; PCRE2's own \s also takes U+180E.
std::string SpellOutWhitespace(std::string_view pattern);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TOKENIZER_PRE_TOKENIZER_H_
