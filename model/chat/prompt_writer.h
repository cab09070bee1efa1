// PromptWriter: collects a prompt as text and as ids at once. It keeps apart what the
// encoding writes (where control tokens become ids) from what users wrote (where the same
// spelling stays text).
#ifndef TESSERA_MODEL_CHAT_PROMPT_WRITER_H_
#define TESSERA_MODEL_CHAT_PROMPT_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/chat/chat_encoding.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::model {

// One prompt; external synchronisation. `tokenizer` and `control_tokens` must outlive it.
class PromptWriter {
 public:
  PromptWriter(const Tokenizer* tokenizer, const AddedTokenTrie* control_tokens)
      : tokenizer_(tokenizer), control_tokens_(control_tokens) {}

  // Text of the encoding itself: control tokens in it become their ids.
  void Own(std::string_view text);

  // Text from outside: never a control token. Invalid UTF-8 becomes U+FFFD.
  void Untrusted(std::string_view text);

  // The prompt. All text between two control tokens, whoever wrote it, is tokenised as
  // one run, as the trained prompts were. Call once.
  EncodedChat Finish();

 private:
  struct ControlToken {
    size_t begin;  // in text_
    size_t end;
    int32_t id;
  };

  // Whether <think> is the last of its tokens that the encoding wrote.
  bool EndsInReasoning() const;

  const Tokenizer* tokenizer_;
  const AddedTokenTrie* control_tokens_;
  std::string text_;
  std::vector<ControlToken> controls_;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_PROMPT_WRITER_H_
