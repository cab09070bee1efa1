// An ExpertExchange over the simulator's twin of NCCL, where one rank dies, hangs or
// comes late: as its group forms, before a dispatch or before a combine. Either every
// rank gets the right rows, or every rank that lives gets a typed error within its
// deadline; no rank waits for ever, and none gets wrong rows. --seeds=N runs N seeds,
// --seed=N the one that a failure names.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/status_macros.h"
#include "kernels/cuda/devices/nccl_collectives.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_nccl.h"
#include "kernels/reference/reference_backend.h"
#include "tests/conformance/fiber_groups.h"
#include "tests/conformance/fiber_ranks.h"
#include "tests/simulation/seed_range.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/nccl/nccl_group.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::TensorView;
using worker::ExchangeGroups;
using worker::ExpertExchange;
using worker::ExpertExchangeOptions;

constexpr int64_t kHidden = 5;
constexpr int kExperts = 24;
constexpr int64_t kSlots = 3;
constexpr int64_t kTokens = 3;
constexpr int kLayers = 3;
constexpr absl::Duration kTimeout = absl::Milliseconds(100);
// A poll's sleep at most, and some.
constexpr absl::Duration kSlack = absl::Milliseconds(2);

enum class Fault { kNone, kDies, kHangs, kLate, kTooLate };
enum class Phase { kDispatch, kCombine };

const char* FaultName(Fault fault) {
  constexpr const char* kNames[] = {"none", "dies", "hangs", "late", "too late"};
  return kNames[static_cast<int>(fault)];
}
const char* PhaseName(Phase phase) {
  constexpr const char* kNames[] = {"dispatch", "combine"};
  return kNames[static_cast<int>(phase)];
}

struct Scenario {
  explicit Scenario(uint64_t its_seed) : seed(its_seed) {
    std::mt19937_64 random(seed);
    constexpr ExchangeLayout kLayouts[] = {{2, 0}, {3, 0}, {4, 0},
                                           {4, 2}, {6, 3}, {8, 4}};
    layout = kLayouts[random() % std::size(kLayouts)];
    fault = static_cast<Fault>(random() % 5);
    phase = static_cast<Phase>(random() % 2);
    victim = static_cast<int>(random() % static_cast<uint64_t>(layout.num_ranks));
    layer = static_cast<int>(random() % kLayers);
    a_process_each = random() % 2 == 0;
    max_round_rows = random() % 2 == 0 ? kTokens : 1 + random() % (kTokens - 1);
    round = static_cast<int64_t>(random() % static_cast<uint64_t>(num_rounds()));
    const auto part = static_cast<double>(random() % 1000) / 1000;
    switch (fault) {
      case Fault::kNone:
      case Fault::kDies:
        break;
      case Fault::kLate:
        delay = part * 0.9 * kTimeout;
        break;
      case Fault::kTooLate:
        // Over nodes a first wait may end before the one for this rank begins.
        delay = (2.1 + part) * kTimeout;
        break;
      case Fault::kHangs:
        delay = 1000 * kTimeout;
        break;
    }
  }

  int64_t num_rounds() const { return (kTokens + max_round_rows - 1) / max_round_rows; }
  bool ends_the_group() const { return fault != Fault::kNone && fault != Fault::kLate; }
  std::string ToString() const {
    return std::string("rank ") + std::to_string(victim) + " of " +
           std::to_string(layout.num_ranks) + " (" +
           std::to_string(layout.ranks_per_node) + " per node) " + FaultName(fault) +
           " before " + PhaseName(phase) + " of layer " + std::to_string(layer) +
           ", round " + std::to_string(round) + " of " + std::to_string(num_rounds()) +
           (a_process_each ? ", a process each" : "") +
           ", run again with --seed=" + std::to_string(seed);
  }

  const uint64_t seed;
  ExchangeLayout layout = {};
  Fault fault = Fault::kNone;
  Phase phase = Phase::kDispatch;
  int victim = 0;
  int layer = 0;
  bool a_process_each = false;
  int64_t max_round_rows = kTokens;
  int64_t round = 0;  // of the dispatch
  absl::Duration delay;
};

