// A whole group on the simulated `--backend cuda`, each rank on a device of one simulated
// machine, its groups over that machine's NCCL: the same bits as one rank at any tensor
// and data parallelism, nodes, batch and chunk; and what the other ranks say when one is
// lost. Every run has a tiny model at two groups, with all checks of the simulator on.
// TESSERA_LONG_TESTS=1: all tiny models and the demo model at every group.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "common/clock.h"
#include "common/status_macros.h"
#include "engram_store/client/engram_source.h"
#include "kernels/cuda/devices/simulated_devices.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/local_devices.h"
#include "tests/integration/family_model.h"
#include "tests/integration/group_harness.h"
#include "tests/integration/step_plans.h"
#include "tests/testing/tiny_checkpoint.h"
#include "worker/runner/trace_program.h"

namespace tessera {
namespace {

using ::tessera::testing::FamilyModel;
using ::tessera::testing::GroupHarness;
using ::tessera::testing::HarnessOptions;
using ::tessera::testing::SequenceOutput;
using ::tessera::testing::TinyModel;

// Not about time: eight devices share the core of whoever waits.
constexpr absl::Duration kPatience = absl::Minutes(10);
constexpr uint64_t kSeed = 7;
constexpr int64_t kMaxModelLen = 512;

bool IsLong() { return std::getenv("TESSERA_LONG_TESTS") != nullptr; }

struct ScriptedRows {
  // The device may read the tables; otherwise they are as of another host.
  bool are_local = false;
  // Requests that are answered; later ones are kUnavailable.
  int num_good = std::numeric_limits<int>::max();
};

class ScriptedSource final : public engram_store::EngramSource {
 public:
  ScriptedSource(std::unique_ptr<engram_store::EngramSource> rows,
                 const ScriptedRows& script)
      : rows_(std::move(rows)),
        are_local_(script.are_local),
        num_good_(script.num_good) {}

  std::string_view name() const override { return "scripted"; }
  std::span<const engram_store::TableInfo> tables() const override {
    return rows_->tables();
  }
  engram_store::PendingRows Issue(size_t table, std::span<const uint32_t> row_ids,
                                  std::span<std::byte> destination) override {
    return rows_->Issue(table, row_ids, destination);
  }
  absl::Status Wait(engram_store::PendingRows pending, absl::Time deadline) override {
    const absl::Status status = rows_->Wait(pending, deadline);
    return num_good_-- > 0 ? status : absl::UnavailableError("no replica answers");
  }
  engram_store::EngramSourceStats stats() const override { return rows_->stats(); }
  std::span<const std::shared_ptr<const engram_store::EngramTable>> local_shards(
      size_t table) const override {
    return are_local_ ? rows_->local_shards(table) : EngramSource::local_shards(table);
  }

 private:
  const std::unique_ptr<engram_store::EngramSource> rows_;
  const bool are_local_;
  int num_good_;
};

cli::EngramSourceFactory Scripted(cli::EngramSourceFactory rows,
                                  const ScriptedRows& script) {
  return [rows = std::move(rows), script](
             int rank) -> absl::StatusOr<std::unique_ptr<engram_store::EngramSource>> {
    TESSERA_ASSIGN_OR_RETURN(auto source, rows(rank));
    return std::make_unique<ScriptedSource>(std::move(source), script);
  };
}

using Prompts = std::vector<std::vector<int32_t>>;

// The simulated machine of a group, also in a build whose `cuda` is a GPU.
struct Machine {
  explicit Machine(const cli::GroupShape& shape, uint64_t seed = kSeed,
                   bool check_order = false)
      : machine(std::make_shared<kernels::cuda_sim::SimMachine>(
            kernels::cuda_sim::SimOptions{.seed = seed,
                                          .num_devices = shape.num_ranks(),
                                          .check_order = check_order})),
        devices(kernels::CreateSimulatedDevices(machine)) {}

  const std::shared_ptr<kernels::cuda_sim::SimMachine> machine;
  const std::unique_ptr<kernels::LocalDevices> devices;
};

// A model that groups of the cuda backend run, and what one rank made of its prompts.
class CudaModel {
 public:
  CudaModel(const cli::LoadedModel& model, cli::EngramSourceFactory engram,
            Prompts prompts, int64_t num_tokens)
      : model_(model),
        engram_(std::move(engram)),
        prompts_(std::move(prompts)),
        num_tokens_(num_tokens) {}

