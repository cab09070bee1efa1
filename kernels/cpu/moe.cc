#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

// Whether `value` is ahead of `best` in a selection by falling value; the earlier index
// stays ahead of an equal one because it is met first. NaN is ahead of every number, so
// that damage is picked and seen.
bool Ahead(float value, float best) {
  return value > best || (std::isnan(value) && !std::isnan(best));
}

// Writes the indices of the `count` best of values[0 .. n), best first, ties to the lower
// index. An insertion into the sorted picks: `count` is small, and most values fail the
// first comparison.
void TopIndices(const float* values, int64_t n, int64_t count, int32_t* picks) {
  int64_t held = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (held == count && !Ahead(values[i], values[picks[held - 1]])) {
      continue;
    }
    int64_t at = held < count ? held++ : held - 1;
    for (; at > 0 && Ahead(values[i], values[picks[at - 1]]); --at) {
      picks[at] = picks[at - 1];
    }
    picks[at] = static_cast<int32_t>(i);
  }
}

// Sets the biased scores of the experts outside the best groups to minus infinity.
void KeepTopGroups(const RouterArgs& args, float* biased, int64_t experts) {
  const int64_t size = experts / args.num_groups;
  float scores[kMaxGroups] = {};
  for (int64_t g = 0; g < args.num_groups; ++g) {
    int32_t best[2];
    const int64_t count = std::min<int64_t>(2, size);
    TopIndices(biased + g * size, size, count, best);
    scores[g] = 0;
    for (int64_t i = 0; i < count; ++i) {
      scores[g] += biased[g * size + best[i]];
    }
  }
  int32_t kept[kMaxGroups];
  TopIndices(scores, args.num_groups, args.top_groups, kept);
  std::sort(kept, kept + args.top_groups);
  int64_t next = 0;
  for (int64_t g = 0; g < args.num_groups; ++g) {
    if (next < args.top_groups && kept[next] == g) {
      ++next;
    } else {
      std::fill_n(biased + g * size, size, -std::numeric_limits<float>::infinity());
    }
  }
}

// sqrt(ln(1 + u)), u >= 0. In float64 and by a series, since std::log1p may choose its
// variant by processor: ln w = k ln 2 + 2 atanh((m - 1) / (m + 1)) for w = 2^k m with m
// in [0.75, 1.5); |argument| <= 0.2, so that the rest of the series is below 2^-36 of it.
// The last term gives back what 1 + u lost by rounding: small u keep all their digits.
float SqrtOfLog1p(float u) {
  const double w = 1.0 + static_cast<double>(u);
  const uint64_t bits = std::bit_cast<uint64_t>(w);
  // Half of the mantissa's range carries into the exponent from 1.5 on.
  const uint64_t carried = bits + (uint64_t{1} << 51);
  const auto k = static_cast<int64_t>(carried >> 52) - 1023;
  const double m = std::bit_cast<double>(bits - (static_cast<uint64_t>(k) << 52));
  const double s = (m - 1.0) / (m + 1.0);
  const double square = s * s;
  double series = 1.0 / 13.0;
  series = series * square + 1.0 / 11.0;
  series = series * square + 1.0 / 9.0;
  series = series * square + 1.0 / 7.0;
  series = series * square + 1.0 / 5.0;
  series = series * square + 1.0 / 3.0;
  series = series * square + 1.0;
  constexpr double kLn2 = 0x1.62e42fefa39efp-1;
  const double lost = (static_cast<double>(u) - (w - 1.0)) / w;
  return static_cast<float>(
      std::sqrt(static_cast<double>(k) * kLn2 + (2.0 * s * series + lost)));
}

// Logits to scores, in place; `scratch` holds as many values.
void ScoreLogits(const SimdOps& simd, RouterScore score, float* logits, int64_t n,
                 float* scratch) {
  if (score == RouterScore::kSigmoid) {
    simd.sigmoid(logits, logits, n);
    return;
  }
  simd.exp(logits, scratch, n);
  for (int64_t i = 0; i < n; ++i) {
    const float z = logits[i];
    // A NaN fails the comparison and passes through the square root.
    logits[i] = z <= 20.0F ? SqrtOfLog1p(scratch[i]) : std::sqrt(z);
  }
}

