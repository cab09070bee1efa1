#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer/pre_tokenizer.h"

#include <utility>

#include <pcre2.h>

#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/tokenizer/deepseek_splitter.h"

namespace tessera::model {
namespace {

// Steps that one match may take. A match of the patterns in use takes a few per byte of
// its own piece; runs of white space are scanned twice.
constexpr uint32_t kMatchLimit = 100'000'000;
// Heap of the interpreter, which runs only where the JIT's stack is too small.
constexpr uint32_t kHeapLimitKib = 64 * 1024;
// Longer patterns are not tokenizer patterns.
constexpr size_t kMaxPatternBytes = 16 * 1024;

constexpr std::string_view kWhitespace =
    R"(\t-\r\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a})"
    R"(\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

std::string SpellOutWhitespace(std::string_view pattern) {
  std::string result;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '\\' || i + 1 == pattern.size()) {
      in_class = (c == '[') || (in_class && c != ']');
      result += c;
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's' && in_class) {
      result += kWhitespace;
    } else if (escaped == 's') {
      result += fmt::format("[{}]", kWhitespace);
    } else if (escaped == 'S' && !in_class) {
      result += fmt::format("[^{}]", kWhitespace);
    } else {
      result += c;
      result += escaped;
    }
  }
  return result;
}

// One compiled expression; immutable.
class PreTokenizer::Pattern {
 public:
  static absl::StatusOr<std::unique_ptr<Pattern>> Compile(const std::string& text) {
    if (text.empty() || text.size() > kMaxPatternBytes) {
      return InvalidArgumentF("pre-tokenizer pattern of {} bytes, expected 1 to {}",
                              text.size(), kMaxPatternBytes);
    }
    const std::string pattern = SpellOutWhitespace(text);
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code* code =
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                      PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
    if (code == nullptr) {
      return InvalidArgumentF("pre-tokenizer pattern `{}` at offset {}: {}", pattern,
                              offset, ErrorText(error));
    }
    auto compiled = std::make_unique<Pattern>();
    compiled->code_ = code;
    // Without a JIT (or with executable memory forbidden) the interpreter gives the same
    // matches.
    compiled->jit_ = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
    return compiled;
  }

  Pattern() = default;
  ~Pattern() { pcre2_code_free(code_); }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  const pcre2_code* code() const { return code_; }
  bool jit() const { return jit_; }

 private:
  pcre2_code* code_ = nullptr;
  bool jit_ = false;
};

// Match memory of one call of Split. The ovector is shared by all patterns: only the
// whole match is asked for.
class PreTokenizer::MatchState {
 public:
  MatchState()
      : data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context_, kMatchLimit);
    pcre2_set_heap_limit(context_, kHeapLimitKib);
  }
  ~MatchState() {
    pcre2_match_context_free(context_);
    pcre2_match_data_free(data_);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;

  // The first match at or after `start`: true and its bounds. False: none, or a limit was
  // hit.
  bool Find(const Pattern& pattern, std::string_view text, size_t start, size_t* begin,
            size_t* end) {
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    // The text was checked once, so that PCRE2 need not do it for every match.
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (pattern.jit()) {
      rc = pcre2_jit_match(pattern.code(), subject, text.size(), start,
                           PCRE2_NO_UTF_CHECK, data_, context_);
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(pattern.code(), subject, text.size(), start,
                       PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data_, context_);
    }
    if (rc < 0) {
      if (rc != PCRE2_ERROR_NOMATCH) {
        log::Warning("tokenizer", "pre-tokenizer match stopped at a limit",
                     {{"error", ErrorText(rc)}, {"text_bytes", text.size()}});
      }
      return false;
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data_);
    *begin = bounds[0];
    *end = bounds[1];
    return true;
  }

 private:
  pcre2_match_data* data_;
  pcre2_match_context* context_;
};

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(
    const std::vector<std::string>& patterns) {
  std::unique_ptr<const DeepSeekSplitter> splitter;
  if (patterns == DeepSeekSplitter::Patterns()) {
    splitter = DeepSeekSplitter::Create();
  }
  std::vector<std::unique_ptr<Pattern>> compiled;
  if (splitter != nullptr) {
    return std::unique_ptr<PreTokenizer>(
        new PreTokenizer(std::move(compiled), std::move(splitter)));
  }
  for (const std::string& text : patterns) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<Pattern> pattern, Pattern::Compile(text));
    compiled.push_back(std::move(pattern));
  }
  return std::unique_ptr<PreTokenizer>(
      new PreTokenizer(std::move(compiled), std::move(splitter)));
}

PreTokenizer::PreTokenizer(std::vector<std::unique_ptr<Pattern>> patterns,
                           std::unique_ptr<const DeepSeekSplitter> splitter)
    : patterns_(std::move(patterns)), splitter_(std::move(splitter)) {}

PreTokenizer::~PreTokenizer() = default;

void PreTokenizer::Split(std::string_view text,
                         std::vector<std::string_view>* pieces) const {
  if (splitter_ != nullptr) {
    splitter_->Split(text, pieces);
    return;
  }
  MatchState state;
  SplitFrom(0, text, &state, pieces);
}

// Each pattern sees the pieces of the one before it as texts of their own (a lookahead
// ends at the end of its piece), so the matches are made depth first. The depth is the
// number of patterns.
void PreTokenizer::SplitFrom(size_t pattern_idx, std::string_view text, MatchState* state,
                             std::vector<std::string_view>* pieces) const {
  if (text.empty()) {
    return;
  }
  if (pattern_idx == patterns_.size()) {
    pieces->push_back(text);
    return;
  }
  const auto descend = [&](size_t begin, size_t end) {
    SplitFrom(pattern_idx + 1, text.substr(begin, end - begin), state, pieces);
  };
  size_t done = 0;    // everything before is in `pieces`
  size_t search = 0;  // where the next match may begin
  size_t begin = 0;
  size_t end = 0;
  while (search < text.size() &&
         state->Find(*patterns_[pattern_idx], text, search, &begin, &end)) {
    if (begin == end) {
      // An empty match cuts, but the next search begins one whole character later.
      descend(done, begin);
      done = begin;
      search = end + 1;
      while (search < text.size() &&
             (static_cast<uint8_t>(text[search]) & 0xC0) == 0x80) {
        ++search;
      }
      continue;
    }
    descend(done, begin);
    descend(begin, end);
    done = search = end;
  }
  descend(done, text.size());
}

}  // namespace tessera::model
