// EditLine: the text that a person is typing, with its cursor and the history behind it.
//
// It stands under TerminalEditor, which turns keys into these calls and shows the result.
// It knows neither keys nor terminals. Positions are bytes, always between whole UTF-8
// characters.
#ifndef TESSERA_CLI_CLIENT_EDIT_LINE_H_
#define TESSERA_CLI_CLIENT_EDIT_LINE_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::cli {

// External synchronisation.
class EditLine {
 public:
  static constexpr size_t kMaxHistory = 500;
  static constexpr size_t kMaxBytes = size_t{1} << 20;

  const std::string& text() const { return text_; }
  size_t cursor() const { return cursor_; }

  // Drops what would make the text longer than kMaxBytes.
  void Insert(std::string_view text);

  void EraseBefore();      // Backspace
  void EraseAfter();       // Delete
  void EraseWordBefore();  // Ctrl-W
  void EraseToBegin();     // Ctrl-U
  void EraseToEnd();       // Ctrl-K
  void Left();
  void Right();
  void WordLeft();
  void WordRight();
  void Begin() { cursor_ = 0; }
  void End() { cursor_ = text_.size(); }

  // Show the entry before or after; the text typed so far is kept at the end of the list.
  // Nothing happens at either end.
  void Older();
  void Newer();

  // Empties the line and returns what it held; text that is not empty, and not the same
  // as the entry before, joins the history.
  std::string Take();

  // Empties the line; the history stays.
  void Clear();

 private:
  size_t Before(size_t position) const;
  size_t After(size_t position) const;
  size_t WordBefore() const;
  void Show(size_t entry);

  std::string text_;
  size_t cursor_ = 0;
  std::vector<std::string> history_;
  size_t entry_ = 0;   // shown; history_.size(): the one being typed
  std::string draft_;  // what was typed before an entry was shown
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_EDIT_LINE_H_
