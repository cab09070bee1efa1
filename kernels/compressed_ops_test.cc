// What the ops of compressed attention and of its router compute, by hand.
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "tests/testing/each_backend.h"

namespace tessera::kernels {
namespace {

using Values = std::vector<float>;
using Ids = std::vector<int32_t>;

// One sequence whose blocks lie in order; query row t stands at positions[t].
class CompressedOps : public EachBackend {
 protected:
  PagedIndex IndexOf(Ids& positions, int64_t block_size) {
    rows_.assign(positions.size(), 0);
    PagedIndex index;
    index.block_tables = Ints(blocks_, {1, 4});
    index.sequence_of_row = Ints(rows_, {static_cast<int64_t>(rows_.size())});
    index.positions = Ints(positions, {static_cast<int64_t>(positions.size())});
    index.block_size = block_size;
    return index;
  }

  Ids blocks_ = {0, 1, 2, 3};
  Ids rows_;
};

TEST_P(CompressedOps, CompressPoolsAGroupWhereItsLastTokenIs) {
  Values values = {1, 3, 10, 20, 100, 200, 0, 0};  // one channel
  Values gates(8, 0.5F);                           // alike: the mean
  gates[4] = 90;                                   // but this one takes all
  Ids positions = {0, 1, 2, 3, 4, 5};
  Values out(6, -1);
  CompressArgs args;
  args.values = Floats(values, {2, 4, 1});
  args.gates = Floats(gates, {2, 4, 1});
  args.index = IndexOf(positions, 4);
  args.ratio = 2;
  args.out = Floats(out, {6, 1});
  backend_->Compress(*stream_, args);
  EXPECT_EQ(out, Values({0, 2, 0, 15, 0, 100}));
}

// Channel 0 counts for the tokens before the group, channel 1 for its own.
TEST_P(CompressedOps, CompressWithOverlapTakesOtherChannelsOfTheTokensBefore) {
  Values values = {1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0};
  Values gates(16, 0.25F);
  Ids positions = {1, 3};
  Values out(2, -1);
  CompressArgs args;
  args.values = Floats(values, {2, 4, 2});
  args.gates = Floats(gates, {2, 4, 2});
  args.index = IndexOf(positions, 4);
  args.ratio = 2;
  args.overlap = true;
  args.out = Floats(out, {2, 1});
  backend_->Compress(*stream_, args);
  EXPECT_EQ(out, Values({(2 + 4) / 2.0F, (1 + 3 + 6 + 8) / 4.0F}));
}

// One row with the score ln 2 in the window, none or one more as an entry.
TEST_P(CompressedOps, ASinkJoinsTheDenominatorAlone) {
  const float score = std::log(2.0F);
  Values q = {score, score, score, score};  // four heads of one value
  Values row = {1};
  Ids positions = {0};
  Ids begin = {0};
  Ids end = {1};
  const float infinity = std::numeric_limits<float>::infinity();
  const Values sinks = {-infinity, score, score + std::log(3.0F), 1000};
  Values out(4, -1);
  SharedKvAttentionArgs args;
  args.q = Floats(q, {1, 4, 1});
  args.window_rows = Floats(row, {1, 1, 1});
  args.window = IndexOf(positions, 1);
  args.window_begin = Ints(begin, {1});
  args.window_end = Ints(end, {1});
  args.sinks = sinks.data();
  args.out = Floats(out, {1, 4, 1});
  backend_->SharedKvAttention(*stream_, args);
  EXPECT_FLOAT_EQ(out[0], 1);
  EXPECT_FLOAT_EQ(out[1], 0.5F);
  EXPECT_FLOAT_EQ(out[2], 0.25F);
  EXPECT_EQ(out[3], 0);
}

TEST_P(CompressedOps, AnEntryIsSeenFromItsLastTokenOn) {
  Values q(5, 0);  // all rows weigh the same
  Values window = {2, 2, 2, 2, 2, 2, 2, 2};
  Values entries = {8, 8};
  Ids positions = {0, 2, 3, 5, 7};
  Ids begin = {0, 2, 3, 5, 7};
  Ids end = {1, 3, 4, 6, 8};
  const Values sinks = {-std::numeric_limits<float>::infinity()};
  Values out(5, -1);
  SharedKvAttentionArgs args;
  args.q = Floats(q, {5, 1, 1});
  args.window_rows = Floats(window, {2, 4, 1});
  args.window = IndexOf(positions, 4);
  args.window_begin = Ints(begin, {5});
  args.window_end = Ints(end, {5});
  args.entries = Floats(entries, {2, 1, 1});
  args.entry_index = args.window;
  args.entry_index.block_size = 1;
  args.ratio = 4;
  args.sinks = sinks.data();
  args.out = Floats(out, {5, 1, 1});
  backend_->SharedKvAttention(*stream_, args);
  EXPECT_EQ(out, Values({2, 2, 5, 5, 6}));
}

TEST_P(CompressedOps, AQueryWithoutRowsGetsZeros) {
  Values q = {1, 1};
  Values window(4, 1);
  Ids positions = {2};
  Ids begin = {2};
  Ids end = {2};
  const Values sinks = {0, 0};
  Values out(2, -1);
  SharedKvAttentionArgs args;
  args.q = Floats(q, {1, 2, 1});
  args.window_rows = Floats(window, {1, 4, 1});
  args.window = IndexOf(positions, 4);
  args.window_begin = Ints(begin, {1});
  args.window_end = Ints(end, {1});
  args.sinks = sinks.data();
  args.out = Floats(out, {1, 2, 1});
  backend_->SharedKvAttention(*stream_, args);
  EXPECT_EQ(out, Values({0, 0}));
}

// Eight entries of two tokens in blocks of two entries; the scores are the keys.
class Candidates : public CompressedOps {
 protected:
  // `blocks` and `given` have n values, or none.
  void Select(Values keys, int32_t position, Ids* blocks, Ids given, Ids* selected) {
    Values q = {1};
    Values weights = {1};
    Ids positions = {position};
    Ids count = {-7};
    IndexerSelectArgs args;
    args.q = Floats(q, {1, 1, 1});
    args.weights = Floats(weights, {1, 1});
    args.keys = Floats(keys, {2, 4, 1});
    args.index = IndexOf(positions, 4);
    args.ratio = 2;
    args.topk = static_cast<int64_t>(selected->size());
    args.selected = Ints(*selected, {1, args.topk});
    args.num_selected = Ints(count, {1});
    args.candidate_block = 2;
    if (!given.empty()) {
      args.candidates = Ints(given, {1, static_cast<int64_t>(given.size())});
    }
    if (blocks != nullptr) {
      args.candidates_out = Ints(*blocks, {1, static_cast<int64_t>(blocks->size())});
    }
    backend_->IndexerSelect(*stream_, args);
    int32_t chosen = 0;
    for (const int32_t id : *selected) {
      chosen += id >= 0 ? 1 : 0;
    }
    EXPECT_EQ(count[0], chosen);
  }
};

TEST_P(Candidates, AreTheBlocksOfTheBestEntriesAndTheNewest) {
  Ids selected(2, -7);
  Ids blocks(2, -7);
  Select({1, 5, 9, 2, 3, 4, 0.5F, 0.25F}, 15, &blocks, {}, &selected);
  EXPECT_EQ(selected, Ids({1, 2}));
  EXPECT_EQ(blocks, Ids({1, 3}));
  // An odd number of visible entries: the newest block has one.
  Select({9, 5, 1, 2, 3, 4, 7, 8}, 13, &blocks, {}, &selected);
  EXPECT_EQ(selected, Ids({0, 6}));
  EXPECT_EQ(blocks, Ids({0, 3}));
}

// Queries may be left out where no more compete than are selected.
TEST_P(CompressedOps, AllAreSelectedWithoutQueriesAsWithThem) {
  Values keys = {1, 5, 9, 2, 3, 4, 0.5F, 0.25F};
  Values q = {1, 2, 3, 4};
  Values weights = {1, -1, 1, 1};
  for (const bool restricted : {false, true}) {
    Ids positions = {-1, 0, 7, restricted ? 15 : 9};
    Ids given = {-1, -1, -1, -1, 1, -1, 0, 3};
    Ids selected[2] = {Ids(20, -7), Ids(20, -7)};
    Ids counts[2] = {Ids(4, -7), Ids(4, -7)};
    for (const size_t without : {size_t{0}, size_t{1}}) {
      IndexerSelectArgs args;
      if (without == 0) {
        args.q = Floats(q, {4, 1, 1});
        args.weights = Floats(weights, {4, 1});
      }
      args.keys = Floats(keys, {2, 4, 1});
      args.index = IndexOf(positions, 4);
      args.ratio = 2;
      args.topk = 5;
      args.selected = Ints(selected[without], {4, 5});
      args.num_selected = Ints(counts[without], {4});
      if (restricted) {
        args.candidate_block = 2;
        args.candidates = Ints(given, {4, 2});
      }
      backend_->IndexerSelect(*stream_, args);
    }
    EXPECT_EQ(selected[1], selected[0]);
    EXPECT_EQ(counts[1], counts[0]);
    EXPECT_EQ(counts[1], restricted ? Ids({0, 0, 2, 4}) : Ids({0, 0, 4, 5}));
  }
}

TEST_P(Candidates, OfEqualBlocksTheLowerOneIsTaken) {
  Ids selected(2, -7);
  Ids blocks(3, -7);
  Select({1, 6, 6, 2, 3, 6, 0, 0}, 15, &blocks, {}, &selected);
  EXPECT_EQ(blocks, Ids({0, 1, 3}));
}

TEST_P(Candidates, FewBlocksAreAllTakenAndTheRestIsEmpty) {
  Ids selected(2, -7);
  Ids blocks(4, -7);
  Select({1, 2, 3, 4, 5, 6, 7, 8}, 5, &blocks, {}, &selected);
  EXPECT_EQ(selected, Ids({1, 2}));
  EXPECT_EQ(blocks, Ids({0, 1, -1, -1}));
  Select({1, 2, 3, 4, 5, 6, 7, 8}, 0, &blocks, {}, &selected);
  EXPECT_EQ(selected, Ids({-1, -1}));
  EXPECT_EQ(blocks, Ids({-1, -1, -1, -1}));
}

TEST_P(Candidates, OnlyTheirEntriesCompete) {
  Ids selected(3, -7);
  Select({9, 9, 3, 1, 9, 9, 2, 4}, 15, nullptr, {1, 3, -1}, &selected);
  EXPECT_EQ(selected, Ids({2, 6, 7}));
  Select({9, 9, 3, 1, 9, 9, 2, 4}, 15, nullptr, {2, -1, -1}, &selected);
  EXPECT_EQ(selected, Ids({4, 5, -1}));
}

TEST_P(Candidates, ADamagedBlockIsSeen) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Ids selected(1, -7);
  Ids blocks(2, -7);
  Select({9, 5, 8, 2, nan, 4, 0, 0}, 15, &blocks, {}, &selected);
  EXPECT_EQ(selected, Ids({4}));
  EXPECT_EQ(blocks, Ids({2, 3}));
}

// Scores of all logits at once: no normalisation, experts by given ids.
class RouterScores : public EachBackend {
 protected:
  Values Of(Values logits) {
    const auto n = static_cast<int64_t>(logits.size());
    Values one = {1};
    Ids ids;
    for (int32_t i = 0; i < n; ++i) {
      ids.push_back(i);
    }
    Ids picked(logits.size(), -1);
    Values scores(logits.size(), -1);
    RouterArgs args;
    args.x = Floats(one, {1, 1});
    args.gate.data = reinterpret_cast<const std::byte*>(logits.data());
    args.gate.dtype = DType::kF32;
    args.gate.rows = n;
    args.gate.cols = 1;
    args.gate.row_bytes = 4;
    args.score = RouterScore::kSqrtSoftplus;
    args.fixed_ids = Ints(ids, {1, n});
    args.normalize = false;
    args.expert_ids = Ints(picked, {1, n});
    args.weights = Floats(scores, {1, n});
    backend_->Route(*stream_, args);
    EXPECT_EQ(picked, ids);
    return scores;
  }
};

TEST_P(RouterScores, AreSquareRootsOfSoftplusWithAllTheirDigits) {
  Values logits;
  for (float z = -80; z < 80; z += 0.37F) {
    logits.push_back(z);
  }
  const Values scores = Of(logits);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double expected =
        std::sqrt(std::log1p(std::exp(static_cast<double>(logits[i]))));
    EXPECT_NEAR(scores[i] / expected, 1, 3e-7) << logits[i];
  }
}

TEST_P(RouterScores, AreRootsOfTheLogitAboveTwentyAndNanOfNan) {
  const Values scores = Of({0, 25, 1e30F, -200, std::numeric_limits<float>::quiet_NaN()});
  EXPECT_FLOAT_EQ(scores[0], 0.83255461F);  // sqrt(ln 2)
  EXPECT_EQ(scores[1], 5);
  EXPECT_FLOAT_EQ(scores[2], 1e15F);
  EXPECT_EQ(scores[3], 0);
  EXPECT_TRUE(std::isnan(scores[4]));
}

INSTANTIATE_TEST_SUITE_P(Levels, CompressedOps, EveryLevel(), LevelName);
INSTANTIATE_TEST_SUITE_P(Levels, Candidates, EveryLevel(), LevelName);
INSTANTIATE_TEST_SUITE_P(Levels, RouterScores, EveryLevel(), LevelName);

}  // namespace
}  // namespace tessera::kernels
