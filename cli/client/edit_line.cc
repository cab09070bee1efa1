#include "cli/client/edit_line.h"

#include <algorithm>
#include <utility>

namespace tessera::cli {
namespace {

// Bytes 10xxxxxx continue a character.
bool Continues(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

bool IsSpace(char byte) { return byte == ' ' || byte == '\t' || byte == '\n'; }

}  // namespace

size_t EditLine::Before(size_t position) const {
  if (position == 0) {
    return 0;
  }
  --position;
  while (position > 0 && Continues(text_[position])) {
    --position;
  }
  return position;
}

size_t EditLine::After(size_t position) const {
  if (position == text_.size()) {
    return position;
  }
  ++position;
  while (position < text_.size() && Continues(text_[position])) {
    ++position;
  }
  return position;
}

size_t EditLine::WordBefore() const {
  size_t position = cursor_;
  while (position > 0 && IsSpace(text_[position - 1])) {
    --position;
  }
  while (position > 0 && !IsSpace(text_[position - 1])) {
    --position;
  }
  return position;
}

void EditLine::Insert(std::string_view text) {
  if (text.size() > kMaxBytes - text_.size()) {
    return;
  }
  text_.insert(cursor_, text);
  cursor_ += text.size();
}

void EditLine::EraseBefore() {
  const size_t begin = Before(cursor_);
  text_.erase(begin, cursor_ - begin);
  cursor_ = begin;
}

void EditLine::EraseAfter() { text_.erase(cursor_, After(cursor_) - cursor_); }

void EditLine::EraseWordBefore() {
  const size_t begin = WordBefore();
  text_.erase(begin, cursor_ - begin);
  cursor_ = begin;
}

void EditLine::EraseToBegin() {
  text_.erase(0, cursor_);
  cursor_ = 0;
}

void EditLine::EraseToEnd() { text_.erase(cursor_); }

void EditLine::Left() { cursor_ = Before(cursor_); }

void EditLine::Right() { cursor_ = After(cursor_); }

void EditLine::WordLeft() { cursor_ = WordBefore(); }

void EditLine::WordRight() {
  while (cursor_ < text_.size() && IsSpace(text_[cursor_])) {
    ++cursor_;
  }
  while (cursor_ < text_.size() && !IsSpace(text_[cursor_])) {
    ++cursor_;
  }
}

void EditLine::Show(size_t entry) {
  if (entry_ == history_.size()) {
    draft_ = text_;
  }
  entry_ = entry;
  text_ = entry == history_.size() ? draft_ : history_[entry];
  cursor_ = text_.size();
}

void EditLine::Older() {
  if (entry_ > 0) {
    Show(entry_ - 1);
  }
}

void EditLine::Newer() {
  if (entry_ < history_.size()) {
    Show(entry_ + 1);
  }
}

std::string EditLine::Take() {
  std::string text = std::exchange(text_, "");
  const bool repeats = !history_.empty() && history_.back() == text;
  if (text.find_first_not_of(" \t\n") != std::string::npos && !repeats) {
    history_.push_back(text);
    if (history_.size() > kMaxHistory) {
      history_.erase(history_.begin());
    }
  }
  Clear();
  return text;
}

void EditLine::Clear() {
  text_.clear();
  draft_.clear();
  cursor_ = 0;
  entry_ = history_.size();
}

}  // namespace tessera::cli
