// DeepSeekSplitter: the pre-tokenizer of DeepSeek's models, written out. Cuts what the
// three regular expressions of their tokenizer.json cut, one after the other, in one pass
// over the text and without a regular expression.
//
// It sits inside PreTokenizer, which takes it when it meets these very expressions. What
// it must do is what they do: the tests compare the two on random texts of all classes.
#ifndef TESSERA_MODEL_TOKENIZER_DEEPSEEK_SPLITTER_H_
#define TESSERA_MODEL_TOKENIZER_DEEPSEEK_SPLITTER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/tokenizer/character_classes.h"

namespace tessera::model {

// Immutable; thread-safe.
class DeepSeekSplitter {
 public:
  // The expressions, in the order of tokenizer.json.
  static const std::vector<std::string>& Patterns();

  // Null where the classes of characters cannot be had.
  static std::unique_ptr<const DeepSeekSplitter> Create();

  // As PreTokenizer::Split.
  void Split(std::string_view text, std::vector<std::string_view>* pieces) const;

 private:
  explicit DeepSeekSplitter(std::unique_ptr<const CharacterClasses> classes)
      : classes_(std::move(classes)) {}

  uint8_t At(std::string_view text, size_t at, size_t* num_bytes) const {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (byte < 0x80) {
      *num_bytes = 1;
      return classes_->OfAscii(byte);
    }
    return classes_->At(text, at, num_bytes);
  }
  size_t RunEnd(std::string_view text, size_t at, uint8_t kind) const;
  size_t NumberEnd(std::string_view text, size_t at) const;
  size_t BlankEnd(std::string_view text, size_t at) const;
  size_t MatchEnd(std::string_view text, size_t at, uint8_t found,
                  size_t num_bytes) const;

  const std::unique_ptr<const CharacterClasses> classes_;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TOKENIZER_DEEPSEEK_SPLITTER_H_
