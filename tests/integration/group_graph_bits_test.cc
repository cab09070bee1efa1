// A group on the simulated `--backend cuda` whose decode steps are graphs says what one
// rank alone says that runs them eagerly, bit by bit: tokens, the log-probabilities of
// the whole vocabulary, expert counts; over any tensor, data and expert parallelism and
// placement of experts, in one round of the exchange or more. Every rank is a thread on a
// device of its own, all checks of the simulator are on. Every run has a tiny model over
// some groups; TESSERA_LONG_TESTS=1: all tiny models and the demo model over all groups.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

#include "kernels/cuda/devices/simulated_devices.h"
#include "kernels/local_devices.h"
#include "routing/expert_placement.h"
#include "tests/integration/decode_script.h"
#include "tests/integration/family_model.h"
#include "tests/integration/graph_group.h"
#include "tests/integration/group_harness.h"
#include "tests/testing/tiny_checkpoint.h"
#include "worker/comm/exchange_rounds.h"

namespace tessera {
namespace {

using ::tessera::testing::DecodeOptions;
using ::tessera::testing::ExpectTheBitsOfOneRank;
using ::tessera::testing::FamilyModel;
using ::tessera::testing::GraphGroup;
using ::tessera::testing::MakeGroupMachine;
using ::tessera::testing::RunAlone;
using ::tessera::testing::Said;
using ::tessera::testing::ScriptStep;
using ::tessera::testing::Served;
using ::tessera::testing::ServedTiny;
using ::tessera::testing::TinyModel;

constexpr uint64_t kSeed = 13;
constexpr uint32_t kSequences = 5;

bool IsLong() { return std::getenv("TESSERA_LONG_TESTS") != nullptr; }

// Batches of several sizes, some of which leave ranks without work; prompts beside
// decodes; pages that pass to another sequence.
std::vector<ScriptStep> Script() {
  std::vector<ScriptStep> steps(1);
  for (uint32_t sequence = 0; sequence < kSequences; ++sequence) {
    steps[0].admits.emplace_back(sequence, sequence);
  }
  steps.push_back({.decodes = {0, 1, 2, 3, 4}});
  steps.push_back({.decodes = {2}});
  steps.push_back({.decodes = {3, 1, 4}});
  steps.push_back({.decodes = {1, 4}, .admits = {{0, 31}}, .releases = {0, 3}});
  steps.push_back({.decodes = {4, 0}});
  steps.push_back({.decodes = {}, .admits = {{3, 32}}});
  steps.push_back({.decodes = {2, 3, 0, 1, 4}, .reports = true});
  return steps;
}

// Of every size up to all sequences, up and down.
std::vector<ScriptStep> ScriptOfAnyBatch() {
  std::vector<ScriptStep> steps = {Script().front()};
  for (uint32_t size = 1; size <= kSequences; ++size) {
    for (const uint32_t first : {uint32_t{0}, kSequences - size}) {
      ScriptStep step;
      for (uint32_t sequence = first; sequence < first + size; ++sequence) {
        step.decodes.push_back(sequence);
      }
      steps.push_back(step);
    }
  }
  return steps;
}

int64_t SlotsOf(const cli::GroupShape& shape) {
  return (int64_t{kSequences} + shape.dp - 1) / shape.dp;
}

std::string Describe(const cli::GroupShape& shape) {
  return fmt::format("tp {} dp {} ranks per node {}", shape.tp, shape.dp,
                     shape.ranks_per_node);
}

cli::RankOptions GraphOptions(const Served& served, const cli::GroupShape& shape) {
  cli::RankOptions options = DecodeOptions(served, SlotsOf(shape), true);
  options.comm.timeout = absl::Minutes(10);  // not about time
  return options;
}

// How rows go to experts: those of a step with two rows a rank or more in two rounds, and
// in long runs also in as many as there are rows.
std::vector<worker::RoundPolicy> Rounds() {
  std::vector<worker::RoundPolicy> rounds = {{.min_rows = 2}};
  if (IsLong()) {
    rounds.push_back({.min_rows = 1, .max_round_rows = 1});
  }
  return rounds;
}

void ExpectTheBitsOfOneRankOver(const Served& served,
                                const std::vector<cli::GroupShape>& shapes,
                                const std::vector<ScriptStep>& script) {
  const std::vector<Said> alone = RunAlone(served, kSequences, script);
  for (const cli::GroupShape& shape : shapes) {
    for (const worker::RoundPolicy& rounds : Rounds()) {
      SCOPED_TRACE(fmt::format("{}, at most {} rows in a round", Describe(shape),
                               rounds.max_round_rows));
      cli::RankOptions options = GraphOptions(served, shape);
      options.runner.exchange_rounds = rounds;
      GraphGroup group(served, shape, options, MakeGroupMachine(shape, kSeed));
      ExpectTheBitsOfOneRank(group, SlotsOf(shape), script, alone);
    }
  }
}

std::vector<cli::GroupShape> Shapes() {
  if (!IsLong()) {
    return {{.tp = 2, .dp = 2, .ranks_per_node = 2}};
  }
  return {{.tp = 1},
          {.tp = 2},
          {.tp = 4},
          {.tp = 8},
          {.dp = 2},
          {.tp = 2, .dp = 2, .ranks_per_node = 2},
          {.dp = 4, .ranks_per_node = 2},
          {.tp = 4, .dp = 2, .ranks_per_node = 4},
          {.tp = 2, .dp = 4},
          {.dp = 8}};
}

class GroupGraphs : public ::testing::TestWithParam<TinyModel> {
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

TEST_P(GroupGraphs, HaveTheBitsOfOneRankOverAnyGroup) {
  ExpectTheBitsOfOneRankOver(served_, Shapes(), Script());
}

TEST_P(GroupGraphs, HaveTheBitsOfOneRankInBatchesOfAnySize) {
  if (!IsLong()) {
    GTEST_SKIP() << "skipped: set TESSERA_LONG_TESTS=1";
  }
  ExpectTheBitsOfOneRankOver(served_, Shapes(), ScriptOfAnyBatch());
}

// A rank that has one expert alone; and, in long runs, experts in turn. Nothing overlaps.
TEST_P(GroupGraphs, HaveTheBitsOfOneRankForAnyPlacement) {
  const cli::GroupShape shape = {.tp = 2};
  std::vector<ScriptStep> script = Script();
  if (!IsLong()) {
    script.resize(3);
  }
  const std::vector<Said> alone = RunAlone(served_, kSequences, script);
  cli::RankOptions options = GraphOptions(served_, shape);
  options.runner.exchange_rounds.reset();
  GraphGroup group(served_, shape, options, MakeGroupMachine(shape, kSeed));
  routing::ExpertPlacement in_turn = group.StaticPlacement();
  routing::ExpertPlacement uneven = in_turn;
  for (size_t expert = 0; expert < in_turn.rank_of_expert.size(); ++expert) {
    in_turn.rank_of_expert[expert] = static_cast<int>(expert % 2);
    uneven.rank_of_expert[expert] = expert == 3 ? 0 : 1;
  }
  std::vector<routing::ExpertPlacement> placements = {uneven};
  if (IsLong()) {
    placements.push_back(in_turn);
  }
  uint64_t epoch = 1;
  for (const routing::ExpertPlacement& placement : placements) {
    group.CreateRunners(placement);
    for (const absl::Status& status : group.Capture()) {
      ASSERT_TRUE(status.ok()) << status;
    }
    group.Begin(++epoch);
    ExpectTheBitsOfOneRank(group, SlotsOf(shape), script, alone);
  }
}

// Of plans that the scheduler makes, one step ahead of what it knows.
TEST_P(GroupGraphs, AreTheDecodeStepsThatTheSchedulerPlans) {
  constexpr int64_t kTokens = 4;
  std::vector<std::vector<int32_t>> tokens_alone;
  for (const cli::GroupShape& shape : {cli::GroupShape{}, cli::GroupShape{.dp = 2}}) {
    SCOPED_TRACE(Describe(shape));
    const auto machine = MakeGroupMachine(shape, kSeed);
    const auto devices = kernels::CreateSimulatedDevices(machine);
    testing::HarnessOptions options;
    options.shape = shape;
    options.rank = DecodeOptions(served_, 2, shape.dp > 1);
    options.rank.comm.timeout = absl::Minutes(10);
    options.devices = devices.get();
    options.step_timeout = absl::Minutes(10);
    options.max_batched_tokens = 32;
    options.max_sequences = 2;
    options.record_logits = false;
    auto harness = testing::GroupHarness::Create(*served_.model, options, served_.engram);
    ASSERT_TRUE(harness.ok()) << harness.status();
    const auto outputs =
        (*harness)->Run({{served_.ids.begin(), served_.ids.begin() + 2},
                         {served_.ids.begin() + 3, served_.ids.begin() + 6},
                         {served_.ids.begin() + 1, served_.ids.begin() + 4}},
                        kTokens);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    for (size_t i = 0; i < outputs->size(); ++i) {
      if (shape.dp == 1) {
        tokens_alone.push_back((*outputs)[i].tokens);
      }
      EXPECT_EQ((*outputs)[i].tokens, tokens_alone[i]) << "sequence " << i;
    }
    EXPECT_EQ((*harness)->totals().num_graph_steps >= kTokens - 1, shape.dp > 1);
    harness->reset();
    EXPECT_TRUE(machine->status().ok()) << machine->status();
  }
}

std::string NameOf(const ::testing::TestParamInfo<TinyModel>& test) {
  return test.param.name;
}

INSTANTIATE_TEST_SUITE_P(Models, GroupGraphs,
                         ::testing::ValuesIn(testing::TinyModelOrAll("v41_bf16")),
                         NameOf);

// Numerics fp8-g128: rows go to the experts in FP8, or in float32 and are rounded there,
// and one rank alone sends none.
class Fp8Graphs : public ::testing::Test {
 protected:
  static void ExpectTheBitsOfOneEagerRank(const Served& served,
                                          const std::vector<cli::GroupShape>& shapes) {
    std::vector<ScriptStep> script = Script();
    if (!IsLong()) {
      script.resize(4);
    }
    const std::vector<Said> alone = RunAlone(served, kSequences, script, "fp8-g128");
    EXPECT_NE(alone[0].of_sequence,
              RunAlone(served, kSequences, {script[0]})[0].of_sequence);
    for (const cli::GroupShape& shape : shapes) {
      for (const bool fp8_dispatch : {true, false}) {
        if (shape.num_ranks() == 1 && !fp8_dispatch) {
          continue;  // there is no wire
        }
        SCOPED_TRACE(Describe(shape) + (fp8_dispatch ? ", FP8" : ", float32"));
        cli::RankOptions options = GraphOptions(served, shape);
        options.numerics = "fp8-g128";
        options.runner.fp8_dispatch = fp8_dispatch;
        options.runner.exchange_rounds = Rounds().front();
        GraphGroup group(served, shape, options, MakeGroupMachine(shape, kSeed));
        ExpectTheBitsOfOneRank(group, SlotsOf(shape), script, alone);
      }
    }
  }
};

TEST_F(Fp8Graphs, HaveTheBitsOfOneEagerRankOverAnyGroup) {
  const auto tiny = ServedTiny::Create(testing::TinyFp8Experts(), kSeed);
  ASSERT_TRUE(tiny.ok()) << tiny.status();
  std::vector<cli::GroupShape> shapes = {{}, {.tp = 2, .dp = 2, .ranks_per_node = 2}};
  if (IsLong()) {
    shapes = Shapes();
    shapes.push_back({});
  }
  ExpectTheBitsOfOneEagerRank((*tiny)->served(), shapes);
}

TEST_F(Fp8Graphs, OfFp4ExpertsHaveTheBitsOfOneEagerRank) {
  if (!IsLong()) {
    GTEST_SKIP() << "skipped: set TESSERA_LONG_TESTS=1";
  }
  const auto demo = FamilyModel::Load("demo");
  ASSERT_TRUE(demo.ok()) << demo.status();
  ExpectTheBitsOfOneEagerRank(
      {.model = demo->model.get(), .engram = demo->engram, .ids = demo->ids},
      {{}, {.tp = 2}, {.dp = 2}});
}

TEST(DemoGroupGraphs, HaveTheBitsOfOneRankOverAnyGroup) {
  if (!IsLong()) {
    GTEST_SKIP() << "skipped: set TESSERA_LONG_TESTS=1";
  }
  const auto demo = FamilyModel::Load("demo");
  ASSERT_TRUE(demo.ok()) << demo.status();
  const Served served = {
      .model = demo->model.get(), .engram = demo->engram, .ids = demo->ids};
  ExpectTheBitsOfOneRankOver(served, Shapes(), Script());
}

}  // namespace
}  // namespace tessera
