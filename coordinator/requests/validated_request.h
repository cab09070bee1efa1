// ValidatedRequest: what every door (OpenAI HTTP routes, gRPC, the CLI) turns a request
// into before anything else sees it. One constructor, `Create`, holds every check; later
// stages trust it. It knows nothing of JSON or protobuf: doors fill a RequestSpec.
#ifndef TESSERA_COORDINATOR_REQUESTS_VALIDATED_REQUEST_H_
#define TESSERA_COORDINATOR_REQUESTS_VALIDATED_REQUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "coordinator/grammar/grammar.h"
#include "proto/step_plan.h"

namespace tessera::coordinator {

// Every limit is a flag.
struct RequestLimits {
  int64_t vocab_size = 0;
  int64_t num_token_ids = 0;  // ids a prompt may use: min of tokenizer and Engram map
  // The id that stands for a piece of an image, which no prompt may use: its row comes
  // from a vision tower that nobody runs.
  std::optional<int32_t> image_token_id;
  int64_t max_model_len = 0;
  int32_t max_choices = 8;
  int32_t max_logprobs = 20;
  int32_t max_stop_strings = 16;
  int32_t max_stop_bytes = 64;
  int32_t max_stop_token_ids = 64;
  int32_t max_logit_bias = 1024;
  int32_t max_bad_words = 128;
  int32_t max_bad_word_tokens = 64;  // of one
  int32_t max_allowed_token_ids = 4096;
  // Tokens of a prompt times the log-probabilities of each.
  int64_t max_prompt_logprobs = int64_t{1} << 20;
  // The model's end-of-sequence ids: they stop a request unless it sets ignore_eos.
  std::vector<int32_t> eos_token_ids;
  absl::Duration default_timeout = absl::Minutes(10);
  absl::Duration max_timeout = absl::Hours(1);
};

// What a door read. Absent optionals take the default.
struct RequestSpec {
  std::string request_id;
  std::string tenant;      // the door's word, never the client's
  std::string cache_salt;  // keeps prefixes apart inside the tenant
  std::vector<int32_t> prompt_ids;
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> min_tokens;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::optional<int64_t> seed;
  std::optional<int64_t> n;
  std::optional<int64_t> logprobs;  // number of best tokens; 0 = the sampled one only
  std::optional<int64_t> prompt_logprobs;  // likewise, of the prompt's tokens
  std::vector<std::vector<int32_t>> bad_words;
  std::optional<std::vector<int32_t>> allowed_token_ids;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  std::vector<std::pair<int32_t, double>> logit_bias;
  bool ignore_eos = false;
  bool include_stop_text = false;
  bool skip_special_tokens = true;
  std::optional<absl::Duration> timeout;
  int32_t priority = 0;  // lower runs first
  // What may be generated; default: anything. Not with ignore_eos or min_tokens.
  std::optional<GrammarSpec> grammar;
};

// An error that a door can show: which field, and the OpenAI error code.
struct FieldError {
  absl::Status status;  // kInvalidArgument, kResourceExhausted, …
  std::string param;    // "max_tokens"; empty: none
  std::string code;     // "context_length_exceeded"; empty: none
};

// Immutable but for SetGrammar. Copyable.
class ValidatedRequest {
 public:
  // Never throws, never truncates a value silently: whatever is out of range is an error
  // that names the field, the value and the range. `default_seed` is used where the
  // client gave none. Sizes are checked before anything is allocated from them. On
  // failure returns kInvalidArgument and fills `error`, which may be null, with the same
  // status and the field. The deadline is `now` plus the client's timeout or the default
  // one.
  static absl::StatusOr<ValidatedRequest> Create(RequestSpec spec,
                                                 const RequestLimits& limits,
                                                 absl::Time now, uint64_t default_seed,
                                                 FieldError* error);

  const std::string& request_id() const { return spec_.request_id; }
  const std::string& tenant() const { return spec_.tenant; }
  const std::string& cache_salt() const { return spec_.cache_salt; }
  const std::vector<int32_t>& prompt_ids() const { return spec_.prompt_ids; }
  int64_t max_tokens() const {
    return max_tokens_;
  }  // >= 1, fits max_model_len with the prompt
  int32_t num_choices() const { return num_choices_; }
  bool scores_prompt() const { return sampling_.num_prompt_logprobs >= 0; }
  // choice_index differs per choice, and the first alone scores the prompt; all else is
  // equal.
  proto::SamplingParams sampling(int32_t choice) const;
  const std::vector<std::string>& stop_strings() const { return spec_.stop; }
  // Ids that end a choice: the client's, and eos unless ignore_eos.
  const std::vector<int32_t>& stop_token_ids() const { return spec_.stop_token_ids; }
  bool ignore_eos() const { return spec_.ignore_eos; }
  bool include_stop_text() const { return spec_.include_stop_text; }
  bool skip_special_tokens() const { return spec_.skip_special_tokens; }
  int32_t priority() const { return spec_.priority; }
  const std::optional<GrammarSpec>& grammar_spec() const { return spec_.grammar; }
  // The compiled grammar_spec, which a door sets before it submits.
  const std::shared_ptr<const Grammar>& grammar() const { return grammar_; }
  void SetGrammar(std::shared_ptr<const Grammar> grammar) {
    grammar_ = std::move(grammar);
  }
  absl::Time arrival() const { return arrival_; }
  absl::Time deadline() const { return deadline_; }

 private:
  ValidatedRequest() = default;

  RequestSpec spec_;
  proto::SamplingParams sampling_;
  int64_t max_tokens_ = 0;
  int32_t num_choices_ = 1;
  absl::Time arrival_;
  absl::Time deadline_;
  std::shared_ptr<const Grammar> grammar_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_REQUESTS_VALIDATED_REQUEST_H_