  HarnessOptions Options(const Machine& machine, const cli::GroupShape& shape,
                         int64_t chunk) const {
    HarnessOptions options;
    options.devices = machine.devices.get();
    options.shape = shape;
    options.rank.backend = "cuda";
    options.rank.comm.timeout = kPatience;
    options.rank.runner.block_size = model_.config.default_block_size();
    options.rank.runner.max_model_len = kMaxModelLen;
    options.rank.runner.num_blocks = kMaxModelLen / options.rank.runner.block_size + 8;
    options.rank.runner.num_tail_blocks =
        model_.config.tail_tokens() > 0 ? options.rank.runner.num_blocks : 0;
    options.max_batched_tokens = chunk;
    options.max_sequences = std::ssize(prompts_);
    options.prefix_caching = false;
    options.step_timeout = kPatience;
    return options;
  }

  // One prompt after the other on one rank.
  void RunAlone(int64_t chunk) {
    const Machine machine({});
    auto harness = GroupHarness::Create(model_, Options(machine, {}, chunk), engram_);
    ASSERT_TRUE(harness.ok()) << harness.status();
    for (const std::vector<int32_t>& prompt : prompts_) {
      auto output = (*harness)->Run({prompt}, num_tokens_);
      ASSERT_TRUE(output.ok()) << output.status();
      ASSERT_EQ(output->front().tokens.size(), static_cast<size_t>(num_tokens_));
      alone_.push_back(output->front());
    }
  }

  void GatherOnTheHost() { engram_ = Scripted(std::move(engram_), {}); }

  // All prompts at once.
  void ExpectSameBits(const HarnessOptions& options) const {
    auto harness = GroupHarness::Create(model_, options, engram_);
    ASSERT_TRUE(harness.ok()) << harness.status();
    auto outputs = (*harness)->Run(prompts_, num_tokens_);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ASSERT_EQ(outputs->size(), alone_.size());
    for (size_t i = 0; i < alone_.size(); ++i) {
      EXPECT_EQ((*outputs)[i].tokens, alone_[i].tokens) << "prompt " << i;
      const size_t last = prompts_[i].size() + static_cast<size_t>(num_tokens_) - 1;
      // Planning ahead may compute more tokens than are wanted.
      for (int64_t at = 0; at < static_cast<int64_t>(last); ++at) {
        const auto& logits = (*outputs)[i].logits_of_position;
        ASSERT_TRUE(logits.contains(at)) << "prompt " << i << " position " << at;
        EXPECT_EQ(logits.at(at), alone_[i].logits_of_position.at(at))
            << "prompt " << i << " position " << at;
      }
    }
  }