ExpertExchangeOptions Options(const Scenario& scenario) {
  ExpertExchangeOptions options;
  options.max_tokens = kTokens;
  options.hidden_size = kHidden;
  options.experts_per_token = kSlots;
  options.rounds.max_round_rows = scenario.max_round_rows;
  for (int expert = 0; expert < kExperts; ++expert) {
    options.expert_owner.push_back(expert % scenario.layout.num_ranks);
  }
  return options;
}

// One rank's run through the scenario.
class Rank {
 public:
  Rank(const Scenario& scenario, int number, FiberRanks* clock, FiberGroups* all_groups)
      : scenario_(scenario), number_(number), clock_(*clock), all_groups_(*all_groups) {}

  void Run() {
    end_ = RunLayers();
    if (is_gone_ || end_.ok()) {
      return;
    }
    EXPECT_TRUE(end_.code() == absl::StatusCode::kDeadlineExceeded ||
                end_.code() == absl::StatusCode::kAborted)
        << end_;
    EXPECT_LE(clock_.Now() - entered_, 2 * kTimeout + kSlack)  // a call is two levels
        << "the error came after the deadline: " << end_;
    EXPECT_THAT(groups_.ep->Barrier(), StatusIs(absl::StatusCode::kAborted));
  }

  const absl::Status& end() const { return end_; }
  bool is_gone() const { return is_gone_; }

 private:
  // False: it does not come back.
  bool Comes(Phase phase, int layer, int64_t round) {
    if (number_ == scenario_.victim && phase == scenario_.phase &&
        layer == scenario_.layer && round == scenario_.round) {
      is_gone_ = scenario_.fault == Fault::kDies;
      clock_.Sleep(scenario_.delay);
    }
    entered_ = clock_.Now();
    return !is_gone_;
  }

  absl::Status RunLayers() {
    entered_ = clock_.Now();
    TESSERA_ASSIGN_OR_RETURN(groups_, all_groups_.Join(number_));
    TESSERA_ASSIGN_OR_RETURN(const auto backend,
                             kernels::CreateReferenceBackend({.name = "reference"}));
    TESSERA_ASSIGN_OR_RETURN(const auto stream, backend->CreateStream());
    TESSERA_ASSIGN_OR_RETURN(
        const auto exchange,
        ExpertExchange::Create(Options(scenario_), backend.get(), groups_));
    for (int layer = 0; layer < kLayers && !is_gone_; ++layer) {
      TESSERA_RETURN_IF_ERROR(RunLayer(layer, *stream, *exchange));
    }
    return absl::OkStatus();
  }

  absl::Status RunLayer(int layer, kernels::Stream& stream, ExpertExchange& exchange) {
    std::mt19937_64 random(scenario_.seed * 64 + static_cast<uint64_t>(number_) * 8 +
                           static_cast<uint64_t>(layer));
    std::vector<int32_t> experts(kExperts);
    std::iota(experts.begin(), experts.end(), 0);
    std::vector<int32_t> ids;
    std::vector<float> x;
    for (int64_t t = 0; t < kTokens; ++t) {
      std::ranges::shuffle(experts, random);
      ids.insert(ids.end(), experts.begin(), experts.begin() + kSlots);
      x.insert(x.end(), kHidden, static_cast<float>(random() % 1000));
    }
    std::vector<float> weights(kTokens * kSlots, 2);
    std::vector<float> out(x.size(), -1);
    TESSERA_RETURN_IF_ERROR(exchange.Send(
        stream, {.x = TensorView(x.data(), DType::kF32, {kTokens, kHidden}),
                 .expert_ids = TensorView(ids.data(), DType::kI32, {kTokens, kSlots}),
                 .weights = TensorView(weights.data(), DType::kF32, {kTokens, kSlots}),
                 .out = TensorView(out.data(), DType::kF32, {kTokens, kHidden})}));
    EXPECT_EQ(exchange.num_rounds(), scenario_.num_rounds());
    for (int64_t round = 0; round < exchange.num_rounds(); ++round) {
      if (!Comes(Phase::kDispatch, layer, round)) {
        return absl::OkStatus();
      }
      TESSERA_ASSIGN_OR_RETURN(const worker::ExpertBatch batch, exchange.Receive(stream));
      RunExperts(batch, exchange.local_experts());
    }
    if (!Comes(Phase::kCombine, layer, scenario_.round)) {
      return absl::OkStatus();
    }
    TESSERA_RETURN_IF_ERROR(exchange.Finish(stream));
    for (size_t t = 0; t < kTokens; ++t) {
      float factor = 0;
      for (size_t slot = 0; slot < kSlots; ++slot) {
        factor += 2 * static_cast<float>(ids[t * kSlots + slot] + 1);
      }
      // Small whole numbers: exact in any order.
      EXPECT_EQ(out[t * kHidden], factor * x[t * kHidden]) << "token " << t;
      EXPECT_EQ(out[t * kHidden + kHidden - 1], factor * x[t * kHidden]);
    }
    return absl::OkStatus();
  }

