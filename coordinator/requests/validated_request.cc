#include "coordinator/requests/validated_request.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "common/status.h"

namespace tessera::coordinator {
namespace {

// Identifiers travel into logs and cache keys; longer ones are not useful to anybody.
constexpr size_t kMaxIdentifierBytes = 256;
constexpr size_t kMaxCacheSaltBytes = 128;

// Ranges of the OpenAI reference; repetition_penalty has none there, ten times is already
// absurd and keeps every logit finite.
constexpr double kMaxTemperature = 2.0;
constexpr double kMaxRepetitionPenalty = 10.0;
constexpr double kMaxPenalty = 2.0;
constexpr double kMaxLogitBias = 100.0;

// Remembers the first broken rule. Each check is a no-op after that.
class Checker {
 public:
  bool ok() const { return error_.status.ok(); }
  const FieldError& error() const { return error_; }

  void Fail(std::string_view param, std::string message, std::string_view code = "") {
    if (ok()) {
      error_ = {absl::InvalidArgumentError(message), std::string(param),
                std::string(code)};
    }
  }

  // The value, or `absent` where the client gave none; it must lie in [low, high].
  int64_t Integer(std::string_view param, const std::optional<int64_t>& value,
                  int64_t absent, int64_t low, int64_t high) {
    if (!value.has_value()) {
      return absent;
    }
    if (*value < low || *value > high) {
      Fail(param, fmt::format("{} is {}, expected {} to {}", param, *value, low, high));
      return absent;
    }
    return *value;
  }

  // As above for reals; NaN and infinities are outside every range. `open_low` excludes
  // `low`.
  float Real(std::string_view param, const std::optional<double>& value, double absent,
             double low, double high, bool open_low = false) {
    if (!value.has_value()) {
      return static_cast<float>(absent);
    }
    const bool above = open_low ? *value > low : *value >= low;
    // A positive value that rounds to zero as a float would break what `open_low`
    // protects.
    const float narrow = static_cast<float>(*value);
    if (!std::isfinite(*value) || !above || *value > high ||
        (open_low && narrow <= low)) {
      Fail(param, fmt::format("{} is {}, expected {} {} to {}", param, *value,
                              open_low ? "more than" : "at least", low, high));
      return static_cast<float>(absent);
    }
    return narrow;
  }

