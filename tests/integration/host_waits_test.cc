// How often the host waits for the device in a decode step, counted by the simulator: of
// one rank, and of a group whose step is a graph, as often whatever the number of layers
// with experts.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
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

// Of the third step, over all ranks: what is made at first calls is there.
uint64_t WaitsOfADecodeStep(int64_t num_layers, const cli::GroupShape& shape,
                            bool decode_graphs) {
  const Folder folder(num_layers);
  const auto loaded = cli::LoadModel(folder.path());
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  const auto engram = cli::ResidentEngram(**loaded, Clock::Real());
  EXPECT_TRUE(engram.ok()) << engram.status();
  const auto machine =
      std::make_shared<kernels::cuda_sim::SimMachine>(kernels::cuda_sim::SimOptions{
          .num_devices = shape.num_ranks(), .check_order = false});
  const auto devices = kernels::CreateSimulatedDevices(machine);
  cli::RankOptions options;
  options.backend = "cuda";
  options.comm.timeout = absl::Minutes(10);  // not about time
  options.runner.block_size = (*loaded)->config.default_block_size();
  options.runner.max_model_len = 64;
  options.runner.num_blocks = 16;
  options.runner.max_tokens = 16;
  options.runner.max_slots = 4;
  options.runner.decode_graphs = decode_graphs;
  options.runner.decode_graph_time = absl::Hours(1);
  const auto ranks =
      cli::AssembleLocalGroup(**loaded, shape, options, *engram, *devices, Clock::Real());
  EXPECT_TRUE(ranks.ok()) << ranks.status();
  proto::StepPlan prefill =
      testing::PrefillPlan(kSequences, /*keeps_tail=*/false, /*greedy=*/true);
  for (proto::SlotWork& work : prefill.work) {
    work.tokens = {1, 2, 3, 4, 5};
  }
  uint64_t waits = 0;
  for (uint64_t step = 1; step <= 3; ++step) {
    const proto::StepPlan plan =
        step == 1 ? prefill : testing::DecodePlan(step, kSequences, 0);
    const uint64_t before = machine->num_host_waits();
    std::vector<std::thread> threads;
    for (const cli::AssembledRank& rank : *ranks) {
      threads.emplace_back([&rank, &plan, decode_graphs] {
        const auto result = rank.runner->Execute(plan);
        ASSERT_TRUE(result.ok()) << result.status();
        EXPECT_EQ(result->counters.graph_rows > 0, decode_graphs && plan.step > 1);
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    waits = machine->num_host_waits() - before;
  }
  EXPECT_TRUE(machine->status().ok()) << machine->status();
  return waits;
}

TEST(HostWaits, OfADecodeStepOfOneRankDoNotGrowWithItsLayers) {
  EXPECT_EQ(WaitsOfADecodeStep(4, {}, false), WaitsOfADecodeStep(3, {}, false));
}

TEST(HostWaits, OfAGroupsDecodeStepByAGraphDoNotGrowWithItsLayers) {
  const uint64_t waits = WaitsOfADecodeStep(3, {.tp = 2}, true);
  EXPECT_EQ(WaitsOfADecodeStep(4, {.tp = 2}, true), waits);
  EXPECT_LE(waits, 2 * WaitsOfADecodeStep(3, {}, true)) << "of two ranks";
}

}  // namespace
}  // namespace tessera
