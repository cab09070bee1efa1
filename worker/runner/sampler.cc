#include "worker/runner/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/counter_rng.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "proto/step_plan.h"

namespace tessera::worker {
namespace {

constexpr double kMasked = -std::numeric_limits<double>::infinity();

// The first of the largest values, and whether all are finite.
struct Largest {
  size_t place = 0;
  bool finite = true;
};

// Bits of floats, those of negative ones inverted, are ordered as the floats are: a loop
// over integers that has no branch.
template <typename T>
Largest FindLargest(std::span<const T> values) {
  using Bits = std::conditional_t<sizeof(T) == sizeof(int32_t), int32_t, int64_t>;
  constexpr Bits kMagnitude = std::numeric_limits<Bits>::max();
  constexpr Bits kInfinity = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  constexpr int kSignShift = 8 * sizeof(Bits) - 1;
  constexpr size_t kLanes = 64 / sizeof(T);
  Bits largest[kLanes];
  Bits magnitude[kLanes] = {};
  std::fill_n(largest, kLanes, std::numeric_limits<Bits>::min());
  const auto take = [&](size_t lane, T value) {
    const Bits bits = std::bit_cast<Bits>(value);
    const Bits ordered = bits ^ ((bits >> kSignShift) & kMagnitude);
    largest[lane] = std::max(largest[lane], ordered);
    magnitude[lane] = std::max(magnitude[lane], bits & kMagnitude);
  };
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      take(lane, values[i + lane]);
    }
  }
  for (; i < values.size(); ++i) {
    take(0, values[i]);
  }
  const Bits ordered = *std::max_element(largest, largest + kLanes);
  const T value = std::bit_cast<T>(ordered ^ ((ordered >> kSignShift) & kMagnitude));
  // By value: of two zeros the first one.
  const auto place = std::find(values.begin(), values.end(), value) - values.begin();
  return {.place = static_cast<size_t>(place),
          .finite = *std::max_element(magnitude, magnitude + kLanes) < kInfinity};
}

size_t ArgMax(std::span<const double> values) { return FindLargest(values).place; }

// Whether the token is the largest logit as the model gave it.
bool IsPlainGreedy(const proto::SamplingParams& params, const SamplingHistory& history) {
  const int64_t generated = std::ssize(history.tokens) - history.prompt_length;
  return params.temperature == 0.0f && params.logit_bias.empty() &&
         params.repetition_penalty == 1.0f && params.presence_penalty == 0.0f &&
         params.frequency_penalty == 0.0f && params.allowed_token_ids.empty() &&
         params.bad_words.empty() && history.mask.empty() &&
         (params.stop_token_ids.empty() || generated >= params.min_tokens);
}

}  // namespace

Sampler::Sampler(int64_t vocab_size, int64_t num_token_ids)
    : num_token_ids_(static_cast<size_t>(num_token_ids)),
      raw_(static_cast<size_t>(vocab_size)),
      adjusted_(static_cast<size_t>(vocab_size)),
      counts_(static_cast<size_t>(vocab_size)),
      candidates_(static_cast<size_t>(vocab_size)),
      weights_(static_cast<size_t>(vocab_size)) {
  TESSERA_CHECK(0 < num_token_ids && num_token_ids <= vocab_size);
}

void Sampler::ApplyBiasAndPenalties(const proto::SamplingParams& params,
                                    const SamplingHistory& history) {
  for (const auto& [token, bias] : params.logit_bias) {
    adjusted_[static_cast<size_t>(token)] += static_cast<double>(bias);
  }
  const auto prompt_length = static_cast<size_t>(history.prompt_length);
  const auto generated = history.tokens.subspan(prompt_length);
  if (params.repetition_penalty != 1.0f) {
    const auto penalty = static_cast<double>(params.repetition_penalty);
    for (const int32_t token : history.tokens) {
      if (counts_[static_cast<size_t>(token)]++ == 0) {
        double& logit = adjusted_[static_cast<size_t>(token)];
        logit = logit > 0 ? logit / penalty : logit * penalty;
      }
    }
    for (const int32_t token : history.tokens) {
      counts_[static_cast<size_t>(token)] = 0;
    }
  }
  if (params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f) {
    for (const int32_t token : generated) {
      ++counts_[static_cast<size_t>(token)];
    }
    for (const int32_t token : generated) {
      int32_t& count = counts_[static_cast<size_t>(token)];
      if (count > 0) {
        adjusted_[static_cast<size_t>(token)] -=
            static_cast<double>(params.presence_penalty) +
            static_cast<double>(params.frequency_penalty) * count;
        count = 0;
      }
    }
  }
}

