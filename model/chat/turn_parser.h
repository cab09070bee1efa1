// DsmlTurnParser: the tolerant, streaming reader of turns with DSML tool calls. Where the
// strict parser refuses, it recovers: reasoning that runs into a tool block ends there, a
// stray
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
#include "model/chat/pending_text.h"
#include "model/chat/prose_reader.h"

namespace tessera::model {

// One per choice; external synchronisation. What it returns does not depend on how the
// text was cut into pieces. Time is linear in the text.
class DsmlTurnParser final : public TurnParser {
 public:
  // `thinking`: the turn starts with reasoning. `tags`, and `prose` of the same
  // generation, must outlive the parser.
  DsmlTurnParser(const DsmlTags* tags, const ProseRules* prose, bool thinking)
      : tags_(tags), prose_(prose, thinking) {}

  Delta Push(std::string_view text) override;
  Delta Finish() override;

 private:
  enum class State {
    kProse,       // until a tool block
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

  std::string_view rest() const { return pending_.rest(); }
  void EmitCall(Delta* delta);
  void GiveUp(Delta* delta);

  const DsmlTags* tags_;
  ProseReader prose_;
  State state_ = State::kProse;
  PendingText pending_;
  size_t num_scanned_ = 0;  // kInValue: this much of rest() holds no closing tag
  bool any_call_ = false;   // the block has given a call
  ToolCall call_;           // being read
  std::string key_;         // of the value being read
  bool is_string_ = false;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_TURN_PARSER_H_
