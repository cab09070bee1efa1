// DsmlEncoding: what the encodings with DSML tool calls share, which is everything but
// the prompt: the words of their generation, and the readers of generated turns.
#ifndef TESSERA_MODEL_CHAT_DSML_ENCODING_H_
#define TESSERA_MODEL_CHAT_DSML_ENCODING_H_

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "model/chat/chat_encoding.h"
#include "model/chat/dsml.h"
#include "model/chat/encoding_generation.h"
#include "model/chat/prompt_writer.h"
#include "model/chat/prose_reader.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::model {

// Immutable, thread-safe. `generation` and `tokenizer` must outlive it.
class DsmlEncoding : public ChatEncoding {
 public:
  DsmlEncoding(const EncodingGeneration& generation, const Tokenizer* tokenizer,
               const std::vector<AddedToken>& control_tokens);

  ChatTraits traits() const override;
  CallMarkup call_markup() const override;
  std::unique_ptr<TurnParser> NewTurnParser(bool thinking) const override;
  absl::StatusOr<ParsedTurn> ParseTurn(std::string_view text,
                                       bool thinking) const override;

 protected:
  const EncodingGeneration& generation() const { return generation_; }
  const DsmlTags& tags() const { return tags_; }
  const ToolsText& tools_text() const { return tools_text_; }
  PromptWriter NewWriter() const { return PromptWriter(tokenizer_, &control_tokens_); }

 private:
  const EncodingGeneration& generation_;
  const Tokenizer* tokenizer_;
  const AddedTokenTrie control_tokens_;
  const DsmlTags tags_;
  const ToolsText tools_text_;
  const ProseRules prose_;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_DSML_ENCODING_H_
