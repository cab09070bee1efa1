// RoutedRounds on the simulated devices: rounds whose rows the host sends while a device
// has the experts of another round. A wait that is missing is a finding, or other bits
// than one rank's.
#include "worker/comm/routed_rounds.h"

#include <barrier>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "kernels/cuda/backend_stream.h"
#include "kernels/cuda_sim/sim_flag.h"
#include "tests/conformance/exchange_problem.h"
#include "tests/conformance/slot_ranks.h"
#include "tests/testing/status_matchers.h"

namespace tessera::worker {
namespace {

using testing::IsOk;
using testing::StatusIs;

class RoutedRoundsOnDevices : public SlotRanks {
 protected:
  // Tokens of the ranks by Spread, one exchange after the other, of each placement.
  static void ExpectBitsOfOneRank(int size, const RoundPolicy& policy,
                                  bool weights_travel, DispatchRows on_wire) {
    const Problem problem(DType::kF32, kMaxTokens * size, on_wire);
    const auto alone = RunAlone<float>(problem, weights_travel,
                                       *MakeBackend(DType::kF32, problem.numerics()));
    const auto body = [&](Rank& rank) {
      ExpertExchangeOptions options =
          problem.Options(Placements(size)[2], weights_travel);
      options.rounds = policy;
      const auto exchange =
          ExpertExchange::Create(options, rank.backend, {.ep = rank.comm});
      ASSERT_THAT(exchange, IsOk());
      for (int spread = 0; spread < 4; ++spread) {
        const auto counts = Spread(size, spread);
        const int64_t begin = Before(counts, rank.rank());
        const auto out = RunTokens<float>(
            problem, begin, counts[static_cast<size_t>(rank.rank())], *rank.backend,
            **exchange,
            [&](kernels::Stream& stream) { return rank.wait->Synchronize(stream); });
        EXPECT_TRUE(HasBits(out, alone, begin, problem.hidden)) << "spread " << spread;
      }
    };
    Run(size, body, kGenerous, problem.numerics());
  }
};

TEST_P(RoutedRoundsOnDevices, HaveTheBitsOfOneRank) {
  const auto rows = DispatchRows::kActivations;
  ExpectBitsOfOneRank(GetParam(), kOneRound, false, rows);
  ExpectBitsOfOneRank(GetParam(), {.min_rows = 2}, true, rows);
  ExpectBitsOfOneRank(GetParam(), {.min_rows = 2, .max_round_rows = 3}, false, rows);
}

TEST_P(RoutedRoundsOnDevices, HaveThemWithRowsInFp8) {
  ExpectBitsOfOneRank(GetParam(), {.min_rows = 2, .max_round_rows = 7}, false,
                      DispatchRows::kFp8);
}

// An exchange of `rows` rows a rank whose caller has enqueued what does not end. Returns
// how many Receives, and the Finish after them, went by, and the error of the next.
std::pair<int, absl::Status> CallsBesideABusyDevice(
    Rank& rank, ExpertExchange& exchange, const Problem& problem, int64_t rows,
    const kernels::cuda_sim::SimFlag& flag, std::barrier<>& all) {
  const auto wait = [&](kernels::Stream& stream) {
    return rank.wait->Synchronize(stream);
  };
  DeviceArrays arrays(*rank.backend, *rank.stream, wait);
  const auto part = [&](const auto& values, int64_t width) {
    return std::vector(values.begin(), values.begin() + rows * width);
  };
  const ExchangeRows exchanged = {
      .x = arrays.Put(Cast<float>(part(problem.x, kHidden)), {rows, kHidden}),
      .expert_ids = arrays.Put(part(problem.ids, kSlots), {rows, kSlots}),
      .weights = arrays.Put(Cast<float>(part(problem.weights, kSlots)), {rows, kSlots}),
      .out = arrays.Put(Cast<float>(part(problem.x, kHidden)), {rows, kHidden})};
  EXPECT_THAT(exchange.Send(*rank.stream, exchanged), IsOk());
  EXPECT_THAT(kernels::cuda::GpuStreamOf(*rank.stream).WaitFlag(flag, 1), IsOk());
  int calls = 0;
  for (; calls < exchange.num_rounds(); ++calls) {
    if (const auto batch = exchange.Receive(*rank.stream); !batch.ok()) {
      return {calls, batch.status()};
    }
    all.arrive_and_wait();  // nobody meets another's error before its own
  }
  return {calls, exchange.Finish(*rank.stream)};
}

// Rows of a round are on their way while the device has other work; outputs wait for it.
TEST_F(RoutedRoundsOnDevices, TheHostWaitsForTheExpertsOfARoundWhenTheirOutputsGoBack) {
  constexpr int kSize = 2;
  const Problem problem(DType::kF32, kMaxTokens);
  // Of three rounds the third takes the place of the first; of two, or one, Finish waits.
  struct Case {
    int64_t rows;
    int calls;  // that go by
  };
  for (const Case& one : {Case{3, 2}, Case{2, 2}, Case{1, 1}}) {
    const auto machine = std::make_shared<kernels::cuda_sim::SimMachine>(
        kernels::cuda_sim::SimOptions{.num_devices = kSize});
    std::barrier all(kSize);
    const auto body = [&](Rank& rank) {
      ExpertExchangeOptions options = problem.Options(Placements(kSize)[1]);
      options.rounds = {.min_rows = 2, .max_round_rows = 1};
      const auto exchange =
          ExpertExchange::Create(options, rank.backend, {.ep = rank.comm});
      ASSERT_THAT(exchange, IsOk());
      const auto flag = kernels::cuda_sim::SimFlag::Create(machine);
      ASSERT_THAT(flag, IsOk());
      const auto [passed, status] =
          CallsBesideABusyDevice(rank, **exchange, problem, one.rows, **flag, all);
      EXPECT_EQ(passed, one.calls);
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal,
                                   ::testing::HasSubstr("a flag of 1")));
      (*flag)->Store(1);  // for the stream to end
      static_cast<void>(rank.stream->Synchronize());
    };
    RunOnMachine(machine, kernels::cuda_sim::SimNcclComm::GetUniqueId(machine), kSize,
                 body, kGenerous, "f32");
  }
}

