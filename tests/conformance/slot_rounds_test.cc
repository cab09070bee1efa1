// SlotRounds over the simulated devices and their NCCL: the bits of one rank alone in any
// number of rounds and for any number of tokens, eager and by graphs; messages and bytes
// of the formula; and what ranks hear of one that ends inside of a round. A wait that is
// missing between the two streams is a finding.
#include "worker/comm/slot_rounds.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "common/status_macros.h"
#include "kernels/runtime/stream_graph.h"
#include "tests/conformance/exchange_problem.h"
#include "tests/conformance/slot_ranks.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/exchange_volume.h"

namespace tessera::worker {
namespace {

using testing::IsOk;
using testing::StatusIs;

constexpr RoundPolicy kTwoRounds = {.min_rows = 2};
constexpr RoundPolicy kManyRounds = {.min_rows = 2, .max_round_rows = 2};

std::unique_ptr<SlotRounds> MakeRounds(const Rank& rank,
                                       const ExpertExchangeOptions& options,
                                       int64_t max_rows,
                                       const std::optional<RoundPolicy>& policy) {
  auto rounds =
      SlotRounds::Create(options, max_rows, policy, rank.backend, rank.comm->on_stream());
  EXPECT_THAT(rounds, IsOk());
  return *std::move(rounds);
}

// x, ids, weights and out of a rank's tokens, and the experts of the rank.
class Layer {
 public:
  Layer(const Problem& problem, int64_t rows, Rank& rank, const SlotRounds& rounds)
      : problem_(problem),
        num_rows_(rows),
        rank_(rank),
        arrays_(*rank.backend, *rank.stream, wait_),
        values_(static_cast<size_t>(rows * kHidden)),
        factors_(static_cast<size_t>(rows * kSlots)),
        ids_(static_cast<size_t>(rows * kSlots)) {
    rows_ = {.x = arrays_.Put(values_, {rows, kHidden}),
             .expert_ids = arrays_.Put(ids_, {rows, kSlots}),
             .weights = arrays_.Put(factors_, {rows, kSlots}),
             .out = arrays_.Put(values_, {rows, kHidden})};
    const TensorView matrices = arrays_.Put(
        problem.expert_values, {static_cast<int64_t>(problem.expert_values.size())});
    for (const int expert : rounds.local_experts()) {
      experts_.push_back(Problem::Expert(matrices, expert));
    }
    PrepareExperts(*rank.backend, *rank.stream, arrays_, experts_, rows_.out);
  }

  // The tokens from `begin` on.
  void Fill(int64_t begin) {
    const auto part = [&](const auto& from, int64_t width, auto& to) {
      std::copy_n(from.begin() + begin * width, num_rows_ * width, to.begin());
    };
    part(problem_.x, kHidden, values_);
    part(problem_.weights, kSlots, factors_);
    part(problem_.ids, kSlots, ids_);
    rank_.backend->Upload(*rank_.stream, values_.data(), rows_.x);
    rank_.backend->Upload(*rank_.stream, factors_.data(), rows_.weights);
    rank_.backend->Upload(*rank_.stream, ids_.data(), rows_.expert_ids);
  }
  absl::Status Enqueue(SlotRounds& rounds) {
    return EnqueueExchange(*rank_.backend, *rank_.stream, rounds, rows_, experts_);
  }
  std::vector<float> Out() { return arrays_.Get<float>(rows_.out); }
  const ExchangeRows& rows() const { return rows_; }

