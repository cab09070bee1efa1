// A compiled grammar and the matcher that walks one choice of a request through it. The
// doors describe a grammar as a GrammarSpec, GrammarPool compiles it, the engine asks a
// matcher for the mask of the next token. Nothing here knows of JSON bodies or steps.
#ifndef TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_H_
#define TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"

namespace tessera::coordinator {

enum class GrammarKind {
  kJsonObject,     // any JSON object; no text
  kJsonSchema,     // JSON values that a schema allows
  kRegex,          // the whole text matches
  kEbnf,           // GBNF; the rule "root"
  kChoice,         // one of the strings of a JSON list
  kStructuralTag,  // free text with structured parts, as JSON
};

// What a request asks for.
struct GrammarSpec {
  GrammarKind kind = GrammarKind::kJsonObject;
  std::string text = {};
  // The grammar begins after this token: the end of the reasoning. Until then everything
  // may be generated but an end.
  std::optional<int32_t> begins_after = {};
  std::string field = {};  // of the request, for errors
  // Where it cannot be compiled the request goes on without it: nobody asked for it.
  bool advisory = false;

  bool operator==(const GrammarSpec&) const = default;
};

// Where one choice stands. External synchronisation.
class GrammarMatcher {
 public:
  virtual ~GrammarMatcher() = default;

  // Takes the next token of the choice. kInternal: the grammar does not allow it, which
  // cannot be where the mask was obeyed.
  virtual absl::Status Accept(int32_t token) = 0;

  // Sets bit t % 32 of words[t / 32] for every token t that may come next, and clears the
  // others; `words` has (vocabulary + 31) / 32. An end-of-sequence id is set only where
  // the grammar is complete. kInternal: nothing may come next.
  virtual absl::Status FillMask(std::span<uint32_t> words) = 0;
};

// Immutable; thread-safe.
class Grammar {
 public:
  virtual ~Grammar() = default;

  // At the beginning. The grammar must outlive it.
  virtual std::unique_ptr<GrammarMatcher> NewMatcher(
      std::optional<int32_t> begins_after) const = 0;

  // Words of a mask.
  virtual size_t num_words() const = 0;

  // About what it holds in memory.
  virtual size_t size_bytes() const = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_H_
