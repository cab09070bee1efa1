// GrammarCompiler: from a GrammarSpec to a Grammar for one vocabulary, through the
// library of docs/decisions/0003-grammar-library.md, which no other file includes. It
// checks first what the library would ignore or take too long for.
#ifndef TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_COMPILER_H_
#define TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_COMPILER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "coordinator/grammar/grammar.h"
#include "coordinator/grammar/grammar_limits.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::coordinator {

struct GrammarVocabulary {
  int64_t vocab_size = 0;     // bits of a mask
  int64_t num_token_ids = 0;  // ids from here on are never allowed
  std::vector<int32_t> eos_token_ids;
};

// Thread-safe.
class GrammarCompiler {
 public:
  // kInvalidArgument: a vocabulary without an end of sequence. Sorts the vocabulary,
  // which takes some tenths of a second; `tokenizer` is not needed afterwards.
  static absl::StatusOr<std::unique_ptr<GrammarCompiler>> Create(
      const GrammarVocabulary& vocabulary, const GrammarLimits& limits,
      const model::Tokenizer& tokenizer);
  virtual ~GrammarCompiler() = default;

  // Blocks, up to seconds for a large vocabulary. kInvalidArgument: the text is no
  // grammar of its kind, holds what cannot be enforced, or exceeds a limit; the message
  // names it.
  virtual absl::StatusOr<std::shared_ptr<const Grammar>> Compile(
      const GrammarSpec& spec) const = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_COMPILER_H_
