// A rank whose decode steps are graphs on the simulated `--backend cuda` says what one
// that runs them eagerly says, bit by bit: tokens, log-probabilities, counts. One script
// has batches of every size in any order, prompts in between, and pages that pass from
// one sequence to another. All checks of the simulator are on, stale arguments of graphs
// among them. Every run has some tiny models; TESSERA_LONG_TESTS=1: all of them, every
// family, and the demo model.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/cuda/devices/simulated_devices.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/local_devices.h"
#include "proto/decode_rows.h"
#include "proto/step_plan.h"
#include "tests/integration/decode_script.h"
#include "tests/integration/family_model.h"
#include "tests/testing/tiny_checkpoint.h"
#include "worker/layers/step_context.h"
#include "worker/runner/model_runner.h"

namespace tessera {
namespace {

using ::tessera::testing::DecodeOptions;
using ::tessera::testing::FamilyModel;
using ::tessera::testing::Gathered;
using ::tessera::testing::PlanWriter;
using ::tessera::testing::Served;
using ::tessera::testing::ServedTiny;
using ::tessera::testing::TinyModel;

constexpr uint64_t kSeed = 11;

bool IsLong() { return std::getenv("TESSERA_LONG_TESTS") != nullptr; }

// One rank on a simulated machine of its own, and the plans that it is given.
class Rank : public PlanWriter {
 public:
  Rank(const Served& served, const cli::RankOptions& options)
      : PlanWriter(&served),
        machine_(std::make_shared<kernels::cuda_sim::SimMachine>(
            kernels::cuda_sim::SimOptions{.seed = kSeed, .check_order = true})),
        devices_(kernels::CreateSimulatedDevices(machine_)) {
    auto ranks = cli::AssembleLocalGroup(*served.model, {}, options, served.engram,
                                         *devices_, Clock::Real());
    EXPECT_TRUE(ranks.ok()) << ranks.status();
    ranks_ = *std::move(ranks);
  }
  ~Rank() {
    ranks_.clear();
    EXPECT_TRUE(machine_->status().ok()) << machine_->status();
  }

  absl::StatusOr<proto::StepResult> Execute() {
    plan().decode_rows = proto::DecodeRowsOf({&plan(), 1});
    const uint64_t before = machine_->num_launches();
    const uint64_t rows_before = EngramRows();
    auto result = runner().Execute(plan());
    num_launches_ = static_cast<int64_t>(machine_->num_launches() - before);
    if (result.ok()) {  // whoever read them
      EXPECT_EQ(EngramRows() - rows_before, result->counters.engram_rows);
    }
    BeginNextStep();
    return result;
  }

  worker::ModelRunner& runner() { return *ranks_.front().runner; }
  // Kernels that the host launched one by one in the last step.
  int64_t num_launches() const { return num_launches_; }

 private:
  uint64_t EngramRows() const {
    const auto& source = ranks_.front().engram;
    return source == nullptr ? 0 : source->stats().lookups;
  }

  const std::shared_ptr<kernels::cuda_sim::SimMachine> machine_;
  const std::unique_ptr<kernels::LocalDevices> devices_;
  std::vector<cli::AssembledRank> ranks_;
  int64_t num_launches_ = 0;
};

std::vector<uint32_t> FirstSlots(uint32_t count) {
  std::vector<uint32_t> slots(count);
  std::iota(slots.begin(), slots.end(), 0U);
  return slots;
}

// Runs `script` on a rank that has graphs and on one that has none; all results are the
// same but for how the steps were run.
class Comparison {
 public:
  Comparison(const Served& served, int64_t max_slots)
      : eager_(served, DecodeOptions(served, max_slots, false)),
        graphs_(served, DecodeOptions(served, max_slots, true)),
        max_launches_(served.model->config.engram.has_value()
                          ? std::ssize(served.model->config.engram->layer_ids)
                          : 0) {}

  template <typename Fill>
  void Plan(const Fill& fill) {
    fill(eager_);
    fill(graphs_);
  }