// Rank 1 says in the second round that there are three.
TEST(RoutedRounds, APeerThatChangesTheNumberOfRoundsIsRefused) {
  auto group = CreateInProcessGroup("ep", 2, kGenerous, Clock::Real());
  ASSERT_THAT(group, IsOk());
  const Problem problem(DType::kF32, kMaxTokens);
  ExpertExchangeOptions options = problem.Options(Placements(2)[1]);
  options.rounds = {.min_rows = 1, .max_round_rows = 8};
  std::jthread peer([&] {
    const auto backend = MakeBackend(DType::kF32);
    ExpertExchangeOptions of_a_round = options;
    of_a_round.max_tokens = 8;
    float none = 0;
    for (int64_t rounds : {2, 3}) {
      const auto round =
          RoutedExchange::Create(of_a_round, 3, backend.get(), {.ep = (*group)[1].get()});
      ASSERT_THAT(round, IsOk());
      const auto stream = backend->CreateStream();
      ASSERT_THAT(stream, IsOk());
      (*round)->Pack(**stream, TensorView(&none, DType::kF32, {0, kHidden}));
      // The second one may hear of the refusal.
      static_cast<void>((*round)->Dispatch(TensorView(&none, DType::kI32, {0, kSlots}),
                                           TensorView(&none, DType::kF32, {0, kSlots}),
                                           &rounds));
    }
  });
  const auto backend = MakeBackend(DType::kF32);
  const auto stream = backend->CreateStream();
  ASSERT_THAT(stream, IsOk());
  auto exchange =
      ExpertExchange::Create(options, backend.get(), {.ep = (*group)[0].get()});
  ASSERT_THAT(exchange, IsOk());
  std::vector<float> values(10 * kHidden);
  std::vector<float> weights(10 * kSlots);
  std::vector<int32_t> ids(problem.ids.begin(), problem.ids.begin() + 10 * kSlots);
  ASSERT_THAT(
      (*exchange)->Send(**stream,
                        {.x = TensorView(values.data(), DType::kF32, {10, kHidden}),
                         .expert_ids = TensorView(ids.data(), DType::kI32, {10, kSlots}),
                         .weights = TensorView(weights.data(), DType::kF32, {10, kSlots}),
                         .out = TensorView(values.data(), DType::kF32, {10, kHidden})}),
      IsOk());
  EXPECT_THAT((*exchange)->Receive(**stream), IsOk());
  EXPECT_EQ((*exchange)->num_rounds(), 2);
  EXPECT_THAT((*exchange)->Receive(**stream),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       ::testing::HasSubstr("an exchange of 3 rounds")));
  peer.join();
  EXPECT_THAT((*group)[1]->Barrier(), StatusIs(absl::StatusCode::kAborted));
}

INSTANTIATE_TEST_SUITE_P(Sizes, RoutedRoundsOnDevices, ::testing::Values(2, 3),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace tessera::worker
