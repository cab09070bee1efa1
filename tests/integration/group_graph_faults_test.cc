// What the ranks of a group whose decode steps are graphs say where one of them cannot
// capture, or is missing in a capture or a launch: a typed error of each, within the
// deadline, or eager steps of all. All checks of the simulator are on, and no case may
// leave a finding.
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/ranks/rank_assembly.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/cuda/devices/simulated_devices.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/local_devices.h"
#include "tests/integration/decode_script.h"
#include "tests/integration/graph_group.h"
#include "tests/testing/tiny_checkpoint.h"
#include "worker/runner/model_runner.h"

namespace tessera {
namespace {

using ::tessera::testing::DecodeOptions;
using ::tessera::testing::ExpectTheBitsOfOneRank;
using ::tessera::testing::Gathered;
using ::tessera::testing::GraphGroup;
using ::tessera::testing::MakeGroupMachine;
using ::tessera::testing::RunAlone;
using ::tessera::testing::RunStep;
using ::tessera::testing::Said;
using ::tessera::testing::ScriptStep;
using ::tessera::testing::Served;
using ::tessera::testing::ServedTiny;
using ::tessera::testing::TinyModel;

constexpr uint64_t kSeed = 13;
constexpr int64_t kSlots = 2;
constexpr cli::GroupShape kShape = {.tp = 2};
constexpr absl::Duration kPatience = absl::Minutes(10);  // not about time
constexpr absl::Duration kShort = absl::Seconds(2);

// Prompts, then decode steps.
std::vector<ScriptStep> Script() {
  return {{.decodes = {}, .admits = {{0, 0}, {1, 1}}},
          {.decodes = {0, 1}},
          {.decodes = {1}, .reports = true}};
}

class GroupGraphFaults : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    for (const TinyModel& model : testing::TinyModels()) {
      if (model.name == "v41_bf16") {
        auto tiny = ServedTiny::Create(model, kSeed);
        ASSERT_TRUE(tiny.ok()) << tiny.status();
        tiny_ = *std::move(tiny);
      }
    }
    alone_ = RunAlone(tiny_->served(), kSlots, Script());
  }
  static void TearDownTestSuite() { tiny_ = nullptr; }
  void SetUp() override { served_ = tiny_->served(); }

  // A group that captures with this timeout.
  std::unique_ptr<GraphGroup> Form(absl::Duration timeout) const {
    return Form(timeout, MakeGroupMachine(kShape, kSeed));
  }
  std::unique_ptr<GraphGroup> Form(
      absl::Duration timeout,
      std::shared_ptr<kernels::cuda_sim::SimMachine> machine) const {
    cli::RankOptions options = DecodeOptions(served_, kSlots, true);
    options.comm.timeout = timeout;
    return std::make_unique<GraphGroup>(served_, kShape, options, std::move(machine));
  }
  // The first two steps, of which the second is a graph of `graph_rows`.
  static void Begin(GraphGroup& group, uint32_t graph_rows = 2) {
    RunStep(group, Script()[0]);
    EXPECT_EQ(RunStep(group, Script()[1]).graph_rows,
              std::vector<uint32_t>(2, graph_rows));
  }

  static std::unique_ptr<ServedTiny> tiny_;
  static std::vector<Said> alone_;
  Served served_;
};

std::unique_ptr<ServedTiny> GroupGraphFaults::tiny_;
std::vector<Said> GroupGraphFaults::alone_;

TEST_F(GroupGraphFaults, ARankIsMissedByTheDeadlineAndAnEndedGroupStaysSo) {
  const auto group = Form(kShort);
  Begin(*group);
  group->Decode({1});
  const absl::Time begin = absl::Now();
  const auto missed = group->Step([](size_t rank) { return rank == 0; });
  EXPECT_EQ(missed[0].status().code(), absl::StatusCode::kDeadlineExceeded)
      << missed[0].status();
  EXPECT_NE(missed[0].status().message().find("step 3: "), absl::string_view::npos)
      << missed[0].status();
  EXPECT_GE(absl::Now() - begin, kShort);
  group->Begin(2);
  group->Decode({1});
  const auto ended = group->Step([](size_t rank) { return rank == 1; });
  EXPECT_FALSE(ended[1].ok());
}

TEST_F(GroupGraphFaults, ARankThatEndsEndsTheStepOfTheOthers) {
  const auto group = Form(kPatience);
  Begin(*group);
  group->Decode({1});
  const auto results = group->Step([&](size_t rank) {
    if (rank == 1) {
      Clock::Real()->Sleep(absl::Milliseconds(50));
      group->ranks()[1].groups.Abort("the rank ended");
    }
    return rank == 0;
  });
  EXPECT_EQ(results[0].status().code(), absl::StatusCode::kAborted)
      << results[0].status();
}

TEST_F(GroupGraphFaults, ALateRankIsWaitedFor) {
  const std::vector<ScriptStep> script = Script();
  const auto group = Form(kPatience);
  Begin(*group);
  group->Decode(script[2].decodes);
  const auto results = group->Step([](size_t rank) {
    Clock::Real()->Sleep(rank == 1 ? absl::Milliseconds(300) : absl::ZeroDuration());
    return true;
  });
  ASSERT_TRUE(results[0].ok()) << results[0].status();
  ASSERT_TRUE(results[1].ok()) << results[1].status();
  EXPECT_EQ(results[0]->counters.graph_rows, 1);
  ASSERT_EQ(results[0]->sampled.size(), 1);
  EXPECT_EQ(results[0]->sampled[0], alone_[2].of_sequence.at(1));
}

