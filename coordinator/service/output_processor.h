// OutputProcessor: turns the tokens of one choice into text and decides where the choice
// ends: stop ids, stop strings across token borders, and the length limit. It holds back
// what may be the start of a stop string and bytes of an unfinished character, so that
// text, once sent, is never taken back.
#ifndef TESSERA_COORDINATOR_SERVICE_OUTPUT_PROCESSOR_H_
#define TESSERA_COORDINATOR_SERVICE_OUTPUT_PROCESSOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/requests/engine.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::coordinator {

// Shared by the choices of a request.
struct OutputRules {
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_token_ids;  // sorted; eos included unless it is ignored
  bool include_stop_text = false;
  bool skip_special_tokens = true;
  int64_t min_tokens = 0;  // nothing stops the choice before it has so many
};

// What one token brought.
struct OutputPiece {
  std::string text;  // certain now
  bool finished = false;
  // If finished:
  FinishReason reason = FinishReason::kStop;
  std::string rest;  // was held back and is certain now
  std::optional<std::string> stop_string;
  std::optional<int32_t> stop_token;
};

// External synchronisation. `tokenizer` must outlive it.
class OutputProcessor {
 public:
  OutputProcessor(std::shared_ptr<const OutputRules> rules,
                  const model::Tokenizer* tokenizer);

  // Takes the next token; `length_reached` says that it is the last that the limits
  // allow. A stop takes precedence over the length. Not to be called after a piece that
  // is finished.
  OutputPiece Push(int32_t token, bool length_reached);

 private:
  // Moves out of `pending_` what no stop string can begin in, or all before a match.
  void CutAtStopString(OutputPiece* piece);

  std::shared_ptr<const OutputRules> rules_;
  model::IncrementalDecoder decoder_;
  std::string pending_;  // whole characters that may start a stop string
  int64_t num_tokens_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_OUTPUT_PROCESSOR_H_
