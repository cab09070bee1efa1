// Shard invariance of a contraction that ranks split: the partial sums of tp ranks, added
// pairwise, have the bits of one rank that holds all leaves.
#include <cstring>
#include <iterator>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"

#include "tests/parity/op_run.h"

namespace tessera::parity {
namespace {

using kernels::BackendOptions;
using kernels::KSplit;

constexpr int64_t kRows = 3;
constexpr int64_t kOutputs = 21;

struct LeafTreeParam {
  std::string backend;
  std::string isa;
  int64_t inputs;
};

class LeafTree : public testing::TestWithParam<LeafTreeParam> {};

// out [kRows, kOutputs] of the ranks' partial sums, rank by rank.
std::vector<std::vector<float>> Partials(KernelBackend& backend, WeightKind kind,
                                         int64_t inputs, int tp) {
  std::vector<std::vector<float>> partials;
  const int leaves = KSplit::kLeaves / tp;
  OpRun run(backend, 7, RowMode::kTogether);
  const TensorView x = run.Random({kRows, inputs});
  const WeightView w = run.Weight(kind, kOutputs, inputs);
  for (int rank = 0; rank < tp; ++rank) {
    const KSplit split{inputs, rank * leaves, leaves};
    const int64_t begin = KSplit::LeafBegin(inputs, split.first_leaf);
    const int64_t count = KSplit::LeafBegin(inputs, split.first_leaf + leaves) - begin;
    std::vector<float> out(kRows * kOutputs);
    backend.Linear(run.stream(), x.Slice(1, begin, count), w.ColSlice(begin, count),
                   split, TensorView(out.data(), DType::kF32, {kRows, kOutputs}));
    partials.push_back(std::move(out));
  }
  return partials;
}

TEST_P(LeafTree, PartialsAddedPairwiseHaveTheBitsOfTheWhole) {
  const LeafTreeParam& param = GetParam();
  const auto backend =
      kernels::CreateBackend(BackendOptions{.name = param.backend, .cpu_isa = param.isa});
  if (!backend.ok()) {
    GTEST_SKIP() << backend.status();
  }
  std::vector<WeightKind> kinds(std::begin(kAllWeightKinds), std::end(kAllWeightKinds));
  kinds.insert(kinds.end(), std::begin(kPublishedBlocks), std::end(kPublishedBlocks));
  for (const WeightKind kind : kinds) {
    if ((kind == WeightKind::kFp4 || kind == WeightKind::kFp4Aligned) &&
        param.inputs % 16 != 0) {
      continue;  // a leaf would start inside a byte, which a rank cannot hold
    }
    const std::vector<float> whole = Partials(**backend, kind, param.inputs, 1)[0];
    for (const int tp : {2, 4, 8}) {
      std::vector<std::vector<float>> sums = Partials(**backend, kind, param.inputs, tp);
      for (size_t distance = 1; distance < sums.size(); distance *= 2) {
        for (size_t rank = 0; rank < sums.size(); rank += 2 * distance) {
          for (size_t i = 0; i < sums[rank].size(); ++i) {
            sums[rank][i] += sums[rank + distance][i];
          }
        }
      }
      EXPECT_EQ(std::memcmp(sums[0].data(), whole.data(), whole.size() * sizeof(float)),
                0)
          << WeightKindName(kind) << " at tp " << tp << ", inputs " << param.inputs;
    }
  }
}

// The tree is a promise about rounding, so it must differ from a single run of lanes
// somewhere.
TEST(LeafTreeOrder, ATreeOfLeavesIsNotOneRunOfLanes) {
  auto backend = kernels::CreateBackend({.name = "reference"});
  ASSERT_TRUE(backend.ok());
  OpRun run(**backend, 7, RowMode::kTogether);
  const TensorView x = run.Random({kRows, 1001});
  const WeightView w = run.Weight(WeightKind::kBf16, kOutputs, 1001);
  std::vector<float> tree(kRows * kOutputs);
  std::vector<float> lanes(kRows * kOutputs);
  (*backend)->Linear(run.stream(), x, w, KSplit{1001, 0, 8},
                     TensorView(tree.data(), DType::kF32, {kRows, kOutputs}));
  (*backend)->Linear(run.stream(), x, w, KSplit::Whole(),
                     TensorView(lanes.data(), DType::kF32, {kRows, kOutputs}));
  EXPECT_NE(tree, lanes);
}

std::vector<LeafTreeParam> AllParams() {
  std::vector<LeafTreeParam> params;
  for (const int64_t inputs : {5, 64, 256, 1001, 2048}) {
    params.push_back({"reference", "auto", inputs});
    for (const char* isa : {"scalar", "avx2", "avx512", "avx512vnni"}) {
      params.push_back({"cpu", isa, inputs});
    }
  }
  return params;
}

INSTANTIATE_TEST_SUITE_P(Backends, LeafTree, testing::ValuesIn(AllParams()),
                         [](const auto& entry) {
                           return fmt::format("{}_{}_{}", entry.param.backend,
                                              entry.param.isa, entry.param.inputs);
                         });

}  // namespace
}  // namespace tessera::parity
