#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <vector>

#include "kernels/fp8_products.h"
#include "kernels/reference/reference_ops.h"
#include "kernels/reference/sums.h"
#include "kernels/reference/weight_decode.h"

namespace tessera::kernels::reference {
namespace {

// The `count` largest values, in falling order, ties to the lower index. NaN counts as
// the largest, so that damage is picked and seen.
template <typename T>
std::vector<int32_t> TopIndices(const std::vector<T>& values, int64_t count) {
  std::vector<int32_t> picks;
  std::vector<bool> taken(values.size(), false);
  for (int64_t slot = 0; slot < count; ++slot) {
    int64_t best = -1;
    for (size_t i = 0; i < values.size(); ++i) {
      if (taken[i]) {
        continue;
      }
      const bool first = best < 0;
      if (first || values[i] > values[static_cast<size_t>(best)] ||
          (std::isnan(values[i]) && !std::isnan(values[static_cast<size_t>(best)]))) {
        best = static_cast<int64_t>(i);
      }
    }
    TESSERA_CHECK(best >= 0);
    taken[static_cast<size_t>(best)] = true;
    picks.push_back(static_cast<int32_t>(best));
  }
  return picks;
}

// Sets the biased scores of the experts outside the best groups to minus infinity.
template <typename T>
void KeepTopGroups(const RouterArgs& args, std::vector<T>& biased) {
  const size_t groups = static_cast<size_t>(args.num_groups);
  const size_t size = biased.size() / groups;
  std::vector<T> score(groups);
  for (size_t g = 0; g < groups; ++g) {
    const auto from = biased.begin() + static_cast<int64_t>(g * size);
    const std::vector<T> members(from, from + static_cast<int64_t>(size));
    for (const int32_t best :
         TopIndices(members, std::min<int64_t>(2, std::ssize(members)))) {
      score[g] += members[static_cast<size_t>(best)];
    }
  }
  std::vector<bool> keep(groups, false);
  for (const int32_t g : TopIndices(score, args.top_groups)) {
    keep[static_cast<size_t>(g)] = true;
  }
  for (size_t e = 0; e < biased.size(); ++e) {
    if (!keep[e / size]) {
      biased[e] = -std::numeric_limits<T>::infinity();
    }
  }
}

template <typename T>
T Score(RouterScore score, T z) {
  if (score == RouterScore::kSigmoid) {
    return Sigmoid(z);
  }
  return std::sqrt(z > T{20} ? z : std::log1p(std::exp(z)));
}

template <typename T>
void RouteRow(const RouterArgs& args, int64_t t, const std::vector<T>& scores) {
  const int64_t slots = args.expert_ids.dim(1);
  if (args.positions.rank > 0 && *args.positions.row<int32_t>(t) < 0) {
    std::fill_n(args.expert_ids.row<int32_t>(t), slots, -1);
    std::fill_n(args.weights.row<T>(t), slots, T{0});
    return;
  }
  std::vector<T> biased(scores.size());
  for (size_t e = 0; e < scores.size(); ++e) {
    biased[e] = scores[e] + static_cast<T>(args.bias == nullptr ? 0.0F : args.bias[e]);
  }
  if (args.num_groups > 1) {
    KeepTopGroups(args, biased);
  }
  std::vector<int32_t> picks;
  if (args.fixed_ids.rank > 0) {
    const int32_t* fixed = args.fixed_ids.row<int32_t>(t);
    picks.assign(fixed, fixed + slots);
  } else {
    picks = TopIndices(biased, slots);
  }
  T total = 0;
  for (const int32_t pick : picks) {
    TESSERA_CHECK(pick >= 0 && pick < args.gate.rows);
    total += scores[static_cast<size_t>(pick)];
  }
  for (int64_t slot = 0; slot < slots; ++slot) {
    const int32_t pick = picks[static_cast<size_t>(slot)];
    T weight = scores[static_cast<size_t>(pick)];
    if (args.normalize) {
      weight /= total + static_cast<T>(1e-20);
    }
    args.expert_ids.row<int32_t>(t)[slot] = pick;
    args.weights.row<T>(t)[slot] = weight * static_cast<T>(args.scaling);
  }
}

// The items of expert `e`; `multiply(x, w, out)` makes a product. `Row`: of args.x.
template <typename T, typename Row = T, typename Multiply>
void RunExpert(const GroupedExpertsArgs& args, size_t e, Multiply multiply) {
  const int32_t* offsets = args.item_offsets.as<int32_t>();
  const int64_t begin = offsets[e];
  const int64_t count = offsets[e + 1] - begin;
  if (count == 0) {
    return;
  }
  const ExpertWeights& expert = args.experts[e];
  const int64_t inner = expert.gate.rows;
  std::vector<Row> rows(static_cast<size_t>(count * args.x.dim(1)));
  std::vector<T> gate(static_cast<size_t>(count * inner));
  std::vector<T> up(static_cast<size_t>(count * inner));
  const TensorView x(rows.data(), kDTypeOf<Row>, {count, args.x.dim(1)});
  const TensorView gate_view(gate.data(), kDTypeOf<T>, {count, inner});
  const TensorView up_view(up.data(), kDTypeOf<T>, {count, inner});
  GatherRows<Row>(args.x, args.row_of_item.Slice(0, begin, count), x);
  multiply(x, expert.gate, gate_view);
  multiply(x, expert.up, up_view);
  SiluMul<T>(gate_view, up_view, args.swiglu_limit, gate_view);
  for (int64_t i = 0; args.item_weights.rank > 0 && i < count; ++i) {
    Scale<T>(gate_view.Rows(i, 1),
             static_cast<double>(args.item_weights.as<T>()[begin + i]));
  }
  multiply(gate_view, expert.down, args.out.Rows(begin, count));
}

}  // namespace

template <typename T>
void Route(const RouterArgs& args) {
  const int64_t tokens = args.x.dim(0);
  const int64_t experts = args.gate.rows;
  std::vector<T> logits(static_cast<size_t>(tokens * experts));
  const TensorView all(logits.data(), kDTypeOf<T>, {tokens, experts});
  Linear<T>(args.x, args.gate, KSplit::Whole(), all);
  std::vector<T> scores(static_cast<size_t>(experts));
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t e = 0; e < experts; ++e) {
      scores[static_cast<size_t>(e)] = Score(args.score, all.row<T>(t)[e]);
    }
    RouteRow(args, t, scores);
  }
}

