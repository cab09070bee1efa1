// ProseReader: the part of a streamed turn before its tool block, split into reasoning
// and content. The streaming readers of all generations begin with it.
#ifndef TESSERA_MODEL_CHAT_PROSE_READER_H_
#define TESSERA_MODEL_CHAT_PROSE_READER_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "model/chat/chat_encoding.h"

namespace tessera::model {

// Length of the longest end of `text` that is the beginning of `tag`, the whole tag
// excepted.
size_t OverlapWith(std::string_view text, std::string_view tag);

// What the prose of a generation looks like.
struct ProseRules {
  std::string block_open;                // what begins a tool block
  bool blank_line_before_block = false;  // belongs to the block, and is missing at times
  bool keeps_line_breaks = false;        // after </think>; else they are dropped
  bool may_open_reasoning = false;       // the turn may begin with <think> itself
};

// One per choice; external synchronisation. `rules` must outlive it.
class ProseReader {
 public:
  // `thinking`: the turn starts with reasoning.
  ProseReader(const ProseRules* rules, bool thinking)
      : rules_(rules), in_reasoning_(thinking), may_open_(rules->may_open_reasoning) {}

  // What one step decided about the pending text. The caller drops its first `num_bytes`
  // bytes; if `found_block`, the block begins there, with its blank line.
  struct Step {
    size_t num_bytes = 0;
    bool found_block = false;
  };

  // Gives what is certain of `text` to `delta`: a tag may be cut anywhere, so that an end
  // of `text` which may begin one is left pending. Decides on all of `text` at once.
  Step Read(std::string_view text, TurnParser::Delta* delta);

  // Gives all of `text`, at the end of the turn or where no tag counts any more.
  void Emit(std::string_view text, TurnParser::Delta* delta);

 private:
  // Bytes at the start of `text` that open the reasoning; npos: too early to say.
  size_t SkipOpening(std::string_view text);
  size_t HeldBack(std::string_view text) const;

  const ProseRules* rules_;
  bool in_reasoning_;
  bool may_open_;          // nothing was read yet that is no opening <think>
  bool at_start_ = false;  // after </think>: line breaks are dropped
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_PROSE_READER_H_