 private:
  FieldError error_;
};

void CheckIdentifiers(const RequestSpec& spec, Checker* check) {
  if (spec.request_id.empty() || spec.request_id.size() > kMaxIdentifierBytes) {
    check->Fail("request_id", fmt::format("request id of {} bytes, expected 1 to {}",
                                          spec.request_id.size(), kMaxIdentifierBytes));
  }
  if (spec.tenant.size() > kMaxIdentifierBytes) {
    check->Fail("tenant", fmt::format("tenant of {} bytes, expected at most {}",
                                      spec.tenant.size(), kMaxIdentifierBytes));
  }
  if (spec.cache_salt.size() > kMaxCacheSaltBytes) {
    check->Fail("cache_salt", fmt::format("cache_salt of {} bytes, expected at most {}",
                                          spec.cache_salt.size(), kMaxCacheSaltBytes));
  }
}

void CheckPrompt(const RequestSpec& spec, const RequestLimits& limits, Checker* check) {
  const int64_t length = static_cast<int64_t>(spec.prompt_ids.size());
  if (length == 0) {
    check->Fail("prompt", "the prompt is empty, expected at least one token");
    return;
  }
  // One position must be left for the first generated token.
  if (length >= limits.max_model_len) {
    check->Fail(
        "prompt",
        fmt::format("the prompt has {} tokens, the context holds {} tokens, prompt and "
                    "completion together",
                    length, limits.max_model_len),
        "context_length_exceeded");
    return;
  }
  const auto bad =
      std::find_if(spec.prompt_ids.begin(), spec.prompt_ids.end(),
                   [&](int32_t id) { return id < 0 || id >= limits.num_token_ids; });
  if (bad != spec.prompt_ids.end()) {
    check->Fail("prompt",
                fmt::format("token id {} at position {}, expected 0 to {}", *bad,
                            bad - spec.prompt_ids.begin(), limits.num_token_ids - 1));
  }
  if (limits.image_token_id.has_value() &&
      std::find(spec.prompt_ids.begin(), spec.prompt_ids.end(), *limits.image_token_id) !=
          spec.prompt_ids.end()) {
    check->Fail("prompt",
                fmt::format("token id {} stands for an image, and this server does not "
                            "run the vision tower",
                            *limits.image_token_id));
  }
}

int64_t CheckMaxTokens(const RequestSpec& spec, const RequestLimits& limits,
                       Checker* check) {
  const int64_t length = static_cast<int64_t>(spec.prompt_ids.size());
  const int64_t room = limits.max_model_len - length;
  const int64_t max_tokens = check->Integer("max_tokens", spec.max_tokens, room, 1,
                                            std::numeric_limits<int64_t>::max());
  if (max_tokens > room) {
    check->Fail(
        "max_tokens",
        fmt::format("the prompt has {} tokens and max_tokens is {}, the context holds "
                    "{} tokens",
                    length, max_tokens, limits.max_model_len),
        "context_length_exceeded");
  }
  return max_tokens;
}

void CheckStops(const RequestSpec& spec, const RequestLimits& limits, Checker* check) {
  if (spec.stop.size() > static_cast<size_t>(limits.max_stop_strings)) {
    check->Fail("stop", fmt::format("{} stop strings, expected at most {}",
                                    spec.stop.size(), limits.max_stop_strings));
    return;
  }
  for (const std::string& stop : spec.stop) {
    if (stop.empty() || stop.size() > static_cast<size_t>(limits.max_stop_bytes)) {
      check->Fail("stop", fmt::format("a stop string of {} bytes, expected 1 to {}",
                                      stop.size(), limits.max_stop_bytes));
    }
  }
  if (spec.stop_token_ids.size() > static_cast<size_t>(limits.max_stop_token_ids)) {
    check->Fail("stop_token_ids",
                fmt::format("{} stop token ids, expected at most {}",
                            spec.stop_token_ids.size(), limits.max_stop_token_ids));
    return;
  }
  for (const int32_t id : spec.stop_token_ids) {
    if (id < 0 || id >= limits.vocab_size) {
      check->Fail("stop_token_ids", fmt::format("token id {}, expected 0 to {}", id,
                                                limits.vocab_size - 1));
    }
  }
}

std::vector<std::pair<int32_t, float>> CheckLogitBias(const RequestSpec& spec,
                                                      const RequestLimits& limits,
                                                      Checker* check) {
  std::vector<std::pair<int32_t, float>> biases;
  if (spec.logit_bias.size() > static_cast<size_t>(limits.max_logit_bias)) {
    check->Fail("logit_bias", fmt::format("{} entries, expected at most {}",
                                          spec.logit_bias.size(), limits.max_logit_bias));
    return biases;
  }
  biases.reserve(spec.logit_bias.size());
  for (const auto& [id, bias] : spec.logit_bias) {
    if (id < 0 || id >= limits.vocab_size) {
      check->Fail("logit_bias", fmt::format("token id {}, expected 0 to {}", id,
                                            limits.vocab_size - 1));
      return biases;
    }
    biases.emplace_back(
        id, check->Real("logit_bias", bias, 0.0, -kMaxLogitBias, kMaxLogitBias));
  }
  // Sorted, so that the order in which a client wrote them can't matter to the sum.
  std::sort(biases.begin(), biases.end());
  const auto twice =
      std::adjacent_find(biases.begin(), biases.end(),
                         [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice != biases.end()) {
    check->Fail("logit_bias", fmt::format("token id {} appears twice", twice->first));
  }
  return biases;
}

bool IsTokenId(int32_t id, const RequestLimits& limits) {
  return id >= 0 && id < limits.num_token_ids;
}

void CheckBadWords(const RequestSpec& spec, const RequestLimits& limits, Checker* check) {
  if (spec.bad_words.size() > static_cast<size_t>(limits.max_bad_words)) {
    check->Fail("bad_words", fmt::format("{} token sequences, expected at most {}",
                                         spec.bad_words.size(), limits.max_bad_words));
    return;
  }
  for (const std::vector<int32_t>& word : spec.bad_words) {
    if (word.empty() || word.size() > static_cast<size_t>(limits.max_bad_word_tokens)) {
      check->Fail("bad_words", fmt::format("a word of {} tokens, expected 1 to {}",
                                           word.size(), limits.max_bad_word_tokens));
    } else if (!std::all_of(word.begin(), word.end(),
                            [&](int32_t id) { return IsTokenId(id, limits); })) {
      check->Fail("bad_words", fmt::format("a token id that is none of 0 to {}",
                                           limits.num_token_ids - 1));
    }
  }
}

// Rising, each once.
std::vector<int32_t> CheckAllowedIds(const RequestSpec& spec, const RequestLimits& limits,
                                     Checker* check) {
  std::vector<int32_t> ids = spec.allowed_token_ids.value_or(std::vector<int32_t>());
  if (!spec.allowed_token_ids.has_value()) {
    return ids;
  }
  if (ids.empty() || ids.size() > static_cast<size_t>(limits.max_allowed_token_ids)) {
    check->Fail("allowed_token_ids", fmt::format("{} ids, expected 1 to {}", ids.size(),
                                                 limits.max_allowed_token_ids));
    return {};
  }
  for (const int32_t id : ids) {
    if (!IsTokenId(id, limits)) {
      check->Fail("allowed_token_ids", fmt::format("token id {}, expected 0 to {}", id,
                                                   limits.num_token_ids - 1));
    }
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

int32_t CheckPromptLogprobs(const RequestSpec& spec, const RequestLimits& limits,
                            Checker* check) {
  const auto count = static_cast<int32_t>(check->Integer(
      "prompt_logprobs", spec.prompt_logprobs, -1, 0, limits.max_logprobs));
  const int64_t total = std::ssize(spec.prompt_ids) * (count + 1);
  if (total > limits.max_prompt_logprobs) {
    check->Fail(
        "prompt_logprobs",
        fmt::format("{} log-probabilities of {} tokens, expected at most {} in "
                    "all",
                    count + 1, spec.prompt_ids.size(), limits.max_prompt_logprobs));
  }
  return count;
}

// Something must be left to choose while no stop id may be chosen.
void CheckChoiceLeft(const std::vector<int32_t>& allowed, int32_t min_tokens,
                     const std::vector<int32_t>& stop_ids, Checker* check) {
  const bool none_left = std::all_of(allowed.begin(), allowed.end(), [&](int32_t id) {
    return std::find(stop_ids.begin(), stop_ids.end(), id) != stop_ids.end();
  });
  if (min_tokens > 0 && !allowed.empty() && none_left) {
    check->Fail("allowed_token_ids",
                "every allowed token ends the answer, and min_tokens forbids that");
  }
}

proto::SamplingParams CheckSampling(const RequestSpec& spec, const RequestLimits& limits,
                                    Checker* check) {
  proto::SamplingParams out;
  out.temperature =
      check->Real("temperature", spec.temperature, 1.0, 0.0, kMaxTemperature);
  out.top_p = check->Real("top_p", spec.top_p, 1.0, 0.0, 1.0, /*open_low=*/true);
  out.min_p = check->Real("min_p", spec.min_p, 0.0, 0.0, 1.0);
  out.repetition_penalty = check->Real("repetition_penalty", spec.repetition_penalty, 1.0,
                                       0.0, kMaxRepetitionPenalty, /*open_low=*/true);
  out.presence_penalty = check->Real("presence_penalty", spec.presence_penalty, 0.0,
                                     -kMaxPenalty, kMaxPenalty);
  out.frequency_penalty = check->Real("frequency_penalty", spec.frequency_penalty, 0.0,
                                      -kMaxPenalty, kMaxPenalty);
  // -1 is how vLLM's users spell "all"; a top_k of the whole vocabulary means the same.
  const int64_t top_k =
      check->Integer("top_k", spec.top_k, 0, -1, std::numeric_limits<int32_t>::max());
  out.top_k = top_k < 0 || top_k >= limits.vocab_size ? 0 : static_cast<int32_t>(top_k);
  out.num_logprobs = static_cast<int32_t>(
      check->Integer("logprobs", spec.logprobs, -1, 0, limits.max_logprobs));
  out.logit_bias = CheckLogitBias(spec, limits, check);
  CheckBadWords(spec, limits, check);
  out.bad_words = spec.bad_words;
  out.allowed_token_ids = CheckAllowedIds(spec, limits, check);
  out.num_prompt_logprobs = CheckPromptLogprobs(spec, limits, check);
  return out;
}

// The client's ids, then eos unless it is to be ignored; each once.
std::vector<int32_t> MergeStopIds(const RequestSpec& spec, const RequestLimits& limits) {
  std::vector<int32_t> ids;
  const auto add = [&ids](const std::vector<int32_t>& more) {
    for (const int32_t id : more) {
      if (std::find(ids.begin(), ids.end(), id) == ids.end()) {
        ids.push_back(id);
      }
    }
  };
  add(spec.stop_token_ids);
  if (!spec.ignore_eos) {
    add(limits.eos_token_ids);
  }
  return ids;
}

}  // namespace

absl::StatusOr<ValidatedRequest> ValidatedRequest::Create(RequestSpec spec,
                                                          const RequestLimits& limits,
                                                          absl::Time now,
                                                          uint64_t default_seed,
                                                          FieldError* error) {
  Checker check;
  ValidatedRequest request;
  CheckIdentifiers(spec, &check);
  CheckPrompt(spec, limits, &check);
  request.max_tokens_ = check.ok() ? CheckMaxTokens(spec, limits, &check) : 0;
  CheckStops(spec, limits, &check);
  request.num_choices_ =
      static_cast<int32_t>(check.Integer("n", spec.n, 1, 1, limits.max_choices));
  request.sampling_ = CheckSampling(spec, limits, &check);
  request.sampling_.min_tokens = static_cast<int32_t>(check.Integer(
      "min_tokens", spec.min_tokens, 0, 0,
      std::min<int64_t>(request.max_tokens_, std::numeric_limits<int32_t>::max())));
  request.sampling_.seed =
      spec.seed.has_value() ? static_cast<uint64_t>(*spec.seed) : default_seed;
  const absl::Duration timeout = spec.timeout.value_or(limits.default_timeout);
  if (timeout <= absl::ZeroDuration() || timeout > limits.max_timeout) {
    check.Fail("timeout", fmt::format("timeout of {} s, expected more than 0 to {} s",
                                      absl::ToDoubleSeconds(timeout),
                                      absl::ToDoubleSeconds(limits.max_timeout)));
  }
  const std::vector<int32_t> stop_ids = MergeStopIds(spec, limits);
  CheckChoiceLeft(request.sampling_.allowed_token_ids, request.sampling_.min_tokens,
                  stop_ids, &check);
  const bool ends_otherwise = spec.ignore_eos || request.sampling_.min_tokens > 0 ||
                              !request.sampling_.allowed_token_ids.empty();
  if (spec.grammar.has_value() && spec.grammar->advisory && ends_otherwise) {
    spec.grammar.reset();  // nobody asked for it
  }
  if (spec.grammar.has_value() && spec.ignore_eos) {
    check.Fail("ignore_eos", "structured output ends where its grammar does");
  }
  if (spec.grammar.has_value() && request.sampling_.min_tokens > 0) {
    check.Fail("min_tokens", "structured output ends where its grammar does");
  }
  if (spec.grammar.has_value() && !request.sampling_.allowed_token_ids.empty()) {
    check.Fail("allowed_token_ids", "structured output has its own allowed tokens");
  }
  if (!check.ok()) {
    if (error != nullptr) {
      *error = check.error();
    }
    return check.error().status;
  }
  spec.stop_token_ids = stop_ids;
  if (request.sampling_.min_tokens > 0) {
    request.sampling_.stop_token_ids = spec.stop_token_ids;
  }
  request.arrival_ = now;
  request.deadline_ = now + timeout;
  request.spec_ = std::move(spec);
  return request;
}

proto::SamplingParams ValidatedRequest::sampling(int32_t choice) const {
  proto::SamplingParams params = sampling_;
  params.choice_index = static_cast<uint32_t>(choice);
  if (choice > 0) {
    params.num_prompt_logprobs = -1;
  }
  return params;
}

}  // namespace tessera::coordinator
