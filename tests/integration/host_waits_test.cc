// How often the host waits for the device in a decode step of one rank, counted by the
// simulator: as often whatever the number of layers with experts.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "common/clock.h"
#include "kernels/cuda/devices/simulated_devices.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/local_devices.h"
#include "proto/step_plan.h"
#include "tests/integration/step_plans.h"
#include "tests/testing/tiny_checkpoint.h"

namespace tessera {
namespace {

constexpr uint32_t kSequences = 1;

// A model of `num_layers` layers, all but the first with experts.
class Folder {
 public:
  explicit Folder(int64_t num_layers) {
    testing::TinyModel tiny = testing::TinyModels().front();
    nlohmann::json config = nlohmann::json::parse(tiny.config_json);
    config["num_hidden_layers"] = num_layers;
    config["first_k_dense_replace"] = 1;
    tiny.config_json = config.dump();
    path_ = ::testing::TempDir() + "host_waits_XXXXXX";
    TESSERA_CHECK(mkdtemp(path_.data()) != nullptr);
    const absl::Status written = testing::WriteTinyCheckpoint(tiny, 7, path_);
    EXPECT_TRUE(written.ok()) << written;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Of the third step: what is made at first calls is there.
uint64_t WaitsOfADecodeStep(int64_t num_layers) {
  const Folder folder(num_layers);
  const auto loaded = cli::LoadModel(folder.path());
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  const auto engram = cli::ResidentEngram(**loaded, Clock::Real());
  EXPECT_TRUE(engram.ok()) << engram.status();
  const auto machine = std::make_shared<kernels::cuda_sim::SimMachine>(
      kernels::cuda_sim::SimOptions{.check_order = false});
  const auto devices = kernels::CreateSimulatedDevices(machine);
  cli::RankOptions options;
  options.backend = "cuda";
  options.runner.block_size = (*loaded)->config.default_block_size();
  options.runner.max_model_len = 64;
  options.runner.num_blocks = 16;
  options.runner.max_tokens = 16;
  options.runner.max_slots = 4;
  const auto ranks =
      cli::AssembleLocalGroup(**loaded, {}, options, *engram, *devices, Clock::Real());
  EXPECT_TRUE(ranks.ok()) << ranks.status();
  proto::StepPlan prefill =
      testing::PrefillPlan(kSequences, /*keeps_tail=*/false, /*greedy=*/true);
  for (proto::SlotWork& work : prefill.work) {
    work.tokens = {1, 2, 3, 4, 5};
  }
  EXPECT_TRUE(ranks->front().runner->Execute(prefill).ok());
  uint64_t waits = 0;
  for (uint64_t step = 2; step <= 3; ++step) {
    const uint64_t before = machine->num_host_waits();
    const auto result =
        ranks->front().runner->Execute(testing::DecodePlan(step, kSequences, 0));
    EXPECT_TRUE(result.ok()) << result.status();
    waits = machine->num_host_waits() - before;
  }
  EXPECT_TRUE(machine->status().ok()) << machine->status();
  return waits;
}

TEST(HostWaits, OfADecodeStepOfOneRankDoNotGrowWithItsLayers) {
  EXPECT_EQ(WaitsOfADecodeStep(4), WaitsOfADecodeStep(3));
}

}  // namespace
}  // namespace tessera