  // The step is a launch of a graph of so many rows; 0: it runs eagerly.
  void Execute(uint32_t graph_rows) {
    SCOPED_TRACE(fmt::format("step {} of {} works, in a graph of {}", graphs_.plan().step,
                             graphs_.plan().work.size(), graph_rows));
    const auto expected = eager_.Execute();
    const auto seen = graphs_.Execute();
    ASSERT_TRUE(expected.ok()) << expected.status();
    ASSERT_TRUE(seen.ok()) << seen.status();
    EXPECT_EQ(seen->sampled, expected->sampled);
    EXPECT_FALSE(seen->sampled.empty());
    EXPECT_EQ(seen->expert_counts, expected->expert_counts);
    EXPECT_EQ(seen->counters.num_tokens, expected->counters.num_tokens);
    EXPECT_EQ(seen->counters.engram_rows, expected->counters.engram_rows);
    EXPECT_EQ(seen->counters.expert_imbalance, expected->counters.expert_imbalance);
    EXPECT_EQ(expected->counters.graph_rows, 0);
    EXPECT_EQ(seen->counters.graph_rows, graph_rows);
    if (graph_rows > 0) {
      EXPECT_LE(graphs_.num_launches(), max_launches_) << "but for Engram's rows";
    }
  }
  void Decode(const std::vector<uint32_t>& slots, uint32_t graph_rows) {
    Plan([&](Rank& rank) { rank.Decode(slots); });
    Execute(graph_rows);
  }

 private:
  Rank eager_;
  Rank graphs_;
  const int64_t max_launches_;
};

// Buckets of 4, 2 and 1: full, and with a row of padding.
void ExpectTheBitsOfEagerSteps(const Served& served) {
  Comparison comparison(served, 4);
  comparison.Plan([](Rank& rank) {
    for (const uint32_t slot : FirstSlots(3)) {
      rank.Admit(slot, slot, slot);
    }
  });
  comparison.Execute(0);
  comparison.Decode({0, 1, 2}, 4);
  comparison.Decode({1}, 1);
  comparison.Decode({2, 0}, 2);
  // Pages pass from one sequence to another, beside one that goes on.
  comparison.Plan([](Rank& rank) {
    rank.plan().releases = {0, 1};
    rank.Decode({2});
    rank.Admit(0, 1, 30);
    rank.Admit(1, 0, 31);
  });
  comparison.Execute(0);
  comparison.Decode({1, 0, 2}, 4);
  comparison.Plan([](Rank& rank) { rank.Admit(3, 3, 5); });
  comparison.Execute(0);
  comparison.Plan([](Rank& rank) {
    rank.Decode(FirstSlots(4));
    rank.plan().reports_expert_counts = true;
  });
  comparison.Execute(4);
}

// Each number of rows up to 12, in buckets of 12, 8, 4, 2 and 1, falling and rising.
void ExpectTheBitsOfAnyBatch(const Served& served) {
  constexpr uint32_t kSlots = 12;
  Comparison comparison(served, kSlots);
  comparison.Plan([](Rank& rank) {
    for (const uint32_t slot : FirstSlots(kSlots)) {
      rank.Admit(slot, (slot + 5) % kSlots, slot);
    }
  });
  comparison.Execute(0);
  for (uint32_t rows = kSlots; rows > 0; rows -= 2) {
    comparison.Decode(FirstSlots(rows), rows > 8 ? 12 : std::bit_ceil(rows));
    comparison.Decode(FirstSlots(kSlots + 1 - rows),
                      kSlots + 1 - rows > 8 ? 12 : std::bit_ceil(kSlots + 1 - rows));
  }
}

class TinyDecodeGraphs : public ::testing::TestWithParam<TinyModel> {
 protected:
  void SetUp() override {
    auto tiny = ServedTiny::Create(GetParam(), kSeed);
    ASSERT_TRUE(tiny.ok()) << tiny.status();
    tiny_ = *std::move(tiny);
    served_ = tiny_->served();
  }

