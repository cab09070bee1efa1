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

// row i *= factors[i]; rows lie close.
void ScaleRows(const float* factors, int64_t rows, int64_t length, float* values) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < length; ++i) {
      values[row * length + i] *= factors[row];
    }
  }
}

// What RunExpert and RunRoundedExpert share: gate and up of some items, and their place.
struct ExpertBlock {
  int64_t item;
  int64_t count;
  float* gate;  // [count, m]
  float* up;
};

// gate = silu(gate) up, times the items' weights where they come before `down`.
void Activate(const CpuContext& context, const GroupedExpertsArgs& args,
              const ExpertBlock& block, int64_t inner) {
  context.simd().silu_mul(block.gate, block.up, ActivationLimit(args.swiglu_limit),
                          block.gate, block.count * inner);
  if (args.item_weights.rank > 0) {
    ScaleRows(args.item_weights.as<float>() + block.item, block.count, inner, block.gate);
  }
}

// One expert over its items, a block of items at a time so that both inner activations
// fit scratch.
void RunExpert(CpuContext& context, const GroupedExpertsArgs& args, int64_t expert,
               int thread) {
  const ExpertWeights& weights = args.experts[static_cast<size_t>(expert)];
  const int32_t* offsets = args.item_offsets.as<int32_t>();
  const int64_t inner = weights.gate.rows;
  const int64_t most = kScratchFloats / (2 * inner);
  const CpuContext::ThreadScratch& scratch = context.scratch(thread);
  LinearTask task = {};
  task.num_leaves = 1;
  task.scratch = scratch.panel;
  task.scratch_floats = kScratchFloats;
  for (int64_t item = offsets[expert]; item < offsets[expert + 1]; item += most) {
    task.count = std::min<int64_t>(most, offsets[expert + 1] - item);
    const ExpertBlock block = {item, task.count, scratch.rows,
                               scratch.rows + task.count * inner};
    task.x = args.x.as<float>();
    task.x_stride = args.x.stride(0);
    task.x_rows = args.row_of_item.as<int32_t>() + item;
    task.leaf_begin[1] = args.x.dim(1);
    task.row_end = inner;
    task.out_stride = inner;
    task.weights = ToWeightRows(weights.gate);
    task.out = block.gate;
    context.simd().linear(task);
    task.weights = ToWeightRows(weights.up);
    task.out = block.up;
    context.simd().linear(task);
    Activate(context, args, block, inner);
    task.x = block.gate;
    task.x_stride = inner;
    task.x_rows = nullptr;
    task.leaf_begin[1] = inner;
    task.row_end = weights.down.rows;
    task.weights = ToWeightRows(weights.down);
    task.out = args.out.row<float>(item);
    task.out_stride = args.out.stride(0);
    context.simd().linear(task);
  }
}

// Whether products with `w` may have their inputs in 8 bits: a property of the weight
// alone.
bool TakesInt8(const WeightView& w) {
  return w.dtype == DType::kFp4 && w.has_scales() && w.block_rows == 1 &&
         w.block_cols == kInt8GroupValues && w.cols % kInt8GroupValues == 0 &&
         w.col_offset % kInt8GroupValues == 0;
}

int64_t Int8Blocks(int64_t values) {
  return (values + kInt8BlockValues - 1) / kInt8BlockValues;
}

// Room for `rows` rows of `blocks` blocks at `at`.
Int8Rows Int8RowsAt(float* at, int64_t rows, int64_t blocks) {
  float* scales = at + rows * blocks * kInt8BlockValues / 4;
  return {reinterpret_cast<int8_t*>(at), scales,
          reinterpret_cast<int32_t*>(scales + rows * blocks * 16), blocks};
}

// As RunExpert with inputs in 8 bits, which take the place of decoded weights in scratch.
void RunRoundedExpert(CpuContext& context, const GroupedExpertsArgs& args, int64_t expert,
                      int thread) {
  const ExpertWeights& weights = args.experts[static_cast<size_t>(expert)];
  const int32_t* offsets = args.item_offsets.as<int32_t>();
  const int64_t inner = weights.gate.rows;
  const int64_t inputs = args.x.dim(1);
  const int64_t blocks = Int8Blocks(std::max(inputs, inner));
  const int64_t most = std::min(kScratchFloats / (2 * inner),
                                kScratchFloats / (blocks * kInt8BlockFloats));
  const CpuContext::ThreadScratch& scratch = context.scratch(thread);
  const SimdOps& simd = context.simd();
  for (int64_t item = offsets[expert]; item < offsets[expert + 1]; item += most) {
    const int64_t count = std::min<int64_t>(most, offsets[expert + 1] - item);
    const ExpertBlock block = {item, count, scratch.rows, scratch.rows + count * inner};
    Int8Task task = {};
    task.count = count;
    task.inputs = inputs;
    task.x = Int8RowsAt(scratch.panel, count, Int8Blocks(inputs));
    for (int64_t i = 0; i < count; ++i) {
      const int32_t row = args.row_of_item.as<int32_t>()[item + i];
      simd.quantize_int8(args.x.row<float>(row), inputs, task.x, i);
    }
    task.row_end = inner;
    task.out_stride = inner;
    task.weights = ToWeightRows(weights.gate);
    task.out = block.gate;
    simd.int8_linear(task);
    task.weights = ToWeightRows(weights.up);
    task.out = block.up;
    simd.int8_linear(task);
    Activate(context, args, block, inner);
    task.inputs = inner;
    task.x = Int8RowsAt(scratch.panel, count, Int8Blocks(inner));
    for (int64_t i = 0; i < count; ++i) {
      simd.quantize_int8(block.gate + i * inner, inner, task.x, i);
    }
    task.row_end = weights.down.rows;
    task.weights = ToWeightRows(weights.down);
    task.out = args.out.row<float>(item);
    task.out_stride = args.out.stride(0);
    simd.int8_linear(task);
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

void GroupedExperts(CpuContext& context, const GroupedExpertsArgs& args) {
  const auto experts = static_cast<int64_t>(args.experts.size());
  TESSERA_CHECK_EQ(args.item_offsets.dim(0), experts + 1);
  const int32_t* offsets = args.item_offsets.as<int32_t>();
  // The weight of an expert: decoding it costs as much as about kDecodeItems items.
  constexpr int64_t kDecodeItems = 4;
  int64_t total = 0;
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t items = offsets[e + 1] - offsets[e];
    total += items > 0 ? items + kDecodeItems : 0;
  }
  if (total == 0) {
    return;
  }
  const ExpertWeights& first = args.experts[0];
  TESSERA_CHECK_LE(2 * first.gate.rows, kScratchFloats);
  TESSERA_CHECK_LE(first.gate.cols + kInt8BlockValues, kScratchFloats);
  const int64_t work = total * first.gate.rows * first.gate.cols * 3;
  const bool rounded = context.rounds_experts() && TakesInt8(first.gate) &&
                       TakesInt8(first.up) && TakesInt8(first.down);
  context.ParallelFor(total, work, [&](int64_t begin, int64_t end, int thread) {
    // An expert belongs to the thread whose part of the total weight holds its middle.
    int64_t before = 0;
    for (int64_t e = 0; e < experts; ++e) {
      const int64_t items = offsets[e + 1] - offsets[e];
      if (items == 0) {
        continue;
      }
      const int64_t weight = items + kDecodeItems;
      const int64_t middle = before + weight / 2;
      before += weight;
      if (middle >= begin && middle < end) {
        rounded ? RunRoundedExpert(context, args, e, thread)
                : RunExpert(context, args, e, thread);
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