// `scores` of one token; `biased` is scratch of the same size.
void PickExperts(const RouterArgs& args, int64_t t, const float* scores, float* biased) {
  const int64_t experts = args.gate.rows;
  const int64_t slots = args.expert_ids.dim(1);
  if (args.positions.rank > 0 && *args.positions.row<int32_t>(t) < 0) {
    std::fill_n(args.expert_ids.row<int32_t>(t), slots, -1);
    std::fill_n(args.weights.row<float>(t), slots, 0.0F);
    return;
  }
  for (int64_t e = 0; e < experts; ++e) {
    biased[e] = scores[e] + (args.bias == nullptr ? 0.0F : args.bias[e]);
  }
  if (args.num_groups > 1) {
    KeepTopGroups(args, biased, experts);
  }
  int32_t* picks = args.expert_ids.row<int32_t>(t);
  float* weights = args.weights.row<float>(t);
  if (args.fixed_ids.rank > 0) {
    std::copy_n(args.fixed_ids.row<int32_t>(t), slots, picks);
  } else {
    TopIndices(biased, experts, slots, picks);
  }
  float total = 0;
  for (int64_t slot = 0; slot < slots; ++slot) {
    TESSERA_CHECK(picks[slot] >= 0 && picks[slot] < experts);
    weights[slot] = scores[picks[slot]];
    total += weights[slot];
  }
  for (int64_t slot = 0; slot < slots; ++slot) {
    const float weight =
        args.normalize ? weights[slot] / (total + 1e-20F) : weights[slot];
    weights[slot] = weight * static_cast<float>(args.scaling);
  }
}

}  // namespace

void Route(CpuContext& context, const RouterArgs& args) {
  const int64_t experts = args.gate.rows;
  TESSERA_CHECK_LE(experts, kScratchFloats);
  TESSERA_CHECK_LE(args.num_groups, kMaxGroups);
  TESSERA_CHECK_EQ(experts % args.num_groups, 0);
  TESSERA_CHECK_LE(args.expert_ids.dim(1), experts);
  const int64_t block = kScratchFloats / experts;
  for (int64_t first = 0; first < args.x.dim(0); first += block) {
    const int64_t count = std::min(block, args.x.dim(0) - first);
    Linear(context, args.x.Rows(first, count), args.gate, KSplit::Whole(),
           TensorView(context.shared(), DType::kF32, {count, experts}));
    context.ParallelFor(
        count, count * experts * 16, [&](int64_t begin, int64_t end, int thread) {
          for (int64_t i = begin; i < end; ++i) {
            float* scores = context.shared() + i * experts;
            float* scratch = context.scratch(thread).rows;
            ScoreLogits(context.simd(), args.score, scores, experts, scratch);
            PickExperts(args, first + i, scores, scratch);
          }
        });
  }
}

void LookupExperts(CpuContext& context, const int64_t* table, TensorView token_ids,
                   TensorView out) {
  const int64_t slots = out.dim(1);
  context.ParallelFor(
      out.dim(0), out.num_elements(), [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          const int64_t token = *token_ids.row<int32_t>(t);
          TESSERA_CHECK_LE(0, token);
          for (int64_t slot = 0; slot < slots; ++slot) {
            out.row<int32_t>(t)[slot] = static_cast<int32_t>(table[token * slots + slot]);
          }
        }
      });
}

void CombineExperts(CpuContext& context, TensorView y, TensorView row_of_slot,
                    TensorView weights, TensorView out) {
  context.ParallelFor(out.dim(0), out.num_elements() * weights.dim(1),
                      [&](int64_t begin, int64_t end, int) {
                        for (int64_t t = begin; t < end; ++t) {
                          context.simd().weighted_sum(
                              y.as<float>(), y.stride(0), row_of_slot.row<int32_t>(t),
                              weights.row<float>(t), weights.dim(1), out.row<float>(t),
                              out.dim(1));
                        }
                      });
}

}  // namespace tessera::kernels::cpu