 private:
  const cli::LoadedModel& model_;
  cli::EngramSourceFactory engram_;
  const Prompts prompts_;
  const int64_t num_tokens_;
  std::vector<SequenceOutput> alone_;
};

// A tiny model in a folder of its own.
class TinyFolder {
 public:
  explicit TinyFolder(const TinyModel& tiny)
      : path_(::testing::TempDir() + "cuda_group_XXXXXX") {
    EXPECT_NE(mkdtemp(path_.data()), nullptr);
    const absl::Status written = testing::WriteTinyCheckpoint(tiny, kSeed, path_);
    EXPECT_TRUE(written.ok()) << written;
  }
  ~TinyFolder() { std::filesystem::remove_all(path_); }
  TinyFolder(const TinyFolder&) = delete;
  TinyFolder& operator=(const TinyFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A tiny model written and loaded.
class CudaTiny : public ::testing::TestWithParam<TinyModel> {
 protected:
  void SetUp() override {
    folder_ = std::make_unique<TinyFolder>(GetParam());
    auto loaded = cli::LoadModel(folder_->path());
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    loaded_ = *std::move(loaded);
    auto engram = cli::ResidentEngram(*loaded_, Clock::Real());
    ASSERT_TRUE(engram.ok()) << engram.status();
    Prompts prompts;
    for (const int64_t length : {1, 5, 2}) {
      prompts.push_back(
          testing::TinyPrompt(GetParam(), length, kSeed + static_cast<uint64_t>(length)));
    }
    model_ =
        std::make_unique<CudaModel>(*loaded_, *std::move(engram), std::move(prompts), 2);
  }

  std::unique_ptr<TinyFolder> folder_;
  std::unique_ptr<cli::LoadedModel> loaded_;
  std::unique_ptr<CudaModel> model_;
};

struct GroupCase {
  cli::GroupShape shape;
  int64_t chunk;
};

std::vector<GroupCase> Groups() {
  if (!IsLong()) {
    return {{{.tp = 2, .dp = 2, .ranks_per_node = 2}, 3}, {{.tp = 8}, 64}};
  }
  return {{{.tp = 1}, 64},
          {{.tp = 2}, 3},
          {{.tp = 4}, 64},
          {{.tp = 8}, 64},
          {{.dp = 2}, 64},
          {{.tp = 2, .dp = 2, .ranks_per_node = 2}, 3},
          {{.dp = 4, .ranks_per_node = 2}, 64},
          {{.tp = 4, .dp = 2, .ranks_per_node = 4}, 64},
          {{.dp = 8}, 64}};
}

std::string Describe(const GroupCase& group) {
  return fmt::format("tp {} dp {} ranks per node {} chunk {}", group.shape.tp,
                     group.shape.dp, group.shape.ranks_per_node, group.chunk);
}

TEST_P(CudaTiny, HasTheBitsOfOneRankOverAnyGroup) {
  ASSERT_NO_FATAL_FAILURE(model_->RunAlone(64));
  uint64_t seed = kSeed;
  for (const GroupCase& group : Groups()) {
    SCOPED_TRACE(fmt::format("{} seed {}", Describe(group), ++seed));
    const Machine machine(group.shape, seed, /*check_order=*/true);
    model_->ExpectSameBits(model_->Options(machine, group.shape, group.chunk));
    EXPECT_TRUE(machine.machine->status().ok()) << machine.machine->status();
  }
}

// Either way that Engram rows take to a device, and a way that ends.
class CudaEngram : public CudaTiny {
 protected:
  void SetUp() override {
    CudaTiny::SetUp();
    if (loaded_ != nullptr && !loaded_->config.engram.has_value()) {
      GTEST_SKIP() << "skipped: a model without Engram";
    }
  }
  // A step of one rank, whose machine must find nothing however it ends.
  absl::Status RunScripted(const ScriptedRows& script) {
    const Machine machine({}, kSeed, /*check_order=*/true);
    HarnessOptions options = model_->Options(machine, {}, 64);
    options.rank.runner.max_tokens = 64;
    TESSERA_ASSIGN_OR_RETURN(const auto resident,
                             cli::ResidentEngram(*loaded_, Clock::Real()));
    absl::Status result;
    {
      TESSERA_ASSIGN_OR_RETURN(
          const auto ranks,
          cli::AssembleLocalGroup(*loaded_, {}, options.rank, Scripted(resident, script),
                                  *machine.devices, Clock::Real()));
      result = worker::RunTrace(loaded_->config,
                                {.ids = testing::TinyPrompt(GetParam(), 2, kSeed),
                                 .drafts = false,
                                 .placement_version = 1},
                                64, *ranks.front().runner, nullptr)
                   .status();
    }
    EXPECT_TRUE(machine.machine->status().ok()) << machine.machine->status();
    return result;
  }
};

TEST_P(CudaEngram, RowsThatTheHostGathersHaveTheBitsOfThoseThatTheDeviceReads) {
  ASSERT_NO_FATAL_FAILURE(model_->RunAlone(64));
  model_->GatherOnTheHost();
  const Machine machine({}, kSeed, /*check_order=*/true);
  model_->ExpectSameBits(model_->Options(machine, {}, 3));
  EXPECT_TRUE(machine.machine->status().ok()) << machine.machine->status();
}

TEST_P(CudaEngram, RowsThatTheDeviceReadsAreAskedOfNobody) {
  EXPECT_TRUE(RunScripted({.are_local = true, .num_good = 0}).ok());
}

TEST_P(CudaEngram, RowsThatDoNotComeEndTheStepWithTheirError) {
  // The first table's rows, or those of a later one, whose layers wait behind it.
  const auto num_tables = static_cast<int>(loaded_->config.engram->layer_ids.size());
  for (int num_good = 0; num_good < num_tables; ++num_good) {
    EXPECT_EQ(RunScripted({.num_good = num_good}).code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_TRUE(RunScripted({.num_good = num_tables}).ok());
}

// Two ranks that share a model: what they say of a step that one of them does not finish.
class LostRank : public CudaTiny {
 public:
  // The first of these prefills a sequence, each other one makes a token of it.
  static proto::StepPlan PlanOf(const cli::LoadedModel& model, uint64_t step) {
    proto::StepPlan plan =
        step == 1 ? testing::PrefillPlan(1, model.config.tail_tokens() > 0, true)
                  : testing::DecodePlan(step, 1, 0);
    if (step == 1) {
      plan.work.front().tokens = {3, 1, 4, 1, 5};
    }
    return plan;
  }

 protected:
  // `script`: of the Engram rows of rank 1.
  void Assemble(absl::Duration timeout, const ScriptedRows& script = {}) {
    const Machine machine({.tp = 2}, kSeed, /*check_order=*/true);
    machine_ = machine.machine;
    HarnessOptions options = model_->Options(machine, {.tp = 2}, 64);
    options.rank.comm.timeout = timeout;
    options.rank.runner.max_tokens = 64;
    const auto resident = cli::ResidentEngram(*loaded_, Clock::Real());
    ASSERT_TRUE(resident.ok()) << resident.status();
    const auto scripted = Scripted(*resident, script);
    auto ranks = cli::AssembleLocalGroup(
        *loaded_, {.tp = 2}, options.rank,
        [&](int rank) { return rank == 1 ? scripted(rank) : (*resident)(rank); },
        *machine.devices, Clock::Real());
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    ranks_ = *std::move(ranks);
  }
  // What ranks do wrong, and how they leave a group, is found.
  void TearDown() override {
    ranks_.clear();
    ASSERT_NE(machine_, nullptr);
    EXPECT_TRUE(machine_->status().ok()) << machine_->status();
  }
  absl::Status Run(size_t rank) {
    return worker::RunTrace(loaded_->config,
                            {.ids = testing::TinyPrompt(GetParam(), 2, kSeed),
                             .drafts = false,
                             .placement_version = 1},
                            64, *ranks_[rank].runner, nullptr)
        .status();
  }
  absl::Status Step(size_t rank, uint64_t step) {
    return ranks_[rank].runner->Execute(PlanOf(*loaded_, step)).status();
  }

  std::shared_ptr<kernels::cuda_sim::SimMachine> machine_;
  std::vector<cli::AssembledRank> ranks_;
};

TEST_P(LostRank, IsMissedByTheDeadline) {
  ASSERT_NO_FATAL_FAILURE(Assemble(absl::Milliseconds(300)));
  const absl::Time begin = absl::Now();
  const absl::Status missed = Run(0);
  EXPECT_EQ(missed.code(), absl::StatusCode::kDeadlineExceeded) << missed;
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(300));
  EXPECT_EQ(Run(1).code(), absl::StatusCode::kAborted);
}

TEST_P(LostRank, EndsTheOthersAtOnceIfItSaysSo) {
  ASSERT_NO_FATAL_FAILURE(Assemble(absl::Minutes(1)));
  std::thread dying([&] { ranks_[1].groups.Abort("the rank ended"); });
  EXPECT_EQ(Run(0).code(), absl::StatusCode::kAborted);
  dying.join();
}

TEST_P(LostRank, IsWaitedForWhereItIsLate) {
  ASSERT_NO_FATAL_FAILURE(Assemble(kPatience));
  std::thread late([&] {
    Clock::Real()->Sleep(absl::Milliseconds(300));
    EXPECT_TRUE(Run(1).ok());
  });
  EXPECT_TRUE(Run(0).ok());
  late.join();
}

TEST_P(LostRank, InADecodeStepEndsAllGroupsOfTheOthers) {
  ASSERT_NO_FATAL_FAILURE(Assemble(absl::Seconds(5)));
  std::thread other([&] { EXPECT_TRUE(Step(1, 1).ok()); });
  EXPECT_TRUE(Step(0, 1).ok());
  other.join();
  const absl::Status missed = Step(0, 2);
  EXPECT_EQ(missed.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_NE(missed.message().find("step 2: tp0 rank 0"), absl::string_view::npos)
      << missed;
  for (const cli::AssembledRank& rank : ranks_) {
    EXPECT_EQ(rank.groups.tp->Barrier().code(), absl::StatusCode::kAborted);
    EXPECT_EQ(rank.groups.ep->Barrier().code(), absl::StatusCode::kAborted);
  }
  EXPECT_EQ(Step(1, 2).code(), absl::StatusCode::kAborted);
}

// Its step stops between two collectives, of which others have enqueued both.
TEST_P(LostRank, WhoseStepFailsEndsThoseOfTheOthers) {
  ASSERT_NO_FATAL_FAILURE(Assemble(kPatience, {.num_good = 1}));
  std::thread failing(
      [&] { EXPECT_EQ(Step(1, 1).code(), absl::StatusCode::kUnavailable); });
  EXPECT_EQ(Step(0, 1).code(), absl::StatusCode::kAborted);
  failing.join();
}

// Sums and gathers of the group are in the stream, so the host waits for logits alone.
TEST(CudaDense, ADecodeStepWaitsAsOftenWhateverTheNumberOfLayers) {
  std::vector<uint64_t> waits;
  for (const int64_t num_layers : {2, 5}) {
    TinyModel tiny = testing::TinyModels()[2];
    ASSERT_EQ(tiny.name, "no_engram_all_dense");
    nlohmann::json config = nlohmann::json::parse(tiny.config_json);
    config["num_hidden_layers"] = num_layers;
    config["first_k_dense_replace"] = num_layers;
    tiny.config_json = config.dump();
    const TinyFolder folder(tiny);
    const auto loaded = cli::LoadModel(folder.path());
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const auto engram = cli::ResidentEngram(**loaded, Clock::Real());
    ASSERT_TRUE(engram.ok()) << engram.status();
    const Machine machine({.tp = 2});
    CudaModel model(**loaded, *engram, {{1}}, 1);
    HarnessOptions options = model.Options(machine, {.tp = 2}, 64);
    options.rank.runner.max_tokens = 64;
    auto ranks = cli::AssembleLocalGroup(**loaded, {.tp = 2}, options.rank, *engram,
                                         *machine.devices, Clock::Real());
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    uint64_t before = 0;
    for (uint64_t step = 1; step <= 3; ++step) {
      before = machine.machine->num_host_waits();
      std::vector<std::thread> threads;
      for (cli::AssembledRank& rank : *ranks) {
        threads.emplace_back([&] {
          const auto result = rank.runner->Execute(LostRank::PlanOf(**loaded, step));
          EXPECT_TRUE(result.ok()) << result.status();
        });
      }
      for (std::thread& thread : threads) {
        thread.join();
      }
    }
    waits.push_back(machine.machine->num_host_waits() - before);
  }
  EXPECT_EQ(waits[0], waits[1]);
  EXPECT_LE(waits[0], 2 * 4U) << "of two ranks: logits, their copy, the end";
}

std::string NameOf(const ::testing::TestParamInfo<TinyModel>& test) {
  return test.param.name;
}

INSTANTIATE_TEST_SUITE_P(Models, CudaTiny,
                         ::testing::ValuesIn(testing::TinyModelOrAll("v41_bf16")),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Models, CudaEngram,
                         ::testing::ValuesIn(testing::TinyModelOrAll("v41_bf16")),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Models, LostRank,
                         ::testing::Values(testing::TinyModels().front()), NameOf);

// In each run model_golden_test has the demo model over two ranks.
TEST(CudaDemo, HasTheBitsOfOneRankOverAnyGroup) {
  if (!IsLong()) {
    GTEST_SKIP() << "skipped: set TESSERA_LONG_TESTS=1";
  }
  const auto demo = FamilyModel::Load("demo");
  ASSERT_TRUE(demo.ok()) << demo.status();
  Prompts prompts;
  for (const std::ptrdiff_t length : {1, 9, 4}) {
    prompts.emplace_back(demo->ids.begin(), demo->ids.begin() + length);
  }
  CudaModel model(*demo->model, demo->engram, std::move(prompts), 3);
  ASSERT_NO_FATAL_FAILURE(model.RunAlone(64));
  for (const GroupCase& group : Groups()) {
    SCOPED_TRACE(Describe(group));
    const Machine machine(group.shape);
    model.ExpectSameBits(model.Options(machine, group.shape, group.chunk));
  }
}

}  // namespace
}  // namespace tessera