void Sampler::ApplyBadWords(const proto::SamplingParams& params,
                            std::span<const int32_t> generated) {
  const size_t best = ArgMax(adjusted_);
  const double logit_of_best = adjusted_[best];
  for (const std::vector<int32_t>& word : params.bad_words) {
    const auto before = std::span(word).first(word.size() - 1);
    if (before.size() <= generated.size() &&
        std::equal(before.begin(), before.end(), generated.end() - std::ssize(before))) {
      adjusted_[static_cast<size_t>(word.back())] = kMasked;
    }
  }
  if (adjusted_[ArgMax(adjusted_)] == kMasked) {
    adjusted_[best] = logit_of_best;  // else nothing would be left
  }
}

void Sampler::ApplyMasks(const proto::SamplingParams& params,
                         const SamplingHistory& history) {
  const auto generated =
      history.tokens.subspan(static_cast<size_t>(history.prompt_length));
  if (!params.allowed_token_ids.empty()) {
    // Both rise: what lies between two allowed ids is masked.
    size_t at = 0;
    for (const int32_t allowed : params.allowed_token_ids) {
      const auto end = std::min(static_cast<size_t>(allowed), adjusted_.size());
      std::fill(adjusted_.begin() + static_cast<std::ptrdiff_t>(at),
                adjusted_.begin() + static_cast<std::ptrdiff_t>(end), kMasked);
      at = std::min(end + 1, adjusted_.size());
    }
    std::fill(adjusted_.begin() + static_cast<std::ptrdiff_t>(at), adjusted_.end(),
              kMasked);
  }
  if (static_cast<int64_t>(generated.size()) < params.min_tokens) {
    for (const int32_t token : params.stop_token_ids) {
      adjusted_[static_cast<size_t>(token)] = kMasked;
    }
  }
  if (!history.mask.empty()) {
    ApplyMask(history.mask);
  }
  // After the bias, which a request chooses.
  std::fill(adjusted_.begin() + static_cast<std::ptrdiff_t>(num_token_ids_),
            adjusted_.end(), kMasked);
  if (!params.bad_words.empty()) {
    ApplyBadWords(params, generated);
  }
}

void Sampler::ApplyMask(std::span<const uint32_t> mask) {
  const auto allows = [mask](size_t token) {
    return (mask[token / 32] >> (token % 32) & 1) != 0;
  };
  bool any = false;
  for (size_t i = 0; i < num_token_ids_; ++i) {
    if (!allows(i)) {
      adjusted_[i] = kMasked;
    }
    any = any || adjusted_[i] != kMasked;
  }
  for (size_t i = 0; i < num_token_ids_ && !any; ++i) {
    adjusted_[i] = allows(i) ? raw_[i] : kMasked;
  }
}

void Sampler::Keep(const proto::SamplingParams& params) {
  const size_t vocab = adjusted_.size();
  for (size_t i = 0; i < vocab; ++i) {
    candidates_[i] = {adjusted_[i], static_cast<int32_t>(i)};
  }
  num_kept_ = vocab;
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < vocab) {
    num_kept_ = static_cast<size_t>(params.top_k);
    std::nth_element(candidates_.begin(), At(num_kept_ - 1), candidates_.end(), IsBetter);
  }
  num_sorted_ = 0;
  temperature_ = static_cast<double>(params.temperature);
  largest_ = candidates_[0].logit;
  for (size_t i = 1; i < num_kept_; ++i) {
    largest_ = std::max(largest_, candidates_[i].logit);
  }
  // The weight of the best is 1, so the ratio to the best is the weight itself.
  const auto floor = static_cast<double>(params.min_p);
  size_t kept = 0;
  total_ = 0;
  for (size_t i = 0; i < num_kept_; ++i) {
    const double weight = Weight(candidates_[i]);
    if (weight >= floor) {
      total_ += weight;
      std::swap(candidates_[kept++], candidates_[i]);
    }
  }
  num_kept_ = kept;
}

double Sampler::WeightOfRank(size_t rank) {
  if (rank == num_sorted_) {
    // Most draws end among the first few; each further part is eight times what is known.
    constexpr size_t kFirstPart = 128;
    const size_t end = std::min(num_kept_, std::max(kFirstPart, 9 * num_sorted_));
    if (end < num_kept_) {
      std::nth_element(At(num_sorted_), At(end - 1), At(num_kept_), IsBetter);
    }
    std::sort(At(num_sorted_), At(end), IsBetter);
    for (; num_sorted_ < end; ++num_sorted_) {
      weights_[num_sorted_] = Weight(candidates_[num_sorted_]);
    }
  }
  return weights_[rank];
}

void Sampler::KeepTopP(double top_p) {
  const double target = total_ * top_p;
  double sum = 0;
  size_t rank = 0;
  while (rank < num_kept_ && (rank == 0 || sum < target)) {
    sum += WeightOfRank(rank++);
  }
  num_kept_ = rank;
  total_ = sum;
}

