// SlotExchange over the simulated devices and their NCCL: the bits of one rank alone
// whatever the placement and the spread of the tokens, eager and by graphs, with rows in
// float32 or in FP8 on the wire; what ranks hear of an expert that does not exist; and
// the bytes of its formula. Every rank is a thread on a device of its own, all checks on,
// and no case may leave a finding.
#include "worker/comm/slot_exchange.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/backend_stream.h"
#include "tests/conformance/exchange_problem.h"
#include "tests/conformance/slot_ranks.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/exchange_volume.h"
#include "worker/comm/switched_exchange.h"

namespace tessera::worker {
namespace {

using testing::IsOk;
using testing::StatusIs;

std::unique_ptr<SlotExchange> MakeExchange(const Rank& rank,
                                           const ExpertExchangeOptions& options) {
  auto exchange =
      SlotExchange::Create(options, kMaxTokens, rank.backend, rank.comm->on_stream());
  EXPECT_THAT(exchange, IsOk());
  return *std::move(exchange);
}

constexpr DispatchRows kFormats[] = {DispatchRows::kActivations, DispatchRows::kFp8};

// With backends of the problem's numerics.
std::vector<kernels::cuda_sim::NcclTraffic> RunOn(
    int size, const Problem& problem, const std::function<void(Rank&)>& body) {
  class Ranks : public SlotRanks {
   public:
    using SlotRanks::Run;
  };
  return Ranks::Run(size, body, kGenerous, problem.numerics());
}

// The reference's bits for its tokens, each with those of its own rank alone.
std::vector<float> Alone(const Problem& problem, bool weights_travel = false) {
  return RunAlone<float>(problem, weights_travel,
                         *MakeBackend(DType::kF32, problem.numerics()));
}

void ExpectBitsOfOneRank(int size, const Problem& problem, bool weights_travel) {
  const auto alone = Alone(problem, weights_travel);
  RunOn(size, problem, [&](Rank& rank) {
    for (const std::vector<int>& owner : Placements(size)) {
      const auto exchange = MakeExchange(rank, problem.Options(owner, weights_travel));
      for (int round = 0; round < 3; ++round) {
        // The last rank alone has tokens in the second, and nobody in the third.
        std::vector<int64_t> counts = Spread(size, round);
        for (int64_t& count : counts) {
          count = std::min<int64_t>(count, 7);
        }
        exchange->SetRows(round == 0 ? 7 : 9);
        const int64_t begin = Before(counts, rank.rank());
        const auto out = RunTokens<float>(
            problem, begin, counts[static_cast<size_t>(rank.rank())], *rank.backend,
            *exchange,
            [&](kernels::Stream& stream) { return rank.wait->Synchronize(stream); });
        EXPECT_TRUE(HasBits(out, alone, begin, problem.hidden)) << "round " << round;
        EXPECT_THAT(exchange->Check(), IsOk());
      }
    }
  });
}

TEST_P(SlotRanks, AnyPlacementAndSpreadGivesTheBitsOfOneRank) {
  const Problem problem(DType::kF32, kMaxTokens * GetParam());
  ExpectBitsOfOneRank(GetParam(), problem, false);
  ExpectBitsOfOneRank(GetParam(), problem, true);
}

TEST_P(SlotRanks, RowsInFp8GiveTheBitsOfFloatRowsOnOneRank) {
  const Problem problem(DType::kF32, kMaxTokens * GetParam(), DispatchRows::kFp8);
  ExpectBitsOfOneRank(GetParam(), problem, false);
  ExpectBitsOfOneRank(GetParam(), problem, true);
}

// One graph a rank, replayed with other tokens and other routing.
void ExpectBitsOfGraphs(int size, DispatchRows rows) {
  constexpr int64_t kRows = 3;
  constexpr int64_t kReplays = 3;
  const Problem problem(DType::kF32, kRows * size * kReplays, rows);
  const auto alone = Alone(problem);
  RunOn(size, problem, [&](Rank& rank) {
    kernels::KernelBackend& backend = *rank.backend;
    const auto exchange = MakeExchange(rank, problem.Options(Placements(size)[2]));
    exchange->SetRows(kRows);
    const auto wait = [&](kernels::Stream& stream) {
      return rank.wait->Synchronize(stream);
    };
    DeviceArrays arrays(backend, *rank.stream, wait);
    std::vector<float> values(static_cast<size_t>(kRows * problem.hidden));
    std::vector<float> factors(kRows * kSlots);
    std::vector<int32_t> experts_of(kRows * kSlots);
    const TensorView x = arrays.Put(values, {kRows, problem.hidden});
    const TensorView weights = arrays.Put(factors, {kRows, kSlots});
    const TensorView ids = arrays.Put(experts_of, {kRows, kSlots});
    const TensorView out = arrays.Put(values, {kRows, problem.hidden});
    const TensorView matrices = arrays.Put(
        problem.expert_values, {static_cast<int64_t>(problem.expert_values.size())});
    std::vector<kernels::ExpertWeights> experts;
    for (const int expert : exchange->local_experts()) {
      experts.push_back(problem.ExpertOf(matrices, expert));
    }
    const auto enqueue = [&] {
      const auto batch = exchange->Dispatch(*rank.stream, x, ids, weights);
      ASSERT_THAT(batch, IsOk());
      backend.GroupedExperts(*rank.stream, {.x = batch->rows,
                                            .row_of_item = batch->row_of_item,
                                            .item_offsets = batch->item_offsets,
                                            .experts = experts,
                                            .item_weights = batch->item_weights,
                                            .out = batch->out});
      ASSERT_THAT(exchange->Combine(*rank.stream, out), IsOk());
    };
    enqueue();  // what is made at a first call
    ASSERT_THAT(rank.Wait(), IsOk());
    kernels::cuda::GpuStream& gpu = kernels::cuda::GpuStreamOf(*rank.stream);
    ASSERT_THAT(gpu.BeginCapture(), IsOk());
    enqueue();
    const auto graph = gpu.EndCapture();
    ASSERT_THAT(graph, IsOk());
    for (int64_t replay = 0; replay < kReplays; ++replay) {
      const int64_t begin = (replay * size + rank.rank()) * kRows;
      const auto part = [&](const auto& from, int64_t width, auto& to) {
        std::copy_n(from.begin() + begin * width, kRows * width, to.begin());
      };
      part(problem.x, problem.hidden, values);
      part(problem.weights, kSlots, factors);
      part(problem.ids, kSlots, experts_of);
      backend.Upload(*rank.stream, values.data(), x);
      backend.Upload(*rank.stream, factors.data(), weights);
      backend.Upload(*rank.stream, experts_of.data(), ids);
      ASSERT_THAT(gpu.Launch(*graph), IsOk());
      EXPECT_TRUE(HasBits(arrays.Get<float>(out), alone, begin, problem.hidden))
          << "replay " << replay;
      EXPECT_THAT(exchange->Check(), IsOk());
    }
  });
}

TEST_P(SlotRanks, AGraphHasTheBitsOfOneRankForWhateverTokensThereAre) {
  ExpectBitsOfGraphs(GetParam(), DispatchRows::kActivations);
}

TEST_P(SlotRanks, AGraphOfRowsInFp8HasTheBitsOfFloatRowsOnOneRank) {
  ExpectBitsOfGraphs(GetParam(), DispatchRows::kFp8);
}

// The rows of all ranks are seen by all: so is an id that is wrong.
TEST_P(SlotRanks, AnExpertThatDoesNotExistIsNotedOnEveryRank) {
  const int size = GetParam();
  Problem problem(DType::kF32, size);
  problem.ids[static_cast<size_t>((size - 1) * kSlots + 2)] = kExperts;
  Run(size, [&](Rank& rank) {
    const auto exchange = MakeExchange(rank, Options(Placements(size)[0]));
    exchange->SetRows(1);
    const auto wait = [&](kernels::Stream& stream) {
      return rank.wait->Synchronize(stream);
    };
    RunTokens<float>(problem, rank.rank(), 1, *rank.backend, *exchange, wait);
    EXPECT_THAT(exchange->Check(), StatusIs(absl::StatusCode::kInternal));
    RunTokens<float>(problem, 0, 1, *rank.backend, *exchange, wait);
    EXPECT_THAT(exchange->Check(), IsOk());
  });
}

// A row that names an expert twice has more items than places: it is not cut in silence.
TEST(SlotExchange, ASlotThatHasNoPlaceIsNoted) {
  Problem problem(DType::kF32, 1);
  problem.ids = {3, 3, 3, 3};
  std::vector<int> owner;  // three experts a rank
  for (int expert = 0; expert < kExperts; ++expert) {
    owner.push_back(expert / 3);
  }
  RunOn(4, problem, [&](Rank& rank) {
    const auto exchange = MakeExchange(rank, Options(owner));
    exchange->SetRows(1);
    RunTokens<float>(
        problem, 0, rank.rank() == 0 ? 1 : 0, *rank.backend, *exchange,
        [&](kernels::Stream& stream) { return rank.wait->Synchronize(stream); });
    EXPECT_THAT(exchange->Check(), rank.rank() == 0
                                       ? StatusIs(absl::StatusCode::kInternal)
                                       : StatusIs(absl::StatusCode::kOk));
  });
}

TEST_P(SlotRanks, OnTheWireAreMessagesAndBytesOfTheFormula) {
  const int size = GetParam();
  for (const bool weights_travel : {false, true}) {
    for (const std::vector<int>& owner : Placements(size)) {
      for (const DispatchRows rows : kFormats) {
        const Problem problem(DType::kF32, size, rows);
        const ExpertExchangeOptions options = problem.Options(owner, weights_travel);
        const auto received = RunOn(size, problem, [&](Rank& rank) {
          const auto exchange = MakeExchange(rank, options);
          exchange->SetRows(2);
          RunTokens<float>(
              problem, rank.rank(), 1, *rank.backend, *exchange,
              [&](kernels::Stream& stream) { return rank.wait->Synchronize(stream); });
        });
        const ExchangeVolume volume = SlotVolume(options, size, 2);
        for (const Traffic& one : received) {
          EXPECT_EQ(one.messages, static_cast<uint64_t>(volume.messages));
          EXPECT_EQ(one.bytes,
                    static_cast<uint64_t>(volume.dispatch_bytes + volume.combine_bytes));
        }
      }
    }
  }
}

// By way of the host and in slots, in turn.
TEST_P(SlotRanks, ASwitchedExchangeGivesTheSameBitsEitherWay) {
  const int size = GetParam();
  for (const DispatchRows rows : kFormats) {
    const Problem problem(DType::kF32, kMaxTokens * size, rows);
    const auto alone = Alone(problem);
    RunOn(size, problem, [&](Rank& rank) {
      const auto exchange = SwitchedExchange::Create(problem.Options(Placements(size)[2]),
                                                     3, RoundPolicy{.min_rows = 3},
                                                     rank.backend, {.ep = rank.comm});
      ASSERT_THAT(exchange, IsOk());
      for (const int64_t slots : {0, 3, 2, 0, 3}) {
        (*exchange)->UseSlots(slots);
        EXPECT_EQ((*exchange)->is_capturable(), slots > 0);
        EXPECT_EQ((*exchange)->num_rounds(), slots == 3 ? 2 : 1);
        const int64_t begin = 2 * rank.rank();
        const auto out = RunTokens<float>(
            problem, begin, 2, *rank.backend, **exchange,
            [&](kernels::Stream& stream) { return rank.wait->Synchronize(stream); });
        EXPECT_TRUE(HasBits(out, alone, begin, problem.hidden)) << "slots " << slots;
        EXPECT_THAT((*exchange)->Check(), IsOk());
      }
    });
  }
}

TEST_P(SlotRanks, ASwitchedExchangeSaysWhatWentWrongInSlotsThatItHasLeft) {
  const int size = GetParam();
  Problem problem(DType::kF32, size);
  problem.ids[0] = kExperts;
  Run(size, [&](Rank& rank) {
    const auto exchange = SwitchedExchange::Create(
        Options(Placements(size)[0]), 1, RoundPolicy{}, rank.backend, {.ep = rank.comm});
    ASSERT_THAT(exchange, IsOk());
    (*exchange)->UseSlots(1);
    RunTokens<float>(
        problem, rank.rank(), 1, *rank.backend, **exchange,
        [&](kernels::Stream& stream) { return rank.wait->Synchronize(stream); });
    (*exchange)->UseSlots(0);
    EXPECT_THAT((*exchange)->Check(), StatusIs(absl::StatusCode::kInternal));
    EXPECT_THAT((*exchange)->Check(), IsOk());
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, SlotRanks, ::testing::Values(2, 3, 4),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace tessera::worker
