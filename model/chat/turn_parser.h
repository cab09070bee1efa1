// DsmlTurnParser: the tolerant, streaming reader of generated turns. Where the strict
// parser refuses, it recovers: reasoning that runs into a tool block ends there, a stray
// </think> is left out of the content, calls that were begun when the generation ends
// come back with what there is of them, and a block that is no tool block comes back as
// content.
#ifndef TESSERA_MODEL_CHAT_TURN_PARSER_H_
#define TESSERA_MODEL_CHAT_TURN_PARSER_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "model/chat/chat_encoding.h"
#include "model/chat/dsml.h"

namespace tessera::model {

// One per choice; external synchronisation. What it returns does not depend on how the
// text was cut into pieces. Time is linear in the text.
class DsmlTurnParser final : public TurnParser {
 public:
  // `thinking`: the prompt ended inside <think>. `tags` must outlive the parser.
  DsmlTurnParser(const DsmlTags* tags, bool thinking)
      : tags_(tags), state_(thinking ? State::kReasoning : State::kContent) {}

  Delta Push(std::string_view text) override;
  Delta Finish() override;

 private:
  enum class State {
    kReasoning,   // until </think> or a tool block
    kContent,     // until a tool block
    kBetween,     // in a block, before a call or the end of the block
    kInCall,      // before a parameter or the end of the call
    kInValue,     // until the closing tag of the parameter
    kAfterCalls,  // the block is closed: what follows is dropped, the turn should have
                  // ended
    kVerbatim,    // the block was malformed: all is content
  };

  // Each takes what is certain from the pending text and says whether to go on.
  bool Step(Delta* delta);
  bool StepProse(Delta* delta);
  bool StepBetween(Delta* delta);
  bool StepInCall(Delta* delta);
  bool StepInValue();

  // An opening tag: a name between `open` and the first of `ends` that follows on its
  // line.
  struct OpeningTag {
    std::string name;
    size_t end_idx = 0;
  };
  enum class TagResult { kRead, kWait, kMalformed };
  TagResult ReadOpeningTag(std::string_view open, std::span<const std::string_view> ends,
                           OpeningTag* tag);

  std::string_view rest() const { return std::string_view(pending_).substr(position_); }
  void EmitProse(std::string_view text, Delta* delta);
  void Consume(size_t num_bytes);
  void SkipWhitespace();
  bool TakeTag(std::string_view tag);
  void EmitCall(Delta* delta);
  void GiveUp(Delta* delta);

  const DsmlTags* tags_;
  State state_;
  std::string pending_;  // received; decided up to position_
  size_t position_ = 0;
  size_t num_scanned_ = 0;  // kInValue: this much of rest() holds no closing tag
  std::string raw_;  // the block as generated, from its start or the end of its last call
  bool at_start_ =
      false;  // content has not begun after </think>: line breaks are dropped
  bool any_call_ = false;  // the block has given a call
  ToolCall call_;          // being read
  std::string key_;        // of the value being read
  bool is_string_ = false;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_TURN_PARSER_H_
