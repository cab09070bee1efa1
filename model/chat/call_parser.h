// CallTurnParser: the tolerant, streaming reader of turns of V3, R1 and V3.1. A call
// comes back when it is closed; one that was begun when the generation ends comes back
// with what there is of it; a block that is no tool block comes back as content.
#ifndef TESSERA_MODEL_CHAT_CALL_PARSER_H_
#define TESSERA_MODEL_CHAT_CALL_PARSER_H_

#include <cstddef>
#include <string_view>

#include "model/chat/call_format.h"
#include "model/chat/chat_encoding.h"
#include "model/chat/pending_text.h"
#include "model/chat/prose_reader.h"

namespace tessera::model {

// One per choice; external synchronisation. What it returns does not depend on how the
// text was cut into pieces. Time is linear in the text.
class CallTurnParser final : public TurnParser {
 public:
  // `thinking`: the turn starts with reasoning. `format`, and `prose` of the same format,
  // must outlive the parser.
  CallTurnParser(const CallFormat* format, const ProseRules* prose, bool thinking)
      : format_(format), prose_(prose, thinking) {}

  Delta Push(std::string_view text) override;
  Delta Finish() override;

 private:
  enum class State {
    kProse,       // until a tool block
    kBetween,     // in a block, before a call or the end of the block
    kInCall,      // until the end of the call
    kAfterCalls,  // the block is closed: what follows is dropped
    kVerbatim,    // the block was malformed: all is content
  };

  // Each takes what is certain from the pending text and says whether to go on.
  bool Step(Delta* delta);
  bool StepProse(Delta* delta);
  bool StepBetween(Delta* delta);
  bool StepInCall(Delta* delta);

  // Gives the call in the first `num_bytes` pending bytes; false if it is none.
  bool EmitCall(size_t num_bytes, bool is_open, Delta* delta);
  void GiveUp(Delta* delta);

  const CallFormat* format_;
  ProseReader prose_;
  State state_ = State::kProse;
  PendingText pending_;
  size_t num_scanned_ = 0;  // kInCall: this much of the rest holds no end of the call
  bool any_call_ = false;   // the block has given a call
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_CALL_PARSER_H_
