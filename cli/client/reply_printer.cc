#include "cli/client/reply_printer.h"

#include <ostream>
#include <utility>

namespace tessera::cli {
namespace {

constexpr std::string_view kDim = "\x1b[2m";
constexpr std::string_view kPlain = "\x1b[0m";

}  // namespace

std::string ForTerminal(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    // U+0080 to U+009F are control characters too: some terminals take U+009B for ESC [.
    const bool wide_control = byte == 0xc2 && i + 1 < text.size() &&
                              static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (wide_control) {
      ++i;
    } else if (!control) {
      out.push_back(text[i]);
    }
  }
  return out;
}

void ReplyPrinter::Reasoning(std::string_view text) {
  if (text.empty() || !terminal_) {
    return;
  }
  if (!std::exchange(in_reasoning_, true) && styled_) {
    *out_ << kDim;
  }
  *out_ << ForTerminal(text) << std::flush;
}

void ReplyPrinter::EndReasoning() {
  if (std::exchange(in_reasoning_, false)) {
    *out_ << (styled_ ? kPlain : "") << "\n\n";
  }
}

void ReplyPrinter::Content(std::string_view text) {
  if (text.empty()) {
    return;
  }
  EndReasoning();
  open_line_ = !text.ends_with('\n');
  if (styled_) {
    *out_ << markdown_.Append(ForTerminal(text));
  } else if (terminal_) {
    *out_ << ForTerminal(text);
  } else {
    *out_ << text;
  }
  out_->flush();
}

void ReplyPrinter::Finish() {
  EndReasoning();
  if (styled_) {
    *out_ << markdown_.Finish();
  }
  if (std::exchange(open_line_, false)) {
    *out_ << '\n';
  }
  out_->flush();
}

}  // namespace tessera::cli