  std::unique_ptr<ServedTiny> tiny_;
  Served served_;
};

TEST_P(TinyDecodeGraphs, HaveTheBitsOfEagerSteps) { ExpectTheBitsOfEagerSteps(served_); }

TEST_P(TinyDecodeGraphs, HaveTheBitsOfEagerStepsInBatchesOfAnySize) {
  if (!IsLong()) {
    GTEST_SKIP() << "skipped: set TESSERA_LONG_TESTS=1";
  }
  ExpectTheBitsOfAnyBatch(served_);
}

std::string NameOf(const ::testing::TestParamInfo<TinyModel>& test) {
  return test.param.name;
}

INSTANTIATE_TEST_SUITE_P(Models, TinyDecodeGraphs,
                         ::testing::ValuesIn(testing::TinyModelOrAll("odd_sizes")),
                         NameOf);

// What does not depend on the model.
class DecodeGraphs : public TinyDecodeGraphs {
 protected:
  // Admits two sequences; then decodes one. The graph of that step.
  uint32_t GraphRowsOf(Rank& rank) {
    rank.Admit(0, 0, 3);
    rank.Admit(1, 1, 4);
    EXPECT_TRUE(rank.Execute().ok());
    rank.Decode({0});
    const auto result = rank.Execute();
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? result->counters.graph_rows : 0;
  }
};

TEST_P(DecodeGraphs, AreUsedWhereTheyAreWanted) {
  Rank with(served_, DecodeOptions(served_, 2, true));
  EXPECT_EQ(GraphRowsOf(with), 1U);
  Rank without(served_, DecodeOptions(served_, 2, false));
  EXPECT_EQ(GraphRowsOf(without), 0U);
}

TEST_P(DecodeGraphs, AreNoneBeyondTheirBudget) {
  cli::RankOptions options = DecodeOptions(served_, 2, true);
  options.runner.decode_graph_time = absl::ZeroDuration();
  Rank rank(served_, options);
  EXPECT_EQ(GraphRowsOf(rank), 0U);
}

TEST_P(DecodeGraphs, AreNoneBesideDrafts) {
  cli::RankOptions options = DecodeOptions(served_, 2, true);
  options.runner.num_speculative_tokens = 1;
  Rank rank(served_, options);
  EXPECT_EQ(GraphRowsOf(rank), 0U);
}

class NoSink final : public worker::TraceSink {
 public:
  void Record(std::string_view, int64_t, kernels::TensorView) override {}
};

TEST_P(DecodeGraphs, AreNotUsedWhileAStepIsTraced) {
  Rank rank(served_, DecodeOptions(served_, 2, true));
  NoSink sink;
  rank.runner().SetTrace(&sink, /*all_logits=*/false);
  EXPECT_EQ(GraphRowsOf(rank), 0U);
  rank.runner().SetTrace(nullptr, /*all_logits=*/false);
  rank.Decode({1});
  const auto result = rank.Execute();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->counters.graph_rows, 1U);
}

TEST_P(DecodeGraphs, TakeRowsThatTheHostGathers) {
  served_.engram = Gathered(std::move(served_.engram));
  ExpectTheBitsOfEagerSteps(served_);
}

TEST_P(DecodeGraphs, EndWithTheErrorOfRowsThatDoNotComeAndWorkInTheNextEpoch) {
  const auto num_tables = std::ssize(served_.model->config.engram->layer_ids);
  ASSERT_GT(num_tables, 1);
  // Good ones: those of the start, of the prompt, and the first of the decode step.
  served_.engram =
      Gathered(std::move(served_.engram), static_cast<int>(2 * num_tables + 1));
  Rank rank(served_, DecodeOptions(served_, 2, true));
  rank.Admit(0, 0, 3);
  ASSERT_TRUE(rank.Execute().ok());
  rank.Decode({0});
  EXPECT_EQ(rank.Execute().status().code(), absl::StatusCode::kUnavailable);
  rank.Begin(2);
  EXPECT_EQ(GraphRowsOf(rank), 1U);
}

std::vector<TinyModel> ATinyModel() {
  std::vector<TinyModel> models = testing::TinyModels();
  std::erase_if(models, [](const TinyModel& tiny) { return tiny.name != "v41_bf16"; });
  return models;
}

INSTANTIATE_TEST_SUITE_P(Model, DecodeGraphs, ::testing::ValuesIn(ATinyModel()), NameOf);

class FamilyDecodeGraphs : public ::testing::TestWithParam<const char*> {};

TEST_P(FamilyDecodeGraphs, HaveTheBitsOfEagerSteps) {
  if (!IsLong()) {
    GTEST_SKIP() << "skipped: set TESSERA_LONG_TESTS=1";
  }
  const auto family = FamilyModel::Load(GetParam());
  ASSERT_TRUE(family.ok()) << family.status();
  ExpectTheBitsOfEagerSteps(
      {.model = family->model.get(), .engram = family->engram, .ids = family->ids});
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyDecodeGraphs,
                         ::testing::Values("v3", "v32", "v4", "v4_0731", "v41", "demo"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tessera
