// Sampler: the next token from one row of logits. The draw is a pure function of (seed,
// choice, position), the logits and the mask, so every rank of a TP group, every batch
// and every replay picks the same token. Order of the steps: logit bias, penalties, masks
// (allowed ids, min_tokens, the mask of a grammar, to which those yield, ids that the
// model cannot take as inputs, bad words); then greedy, or temperature, top-k, min-p,
// top-p and an inverse-CDF draw over what remains, in falling probability.
#ifndef TESSERA_WORKER_RUNNER_SAMPLER_H_
#define TESSERA_WORKER_RUNNER_SAMPLER_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "proto/step_plan.h"

namespace tessera::worker {

// What the sampler may look at of a sequence.
struct SamplingHistory {
  std::span<const int32_t> tokens;  // prompt, then generated
  int64_t prompt_length = 0;
  // Bit t % 32 of mask[t / 32]: token t may be chosen. Empty: every one.
  std::span<const uint32_t> mask = {};
};

// Allocates at construction only, apart from the list of best tokens that a caller asked
// for. Step thread only.
class Sampler {
 public:
  explicit Sampler(int64_t vocab_size) : Sampler(vocab_size, vocab_size) {}
  // Ids from `num_token_ids` on have logits and no token: they are never chosen, since no
  // step could go on from them.
  Sampler(int64_t vocab_size, int64_t num_token_ids);

  // `logits` [V] as the backend's activation type; the token will stand at position
  // history.tokens.size(). Ties go to the lower id. kDataLoss: a logit is not finite, so
  // nothing may be served from this step.
  template <typename T>
  absl::StatusOr<proto::SampledToken> Sample(std::span<const T> logits,
                                             const proto::SamplingParams& params,
                                             const SamplingHistory& history);
  // The log-probability of `token` as it stands at `position`, and the `num_logprobs`
  // best. kDataLoss as above.
  template <typename T>
  absl::StatusOr<proto::SampledToken> Score(std::span<const T> logits, int32_t token,
                                            int64_t position, int32_t num_logprobs);
  // The token alone, without log-probabilities.
  template <typename T>
  absl::StatusOr<int32_t> Choose(std::span<const T> logits,
                                 const proto::SamplingParams& params,
                                 const SamplingHistory& history);

 private:
  struct Candidate {
    double logit;
    int32_t token;
  };
  template <typename T>
  absl::Status TakeRaw(std::span<const T> logits, int64_t position);
  void ApplyBiasAndPenalties(const proto::SamplingParams& params,
                             const SamplingHistory& history);
  // What must not be chosen, whatever its logit.
  void ApplyMasks(const proto::SamplingParams& params, const SamplingHistory& history);
  // Leaves what `mask` allows. Where nothing of it is left, what it allows of the raw
  // logits: a grammar that is complete goes before min_tokens.
  void ApplyMask(std::span<const uint32_t> mask);
  // Masks the last tokens of words that `generated` ends with, unless nothing is left.
  void ApplyBadWords(const proto::SamplingParams& params,
                     std::span<const int32_t> generated);
  int32_t Draw(const proto::SamplingParams& params, uint64_t position);
  static bool IsBetter(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  }
  std::vector<Candidate>::iterator At(size_t i) {
    return candidates_.begin() + static_cast<std::ptrdiff_t>(i);
  }
  double Weight(const Candidate& candidate) const {
    return std::exp((candidate.logit - largest_) / temperature_);
  }
  // Makes the first num_kept_ candidates those that top_k and min_p allow, in any order.
  void Keep(const proto::SamplingParams& params);
  // Of these, the best that together have top_p of the weight, sorted.
  void KeepTopP(double top_p);
  // The weight of the kept candidate of a rank; ranks rise by one. Sorts no further than
  // it is asked: a draw mostly ends among a few of a hundred thousand tokens.
  double WeightOfRank(size_t rank);
  void FillLogprobs(int32_t num_logprobs, proto::SampledToken& out);

  const size_t num_token_ids_;
  std::vector<double> raw_;       // [V] as the model gave them
  std::vector<double> adjusted_;  // [V]
  std::vector<int32_t> counts_;   // [V] generated occurrences; zero between calls
  std::vector<Candidate> candidates_;
  // Of the draw at hand.
  size_t num_kept_ = 0;
  size_t num_sorted_ = 0;        // of the kept ones, the best
  std::vector<double> weights_;  // of the sorted ones: exponentials below the best
  double total_ = 0;             // weight of the kept ones
  double largest_ = 0;           // logit
  double temperature_ = 1;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_SAMPLER_H_