int32_t Sampler::Draw(const proto::SamplingParams& params, uint64_t position) {
  Keep(params);
  if (params.top_p < 1.0f) {
    KeepTopP(static_cast<double>(params.top_p));
  }
  const double target =
      CounterRng(params.seed, params.choice_index).Uniform(position) * total_;
  double sum = 0;
  size_t last = 0;  // of those with a weight: what is masked has none
  for (size_t rank = 0; rank < num_kept_; ++rank) {
    const double weight = WeightOfRank(rank);
    if (weight == 0) {
      break;
    }
    sum += weight;
    last = rank;
    if (target < sum) {
      break;
    }
  }
  return candidates_[last].token;  // rounding of the sums may lead to the last one
}

void Sampler::FillLogprobs(int32_t num_logprobs, proto::SampledToken& out) {
  const double largest = raw_[ArgMax(raw_)];
  double sum = 0;
  for (const double logit : raw_) {
    sum += std::exp(logit - largest);
  }
  const double log_sum = largest + std::log(sum);
  out.logprob = static_cast<float>(raw_[static_cast<size_t>(out.token)] - log_sum);
  const size_t count = std::min(static_cast<size_t>(num_logprobs), raw_.size());
  if (count == 0) {
    return;
  }
  for (size_t i = 0; i < raw_.size(); ++i) {
    candidates_[i] = {raw_[i], static_cast<int32_t>(i)};
  }
  std::partial_sort(candidates_.begin(), At(count), candidates_.end(), IsBetter);
  out.top.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    out.top.push_back(
        {candidates_[i].token, static_cast<float>(candidates_[i].logit - log_sum)});
  }
}

template <typename T>
absl::Status Sampler::TakeRaw(std::span<const T> logits, int64_t position) {
  TESSERA_CHECK_EQ(logits.size(), raw_.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    raw_[i] = static_cast<double>(logits[i]);
    if (!std::isfinite(raw_[i])) {
      return DataLossF("logit {} of token {} at position {}", raw_[i], i, position);
    }
  }
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<proto::SampledToken> Sampler::Score(std::span<const T> logits,
                                                   int32_t token, int64_t position,
                                                   int32_t num_logprobs) {
  TESSERA_RETURN_IF_ERROR(TakeRaw(logits, position));
  proto::SampledToken out;
  out.token = token;
  out.position = static_cast<uint32_t>(position);
  FillLogprobs(num_logprobs, out);
  return out;
}

template <typename T>
absl::StatusOr<int32_t> Sampler::Choose(std::span<const T> logits,
                                        const proto::SamplingParams& params,
                                        const SamplingHistory& history) {
  TESSERA_CHECK_EQ(logits.size(), raw_.size());
  if (IsPlainGreedy(params, history)) {
    const Largest largest = FindLargest(logits.first(num_token_ids_));
    const Largest rest = FindLargest(logits.subspan(num_token_ids_));
    if (largest.finite && rest.finite) {
      return static_cast<int32_t>(largest.place);
    }
  }
  TESSERA_RETURN_IF_ERROR(TakeRaw(logits, std::ssize(history.tokens)));
  std::copy(raw_.begin(), raw_.end(), adjusted_.begin());
  ApplyBiasAndPenalties(params, history);
  ApplyMasks(params, history);
  const size_t best = ArgMax(adjusted_);
  if (adjusted_[best] == kMasked) {
    return InvalidArgumentF("nothing may be sampled at position {}",
                            history.tokens.size());
  }
  return params.temperature == 0.0f ? static_cast<int32_t>(best)
                                    : Draw(params, history.tokens.size());
}

template <typename T>
absl::StatusOr<proto::SampledToken> Sampler::Sample(std::span<const T> logits,
                                                    const proto::SamplingParams& params,
                                                    const SamplingHistory& history) {
  proto::SampledToken out;
  TESSERA_ASSIGN_OR_RETURN(out.token, Choose(logits, params, history));
  out.position = static_cast<uint32_t>(history.tokens.size());
  if (params.num_logprobs >= 0) {
    TESSERA_RETURN_IF_ERROR(TakeRaw(logits, out.position));
    FillLogprobs(params.num_logprobs, out);
  }
  return out;
}

template absl::StatusOr<proto::SampledToken> Sampler::Sample<float>(
    std::span<const float>, const proto::SamplingParams&, const SamplingHistory&);
template absl::StatusOr<proto::SampledToken> Sampler::Sample<double>(
    std::span<const double>, const proto::SamplingParams&, const SamplingHistory&);
template absl::StatusOr<proto::SampledToken> Sampler::Score<float>(std::span<const float>,
                                                                   int32_t, int64_t,
                                                                   int32_t);
template absl::StatusOr<proto::SampledToken> Sampler::Score<double>(
    std::span<const double>, int32_t, int64_t, int32_t);
template absl::StatusOr<int32_t> Sampler::Choose<float>(std::span<const float>,
                                                        const proto::SamplingParams&,
                                                        const SamplingHistory&);
template absl::StatusOr<int32_t> Sampler::Choose<double>(std::span<const double>,
                                                         const proto::SamplingParams&,
                                                         const SamplingHistory&);

}  // namespace tessera::worker
