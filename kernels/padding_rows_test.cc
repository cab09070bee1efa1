// What the ops make of a padding row, by hand: nothing that another row or a page could
// notice. That all backends agree, the simulated GPU included: tests/parity.
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "tests/testing/each_backend.h"

namespace tessera::kernels {
namespace {

using Values = std::vector<float>;
using Ids = std::vector<int32_t>;

// Row 0 is a token at position 3, row 1 is padding; both name the one sequence.
class PaddingRows : public EachBackend {
 protected:
  PagedIndex Index(int64_t block_size) {
    PagedIndex index;
    index.block_tables = Ints(blocks_, {1, 4});
    index.sequence_of_row = Ints(sequences_, {2});
    index.positions = Ints(positions_, {2});
    index.block_size = block_size;
    return index;
  }
  static WeightView Weight(const Values& values, int64_t rows, int64_t cols) {
    WeightView w;
    w.data = reinterpret_cast<const std::byte*>(values.data());
    w.dtype = DType::kF32;
    w.rows = rows;
    w.cols = cols;
    w.row_bytes = cols * static_cast<int64_t>(sizeof(float));
    return w;
  }

  Ids blocks_ = {0, 1, 2, 3};
  Ids sequences_ = {0, 0};
  Ids positions_ = {3, -1};
};

TEST_P(PaddingRows, GetNoPositionBias) {
  Values x = {1, 2, 3, 4};
  const Values bias = {10, 20, 30, 40, 50, 60};  // of three positions
  backend_->AddPositionBias(*stream_, Floats(x, {2, 2}), Weight(bias, 3, 2),
                            Ints(positions_, {2}));
  EXPECT_EQ(x, Values({11, 22, 3, 4}));
}

// At ratio 1 every token completes an entry, and (p + 1) % ratio is 0 at -1 for each.
TEST_P(PaddingRows, CompleteNoEntry) {
  Values values = {1, 2, 3, 4, 5, 6, 7, 8};
  Values gates(8, 0.5F);
  for (const bool overlap : {false, true}) {
    for (const int64_t ratio : {1, 2, 4}) {
      const int64_t dim = overlap ? 1 : 2;
      Values out(static_cast<size_t>(2 * dim), -1);
      CompressArgs args;
      args.values = Floats(values, {1, 4, 2});
      args.gates = Floats(gates, {1, 4, 2});
      args.index = Index(4);
      args.ratio = ratio;
      args.overlap = overlap;
      args.out = Floats(out, {2, dim});
      backend_->Compress(*stream_, args);
      for (int64_t c = 0; c < dim; ++c) {
        EXPECT_NE(out[static_cast<size_t>(c)], 0) << ratio;
        EXPECT_EQ(out[static_cast<size_t>(dim + c)], 0) << ratio;
      }
    }
  }
}

TEST_P(PaddingRows, AreNotConvolvedAndNotStored) {
  Values gated = {1, 5};
  Values streams = {10, 20};
  Values cache(8, 9);
  const Values kernel(4, 0);
  const Values norm = {1};
  EngramConvArgs args;
  args.gated = Floats(gated, {2, 1, 1});
  args.streams = Floats(streams, {2, 1, 1});
  args.kernel = Weight(kernel, 1, 4);
  args.norm = Weight(norm, 1, 1);
  args.eps = 0;
  args.dilation = 1;
  args.cache = Floats(cache, {4, 2, 1});
  args.index = Index(2);
  backend_->EngramConv(*stream_, args);
  EXPECT_EQ(streams, Values({11, 25}));
  EXPECT_EQ(cache, Values({9, 9, 9, 1, 9, 9, 9, 9}));
}

TEST_P(PaddingRows, SelectNoEntryAndNameNoCandidates) {
  Values q(2, 1);
  Values weights(2, 1);
  Values keys(4, 1);
  Ids selected(4, 7);
  Ids counts(2, 7);
  Ids candidates(4, 7);
  IndexerSelectArgs args;
  args.q = Floats(q, {2, 1, 1});
  args.weights = Floats(weights, {2, 1});
  args.keys = Floats(keys, {4, 1, 1});
  args.index = Index(1);
  args.topk = 2;
  args.selected = Ints(selected, {2, 2});
  args.num_selected = Ints(counts, {2});
  args.candidate_block = 1;
  args.candidates_out = Ints(candidates, {2, 2});
  backend_->IndexerSelect(*stream_, args);
  EXPECT_EQ(selected, Ids({0, 1, -1, -1}));
  EXPECT_EQ(counts, Ids({2, 0}));
  EXPECT_EQ(candidates, Ids({0, 3, -1, -1}));
  selected.assign(4, 7);
  args.candidates_out = {};
  args.candidates = Ints(candidates, {2, 2});
  backend_->IndexerSelect(*stream_, args);
  EXPECT_EQ(selected, Ids({0, 3, -1, -1}));
  EXPECT_EQ(counts, Ids({2, 0}));
}

TEST_P(PaddingRows, AttendToNothing) {
  Values q_latent(2, 1);
  Values q_rope(2, 1);
  Values rows(8, 1);
  Values out(2, -1);
  MlaAttentionArgs args;
  args.q_latent = Floats(q_latent, {2, 1, 1});
  args.q_rope = Floats(q_rope, {2, 1, 1});
  args.rows = Floats(rows, {4, 1, 2});
  args.index = Index(1);
  args.out = Floats(out, {2, 1, 1});
  backend_->MlaAttention(*stream_, args);
  EXPECT_EQ(out, Values({1, 0}));
}

// Fixed experts are those of token 0 there, and no routing may follow from them.
TEST_P(PaddingRows, ArePickedNoExperts) {
  Values x(2, 1);
  const Values gate(3, 0);
  Ids fixed = {2, 0, 1, 2};
  for (const bool is_fixed : {false, true}) {
    Ids ids(4, 7);
    Values weights(4, -1);
    RouterArgs args;
    args.x = Floats(x, {2, 1});
    args.gate = Weight(gate, 3, 1);
    if (is_fixed) {
      args.fixed_ids = Ints(fixed, {2, 2});
    }
    args.positions = Ints(positions_, {2});
    args.expert_ids = Ints(ids, {2, 2});
    args.weights = Floats(weights, {2, 2});
    backend_->Route(*stream_, args);
    EXPECT_EQ(ids, is_fixed ? Ids({2, 0, -1, -1}) : Ids({0, 1, -1, -1}));
    EXPECT_EQ(weights, Values({0.5F, 0.5F, 0, 0}));
  }
}

INSTANTIATE_TEST_SUITE_P(Level, PaddingRows, EveryLevel(), LevelName);

}  // namespace
}  // namespace tessera::kernels