void LookupExperts(const int64_t* table, TensorView token_ids, TensorView out) {
  const int64_t slots = out.dim(1);
  for (int64_t t = 0; t < out.dim(0); ++t) {
    const int64_t token = *token_ids.row<int32_t>(t);
    TESSERA_CHECK_LE(0, token);
    for (int64_t slot = 0; slot < slots; ++slot) {
      out.row<int32_t>(t)[slot] = static_cast<int32_t>(table[token * slots + slot]);
    }
  }
}

template <typename T>
void GroupedExperts(const GroupedExpertsArgs& args) {
  for (size_t e = 0; e < args.experts.size(); ++e) {
    RunExpert<T>(args, e, [](TensorView x, const WeightView& w, TensorView out) {
      Linear<T>(x, w, KSplit::Whole(), out);
    });
  }
}

void Fp8GroupedExperts(const GroupedExpertsArgs& args) {
  for (size_t e = 0; e < args.experts.size(); ++e) {
    const bool rounds = IsFp8Expert(args.experts[e]);
    const auto multiply = [&](TensorView x, const WeightView& w, TensorView out) {
      (rounds ? Fp8Linear : Linear<float>)(x, w, KSplit::Whole(), out);
    };
    if (args.x.dtype == DType::kU8) {
      TESSERA_CHECK(rounds);
      RunExpert<float, uint8_t>(args, e, multiply);
    } else {
      RunExpert<float>(args, e, multiply);
    }
  }
}

template <typename T>
void CombineExperts(TensorView y, TensorView row_of_slot, TensorView weights,
                    TensorView out) {
  for (int64_t t = 0; t < out.dim(0); ++t) {
    for (int64_t i = 0; i < out.dim(1); ++i) {
      T sum = 0;
      for (int64_t slot = 0; slot < weights.dim(1); ++slot) {
        const int64_t row = row_of_slot.row<int32_t>(t)[slot];
        if (row >= 0) {
          sum = MulAdd(weights.row<T>(t)[slot], y.row<T>(row)[i], sum);
        }
      }
      out.row<T>(t)[i] = sum;
    }
  }
}

#define TESSERA_INSTANTIATE(T)                                \
  template void Route<T>(const RouterArgs&);                  \
  template void GroupedExperts<T>(const GroupedExpertsArgs&); \
  template void CombineExperts<T>(TensorView, TensorView, TensorView, TensorView);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernels::reference