// In front of the launch, where the other rank's graph waits for this one's.
TEST_F(GroupGraphFaults, ARankWithoutItsRowsEndsTheStepOfTheOthers) {
  const auto num_tables =
      static_cast<int>(served_.model->config.engram->layer_ids.size());
  // Good ones: those of the start, the prompts and a decode step.
  const cli::EngramSourceFactory rows = served_.engram;
  const cli::EngramSourceFactory failing = Gathered(rows, 3 * num_tables);
  served_.engram = [&](int rank) { return rank == 1 ? failing(rank) : rows(rank); };
  const auto group = Form(kPatience);
  Begin(*group);
  group->Decode({1});
  const auto results = group->Step();
  EXPECT_EQ(results[0].status().code(), absl::StatusCode::kAborted)
      << results[0].status();
  EXPECT_EQ(results[1].status().code(), absl::StatusCode::kUnavailable)
      << results[1].status();
}

TEST_F(GroupGraphFaults, ABucketThatNobodyKnowsIsEveryRanksError) {
  const auto group = Form(kPatience);
  Begin(*group);
  group->Decode({1});
  for (testing::PlanWriter& writer : group->plans()) {
    writer.plan().decode_rows = kSlots + 1;
  }
  for (const auto& result : group->Execute()) {
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument)
        << result.status();
  }
}

// The communicators of the graphs before it are gone.
TEST_F(GroupGraphFaults, AGroupThatIsFormedAnewCapturesAnew) {
  const auto machine = MakeGroupMachine(kShape, kSeed);
  {
    const auto group = Form(kShort, machine);
    Begin(*group);
    group->Decode({1});
    EXPECT_FALSE(group->Step([](size_t rank) { return rank == 1; })[1].ok());
  }
  const auto group = Form(kPatience, machine);
  ExpectTheBitsOfOneRank(*group, kSlots, Script(), alone_);
}

TEST_F(GroupGraphFaults, ARankThatHasNotCapturedLeavesItsGroupEager) {
  const std::vector<ScriptStep> script = Script();
  const auto group = Form(kPatience);
  group->CreateRunners(
      group->StaticPlacement(), [](size_t rank, worker::RunnerOptions& options) {
        options.decode_graph_time = rank == 1 ? absl::ZeroDuration() : absl::Hours(1);
      });
  for (const absl::Status& status : group->Capture()) {
    EXPECT_TRUE(status.ok()) << status;
  }
  for (size_t i = 0; i < script.size(); ++i) {
    const Said said = RunStep(*group, script[i]);
    EXPECT_EQ(said.of_sequence, alone_[i].of_sequence) << "step " << i + 1;
    EXPECT_EQ(said.graph_rows, std::vector<uint32_t>(2, 0)) << "step " << i + 1;
  }
}

TEST_F(GroupGraphFaults, ARankWithoutRowsForACaptureLeavesItsGroupEager) {
  const cli::EngramSourceFactory rows = served_.engram;
  const cli::EngramSourceFactory failing = Gathered(rows, 0);
  served_.engram = [&](int rank) { return rank == 1 ? failing(rank) : rows(rank); };
  const auto group = Form(kPatience);
  Begin(*group, 0);
}

// Devices that do not reach each other.
class Apart final : public kernels::LocalDevices {
 public:
  explicit Apart(std::unique_ptr<kernels::LocalDevices> devices)
      : devices_(std::move(devices)) {}
  absl::StatusOr<std::unique_ptr<kernels::KernelBackend>> CreateBackend(
      int rank) override {
    return devices_->CreateBackend(rank);
  }
  bool has_collectives() const override { return false; }
  bool reaches_processes() const override { return false; }
  kernels::DeviceIdentity identity(int rank) const override {
    return devices_->identity(rank);
  }
  absl::StatusOr<kernels::DeviceGroupId> NewGroupId() override {
    return absl::UnimplementedError("no collectives");
  }
  absl::StatusOr<std::unique_ptr<kernels::DeviceCollectives>> JoinGroup(
      const kernels::DeviceGroupId& /*id*/, int /*size*/, int /*rank*/,
      int /*local*/) override {
    return absl::UnimplementedError("no collectives");
  }

 private:
  const std::unique_ptr<kernels::LocalDevices> devices_;
};

TEST_F(GroupGraphFaults, RanksThatMeetInTheHostsMemoryRunEagerly) {
  const auto machine = MakeGroupMachine(kShape, kSeed);
  cli::RankOptions options = DecodeOptions(served_, kSlots, true);
  options.comm.timeout = kPatience;
  GraphGroup group(served_, kShape, options, machine,
                   std::make_unique<Apart>(kernels::CreateSimulatedDevices(machine)));
  for (size_t i = 0; i < Script().size(); ++i) {
    const Said said = RunStep(group, Script()[i]);
    EXPECT_EQ(said.of_sequence, alone_[i].of_sequence) << "step " << i + 1;
    EXPECT_EQ(said.graph_rows, std::vector<uint32_t>(2, 0)) << "step " << i + 1;
  }
}

TEST_F(GroupGraphFaults, ARankThatDoesNotCaptureIsMissedByTheDeadline) {
  const auto group = Form(kShort);
  group->CreateRunners(group->StaticPlacement());
  const absl::Time begin = absl::Now();
  const absl::Status missed = group->ranks()[0].runner->CaptureDecodeSteps();
  EXPECT_EQ(missed.code(), absl::StatusCode::kDeadlineExceeded) << missed;
  EXPECT_LT(absl::Now() - begin, absl::Minutes(1));
  EXPECT_FALSE(group->ranks()[1].runner->CaptureDecodeSteps().ok());
}

}  // namespace
}  // namespace tessera
