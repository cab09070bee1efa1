// PendingText: what a streaming reader has received and not yet decided about, and the
// part of a tool block that it has read but may still have to give back.
#ifndef TESSERA_MODEL_CHAT_PENDING_TEXT_H_
#define TESSERA_MODEL_CHAT_PENDING_TEXT_H_

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace tessera::model {

// One per reader; external synchronisation.
class PendingText {
 public:
  void Append(std::string_view text) { text_ += text; }

  // Valid until the next call that is not const.
  std::string_view rest() const { return std::string_view(text_).substr(position_); }

  // Steps over decided text.
  void Drop(size_t num_bytes) { position_ += num_bytes; }

  // Steps over part of a block, which can still be given back.
  void Consume(size_t num_bytes) {
    raw_ += rest().substr(0, num_bytes);
    position_ += num_bytes;
  }
  void SkipWhitespace() {
    Consume(std::min(rest().find_first_not_of(" \t\r\n"), rest().size()));
  }
  // Consumes `tag` if the rest begins with it.
  bool Take(std::string_view tag) {
    if (!rest().starts_with(tag)) {
      return false;
    }
    Consume(tag.size());
    return true;
  }

  // Whether the rest may become `tag` with more text.
  bool MayBecome(std::string_view tag) const { return tag.starts_with(rest()); }

  // What was consumed so far is decided.
  void Keep() { raw_.clear(); }

  // Gives back what was consumed since Keep, and the rest; both are then decided.
  std::string GiveBack() {
    raw_ += rest();
    position_ = text_.size();
    return std::exchange(raw_, {});
  }

  // Frees the decided text. Once per piece of the stream, not per tag, so that a long
  // text in one piece costs linear time.
  void Compact() {
    text_.erase(0, position_);
    position_ = 0;
  }

 private:
  std::string text_;
  size_t position_ = 0;  // decided up to here
  std::string raw_;      // the block as generated, since Keep
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_PENDING_TEXT_H_