 private:
  const Problem& problem_;
  const int64_t num_rows_;
  Rank& rank_;
  const std::function<absl::Status(kernels::Stream&)> wait_ =
      [this](kernels::Stream& stream) { return rank_.wait->Synchronize(stream); };
  DeviceArrays arrays_;
  std::vector<float> values_;
  std::vector<float> factors_;
  std::vector<int32_t> ids_;
  ExchangeRows rows_;
  std::vector<kernels::ExpertWeights> experts_;
};

// Rows that do and do not divide by the rounds; ranks with all of them, with one, with
// none, and all ranks without.
TEST_P(SlotRanks, AnyRoundsGiveTheBitsOfOneRank) {
  struct Case {
    std::optional<RoundPolicy> policy;
    int64_t rows;
    int64_t num_rounds;
    bool weights_travel;
  };
  const std::vector<Case> cases = {
      {kTwoRounds, 7, 2, false},         {kManyRounds, 7, 4, true},
      {kManyRounds, 5, 3, false},        {kTwoRounds, 1, 1, false},
      {std::nullopt, 7, 1, true},        {kManyRounds, 2, 2, true},
      {kTwoRounds, kMaxTokens, 2, false}};
  const int size = GetParam();
  const Problem problem(DType::kF32, kMaxTokens * size);
  const std::vector<std::vector<float>> alone = {
      RunAlone<float>(problem, false, *MakeBackend(DType::kF32)),
      RunAlone<float>(problem, true, *MakeBackend(DType::kF32))};
  Run(size, [&](Rank& rank) {
    for (const Case& one : cases) {
      const auto rounds = MakeRounds(
          rank, Options(Placements(size)[2], one.weights_travel), kMaxTokens, one.policy);
      rounds->SetRows(one.rows);
      EXPECT_EQ(rounds->num_rounds(), one.num_rounds);
      for (const int64_t most : {one.rows, int64_t{1}, int64_t{0}}) {
        std::vector<int64_t> counts(static_cast<size_t>(size), most);
        counts.back() = std::min<int64_t>(most, 1);
        counts.front() = most == 1 ? 0 : most;
        const int64_t begin = Before(counts, rank.rank());
        const auto out = RunTokens<float>(
            problem, begin, counts[static_cast<size_t>(rank.rank())], *rank.backend,
            *rounds,
            [&](kernels::Stream& stream) { return rank.wait->Synchronize(stream); });
        EXPECT_TRUE(HasBits(out, alone[one.weights_travel ? 1 : 0], begin))
            << one.rows << " rows, at most " << most;
        EXPECT_THAT(rounds->Check(), IsOk());
      }
    }
  });
}

TEST_P(SlotRanks, RowsInFp8HaveTheirBitsInRoundsToo) {
  const int size = GetParam();
  const Problem problem(DType::kF32, 5 * size, DispatchRows::kFp8);
  const auto alone =
      RunAlone<float>(problem, false, *MakeBackend(DType::kF32, problem.numerics()));
  const auto body = [&](Rank& rank) {
    const auto rounds =
        MakeRounds(rank, problem.Options(Placements(size)[1]), 5, kManyRounds);
    EXPECT_EQ(rounds->num_rounds(), 3);
    const auto out = RunTokens<float>(
        problem, 5 * rank.rank(), 5, *rank.backend, *rounds,
        [&](kernels::Stream& stream) { return rank.wait->Synchronize(stream); });
    EXPECT_TRUE(HasBits(out, alone, 5 * rank.rank(), problem.hidden));
  };
  Run(size, body, kGenerous, problem.numerics());
}

// One exchange after the other in the same slots, of several numbers of rows.
TEST_P(SlotRanks, GraphsOfRoundsHaveTheBitsOfOneRank) {
  constexpr int64_t kMaxRows = 5;
  const int size = GetParam();
  const Problem problem(DType::kF32, 2 * kMaxRows * size);
  const auto alone = RunAlone<float>(problem, false, *MakeBackend(DType::kF32));
  Run(size, [&](Rank& rank) {
    const auto rounds =
        MakeRounds(rank, Options(Placements(size)[1]), kMaxRows, kManyRounds);
    for (const int64_t rows : {kMaxRows, int64_t{2}, int64_t{1}}) {
      rounds->SetRows(rows);
      Layer layer(problem, rows, rank, *rounds);
      layer.Fill(0);
      ASSERT_THAT(layer.Enqueue(*rounds), IsOk());  // NCCL's first calls
      ASSERT_THAT(rank.Wait(), IsOk());
      const auto graph = kernels::StreamGraphsOf(rank.backend)
                             ->Capture(*rank.stream, [&]() -> absl::Status {
                               TESSERA_RETURN_IF_ERROR(layer.Enqueue(*rounds));
                               return layer.Enqueue(*rounds);
                             });
      ASSERT_THAT(graph, IsOk());
      for (int64_t replay = 0; replay < 2; ++replay) {
        const int64_t begin = (replay * size + rank.rank()) * rows;
        layer.Fill(begin);
        ASSERT_THAT((*graph)->Launch(*rank.stream), IsOk());
        EXPECT_TRUE(HasBits(layer.Out(), alone, begin)) << rows << " rows";
        EXPECT_THAT(rounds->Check(), IsOk());
      }
      // And eagerly after it, with the events of the capture.
      layer.Fill(rank.rank() * rows);
      ASSERT_THAT(layer.Enqueue(*rounds), IsOk());
      EXPECT_TRUE(HasBits(layer.Out(), alone, rank.rank() * rows)) << rows << " rows";
    }
  });
}

TEST_P(SlotRanks, RoundsPutMessagesAndBytesOfTheirFormulaOnTheWire) {
  const int size = GetParam();
  const Problem problem(DType::kF32, size);
  const ExpertExchangeOptions options = Options(Placements(size)[1], true);
  for (const RoundPolicy& policy : {kTwoRounds, kManyRounds}) {
    constexpr int64_t kRows = 5;
    const auto received = Run(size, [&](Rank& rank) {
      const auto rounds = MakeRounds(rank, options, kMaxTokens, policy);
      rounds->SetRows(kRows);
      RunTokens<float>(
          problem, rank.rank(), 1, *rank.backend, *rounds,
          [&](kernels::Stream& stream) { return rank.wait->Synchronize(stream); });
    });
    const ExchangeRounds rounds = RoundsOf(kRows, size, policy);
    const ExchangeVolume volume = SlotVolume(options, size, rounds);
    EXPECT_EQ(volume.messages, 2 * (size - 1) * rounds.count);
    for (const Traffic& one : received) {
      EXPECT_EQ(one.messages, static_cast<uint64_t>(volume.messages));
      EXPECT_EQ(one.bytes,
                static_cast<uint64_t>(volume.dispatch_bytes + volume.combine_bytes));
    }
  }
}

TEST_P(SlotRanks, AnExpertThatDoesNotExistIsNotedInAnyRound) {
  const int size = GetParam();
  for (const int64_t token : {0, 3}) {
    Problem problem(DType::kF32, 4);
    problem.ids[static_cast<size_t>(token * kSlots)] = kExperts;
    Run(size, [&](Rank& rank) {
      const auto rounds = MakeRounds(rank, Options(Placements(size)[0]), 4, kManyRounds);
      const auto wait = [&](kernels::Stream& stream) {
        return rank.wait->Synchronize(stream);
      };
      RunTokens<float>(problem, 0, rank.rank() == 0 ? 4 : 0, *rank.backend, *rounds,
                       wait);
      EXPECT_THAT(rounds->Check(), StatusIs(absl::StatusCode::kInternal));
      EXPECT_THAT(rounds->Check(), IsOk());
    });
  }
}

TEST_P(SlotRanks, RoundsTakeNoMoreTokensThanTheyHavePlacesFor) {
  Run(GetParam(), [&](Rank& rank) {
    const Problem problem(DType::kF32, 4);
    const auto rounds =
        MakeRounds(rank, Options(Placements(GetParam())[0]), 4, kTwoRounds);
    Layer layer(problem, 4, rank, *rounds);
    rounds->SetRows(3);
    EXPECT_THAT(rounds->Send(*rank.stream, layer.rows()),
                StatusIs(absl::StatusCode::kInternal));
    EXPECT_THAT(rounds->Dispatch(*rank.stream, layer.rows().x, layer.rows().expert_ids,
                                 layer.rows().weights),
                StatusIs(absl::StatusCode::kInternal));
  });
}

// The last rank leaves after `calls` of Send, Receive, Receive: it is gone in the middle
// of a round, with the collectives of the others on their second streams.
void ExpectThatAllHearOfARankThatEnds(Rank& rank, SlotRounds& rounds,
                                      const ExchangeRows& rows, int calls, bool is_last) {
  absl::Status status;
  for (int call = 0; call < 4 && status.ok() && (!is_last || call < calls); ++call) {
    if (call == 0) {
      status = rounds.Send(*rank.stream, rows);
    } else if (call <= 2) {
      status = rounds.Receive(*rank.stream).status();
    } else {
      status = rounds.Finish(*rank.stream);
    }
  }
  if (is_last) {
    EXPECT_THAT(status, IsOk());
    rank.wait->EndGroups("the rank ended");
    return;
  }
  if (status.ok()) {
    status = rank.Wait();
  } else {
    rank.wait->EndGroups("a step failed");
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted));
}

TEST_P(SlotRanks, ARankThatEndsInARoundEndsTheExchangeOfAll) {
  const int size = GetParam();
  const Problem problem(DType::kF32, kMaxTokens);
  for (int calls = 0; calls <= 3; ++calls) {
    Run(size, [&](Rank& rank) {
      const auto rounds = MakeRounds(rank, Options(Placements(size)[1]), 4, kTwoRounds);
      Layer layer(problem, 4, rank, *rounds);
      layer.Fill(0);
      ASSERT_THAT(layer.Enqueue(*rounds), IsOk());
      ASSERT_THAT(rank.Wait(), IsOk());
      ExpectThatAllHearOfARankThatEnds(rank, *rounds, layer.rows(), calls,
                                       rank.rank() == size - 1);
    });
  }
}

// Nobody says that it is gone: the deadline does.
TEST_P(SlotRanks, ARankThatIsMissingInARoundIsMissedByTheDeadline) {
  const int size = GetParam();
  const Problem problem(DType::kF32, kMaxTokens);
  std::atomic<int> waiting = size - 1;
  const auto body = [&](Rank& rank) {
    const auto rounds = MakeRounds(rank, Options(Placements(size)[1]), 4, kTwoRounds);
    Layer layer(problem, 4, rank, *rounds);
    layer.Fill(0);
    ASSERT_THAT(layer.Enqueue(*rounds), IsOk());
    ASSERT_THAT(rank.Wait(), IsOk());
    if (rank.rank() == size - 1) {
      EXPECT_THAT(rounds->Send(*rank.stream, layer.rows()), IsOk());
      while (waiting > 0) {
        Clock::Real()->Sleep(absl::Milliseconds(1));
      }
      rank.wait->EndGroups("the rank ended");
      return;
    }
    absl::Status status = layer.Enqueue(*rounds);
    status.Update(rank.Wait());
    // The first that misses it tells the others.
    EXPECT_TRUE(status.code() == absl::StatusCode::kDeadlineExceeded ||
                status.code() == absl::StatusCode::kAborted)
        << status;
    --waiting;
  };
  Run(size, body, {.timeout = absl::Seconds(2)});
}

INSTANTIATE_TEST_SUITE_P(Sizes, SlotRanks, ::testing::Values(2, 3),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace tessera::worker
