// RequestRecord: one request of a load run, as it went. LoadGenerator writes it,
// LoadReport and LoadPlot read it.
#ifndef TESSERA_CLI_CLIENT_LOAD_RECORD_H_
#define TESSERA_CLI_CLIENT_LOAD_RECORD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace tessera::cli {

// A value. Durations from sending, unless said otherwise.
struct RequestRecord {
  bool sent = false;
  std::string error_kind;  // Empty: completed.
  std::string error;       // The message of the failure.
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  absl::Duration arrival;  // As planned, from the start of the run.
  absl::Duration start;    // When it was sent, from the start of the run.
  // The part of start - arrival that the generator is to blame for; the rest is waiting
  // for a free place, which a limit of concurrency asks for.
  absl::Duration generator_lag;
  absl::Duration time_to_first_token;
  absl::Duration end_to_end;         // To the last token.
  std::vector<absl::Duration> gaps;  // Between pieces of text.
  // How many tokens each of those pieces brought; 0: the server did not say.
  std::vector<int32_t> gap_tokens;
  std::string text;  // Where texts are kept.

  absl::Duration queue_time() const { return start - arrival; }
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_LOAD_RECORD_H_
