// The ranks of a case are threads, each on a device of its own of one simulated machine,
// and their groups communicators of the NCCL twin. What no rank may do wrong, faults and
// all, is a finding of the machine, and fails the case.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/cuda/devices/nccl_collectives.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_nccl.h"
#include "tests/conformance/group_harness.h"
#include "tests/conformance/thread_groups.h"
#include "worker/comm/nccl/nccl_group.h"

namespace tessera::testing {
namespace {

using kernels::cuda_sim::SimMachine;
using kernels::cuda_sim::SimNcclComm;
using kernels::cuda_sim::SimNcclId;

class NcclHarness final : public GroupHarness {
 public:
  std::vector<int> sizes() const override { return {1, 2, 3, 4, 8}; }

  void RunGroups(
      int size, std::span<const std::vector<int>> colors,
      const worker::CommOptions& options,
      const std::function<void(std::span<worker::Communicator* const>)>& body) override {
    const auto machine = std::make_shared<SimMachine>(
        kernels::cuda_sim::SimOptions{.seed = ++seed_, .num_devices = size});
    ThreadGroups groups(static_cast<size_t>(size));
    for (const std::vector<int>& coloring : colors) {
      Add(machine, coloring, options, groups);
    }
    RunThreads(groups, body);
    groups.clear();
    EXPECT_TRUE(machine->status().ok()) << "seed " << seed_ << ": " << machine->status();
  }

 private:
  static void Add(const std::shared_ptr<SimMachine>& machine,
                  const std::vector<int>& coloring, const worker::CommOptions& options,
                  ThreadGroups& groups) {
    for (const auto& [color, devices] : MembersByColor(coloring)) {
      const SimNcclId id = SimNcclComm::GetUniqueId(machine);
      const int size = static_cast<int>(devices.size());
      std::vector<std::unique_ptr<kernels::DeviceCollectives>> ranks;
      for (int rank = 0; rank < size; ++rank) {
        auto made = kernels::cuda::CreateNcclCollectives(
            machine, id, size, rank, devices[static_cast<size_t>(rank)]);
        ASSERT_TRUE(made.ok()) << made.status();
        ranks.push_back(*std::move(made));
      }
      auto group =
          worker::CreateNcclGroup("test", std::move(ranks), options, Clock::Real());
      ASSERT_TRUE(group.ok()) << group.status();
      for (size_t i = 0; i < devices.size(); ++i) {
        groups[static_cast<size_t>(devices[i])].push_back(std::move((*group)[i]));
      }
    }
  }

  uint64_t seed_ = 0;
};

}  // namespace

GroupHarness& Harness() {
  static NcclHarness harness;
  return harness;
}

}  // namespace tessera::testing
