// GrammarLimits: what a client's grammar may be at most, and the checks that need no
// compilation. A grammar is untrusted text that becomes an automaton: size, depth and
// repetitions are bounded before anything is built from them.
#ifndef TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_LIMITS_H_
#define TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tessera::coordinator {

struct GrammarLimits {
  size_t max_text_bytes = 64 << 10;
  int32_t max_depth = 64;      // of brackets, or of nested JSON
  int64_t max_repeats = 4096;  // of one counted repetition, minLength and the like
  // Of all repetitions of a regex or EBNF; the sum of these products, and of the lengths
  // and counts, of a whole schema.
  int64_t max_repeat_product = 1 << 17;
  int64_t max_alternatives = 4096;      // strings of a choice, entries of an enum
  size_t max_grammar_bytes = 64 << 20;  // compiled
};

enum class PatternSyntax { kRegex, kEbnf };

// The product of the repetitions of a regex or EBNF. kInvalidArgument: an empty text,
// bytes, depth or repetitions over a limit.
absl::StatusOr<int64_t> CheckPattern(std::string_view text, PatternSyntax syntax,
                                     const GrammarLimits& limits);

// Whether JSON text may be parsed and walked: its bytes and its depth. kInvalidArgument:
// not.
absl::Status CheckJsonText(std::string_view text, const GrammarLimits& limits);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_LIMITS_H_