  // Expert e gives its row times e + 1.
  static void RunExperts(const worker::ExpertBatch& batch, std::span<const int> local) {
    const auto* offsets = batch.item_offsets.as<int32_t>();
    for (size_t expert = 0; expert < local.size(); ++expert) {
      for (int32_t item = offsets[expert]; item < offsets[expert + 1]; ++item) {
        const float* const row =
            batch.rows.row<float>(batch.row_of_item.as<int32_t>()[item]);
        std::transform(row, row + kHidden, batch.out.row<float>(item), [&](float value) {
          return value * static_cast<float>(local[expert] + 1);
        });
      }
    }
  }

  const Scenario& scenario_;
  const int number_;
  FiberRanks& clock_;
  FiberGroups& all_groups_;
  ExchangeGroups groups_;
  absl::Time entered_;  // the call in progress
  bool is_gone_ = false;
  absl::Status end_;
};

void RunScenario(const Scenario& scenario) {
  FiberRanks fibers(scenario.seed);
  FiberGroups groups({.layout = scenario.layout,
                      .comm = {.timeout = kTimeout},
                      .seed = scenario.seed,
                      .a_process_each = scenario.a_process_each},
                     &fibers);
  std::vector<Rank> ranks;
  for (int rank = 0; rank < scenario.layout.num_ranks; ++rank) {
    ranks.emplace_back(scenario, rank, &fibers, &groups);
  }
  fibers.Run(scenario.layout.num_ranks,
             [&](int rank) { ranks[static_cast<size_t>(rank)].Run(); });
  for (const Rank& rank : ranks) {
    EXPECT_TRUE(rank.is_gone() || rank.end().ok() != scenario.ends_the_group())
        << rank.end();
  }
  EXPECT_THAT(groups.Findings(), ::testing::IsEmpty());
}

TEST(ExchangeFaultSimulation, ARankThatFailsEndsInATypedErrorOnAllRanks) {
  std::map<std::string, int> seen;
  for (uint64_t seed = Seeds().first; seed < Seeds().end(); ++seed) {
    const Scenario scenario(seed);
    SCOPED_TRACE(scenario.ToString());
    RunScenario(scenario);
    ASSERT_FALSE(::testing::Test::HasFailure());
    ++seen[FaultName(scenario.fault) + std::string(" before ") +
           PhaseName(scenario.phase)];
  }
  for (const auto& [what, count] : seen) {
    std::cout << what << ": " << count << "\n";
  }
  if (Seeds().count >= 200) {
    EXPECT_EQ(seen.size(), 10u);
  }
}

// One of the ranks has not come to where the group forms.
TEST(ExchangeFaultSimulation, AGroupThatARankDoesNotJoinIsNotFormed) {
  FiberRanks clock(1);
  const auto machine = std::make_shared<kernels::cuda_sim::SimMachine>(
      kernels::cuda_sim::SimOptions{.num_devices = 3});
  const auto id = kernels::cuda_sim::SimNcclComm::GetUniqueId(machine);
  std::vector<std::unique_ptr<kernels::DeviceCollectives>> come;
  for (const int rank : {0, 2}) {
    auto joins = kernels::cuda::CreateNcclCollectives(machine, id, 3, rank, rank);
    ASSERT_THAT(joins, IsOk());
    come.push_back(*std::move(joins));
  }
  const absl::Time start = clock.Now();
  EXPECT_THAT(
      worker::CreateNcclGroup("ep", std::move(come), {.timeout = kTimeout}, &clock),
      StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_LE(clock.Now() - start, worker::kFormationTimeout + kSlack);
  EXPECT_TRUE(machine->status().ok()) << machine->status();
}

}  // namespace
}  // namespace tessera::testing

int main(int argc, char** argv) {
  tessera::testing::InitSimulation(argc, argv);
  return RUN_ALL_TESTS();
}
