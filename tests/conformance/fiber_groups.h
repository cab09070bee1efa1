// FiberGroups: the groups of an ExpertExchange over the devices of one simulated machine,
// for ranks that are fibers (FiberRanks), and what the machine saw of them.
#ifndef TESSERA_TESTS_CONFORMANCE_FIBER_GROUPS_H_
#define TESSERA_TESTS_CONFORMANCE_FIBER_GROUPS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_nccl.h"
#include "kernels/runtime/device_collectives.h"
#include "tests/conformance/exchange_layouts.h"
#include "tests/conformance/fiber_ranks.h"
#include "worker/comm/communicator.h"
#include "worker/comm/expert_exchange.h"

namespace tessera::testing {

struct FiberGroupOptions {
  ExchangeLayout layout = {};
  worker::CommOptions comm;
  uint64_t seed = 1;
  // As if each rank were a process: it hears of the others through NCCL alone. Otherwise
  // they share the news of an error.
  bool a_process_each = false;
};

// One thread. The clock must outlive it.
class FiberGroups {
 public:
  // Every rank has a device of its own, and the machine all of its checks.
  FiberGroups(const FiberGroupOptions& options, FiberRanks* clock);

  // From the rank's fiber, once: its groups, which live as long as this. Waits until they
  // are formed.
  absl::StatusOr<worker::ExchangeGroups> Join(int rank);

  std::vector<std::string> Findings() const;
  // What has come to the rank: over the ep group, and over its rail and its node.
  kernels::cuda_sim::NcclTraffic ReceivedOverEp(int rank);
  kernels::cuda_sim::NcclTraffic ReceivedOverRail(int rank);
  kernels::cuda_sim::NcclTraffic ReceivedOverNode(int rank);

 private:
  struct Group {
    std::string name;
    kernels::cuda_sim::SimNcclId id;
    std::vector<std::unique_ptr<kernels::DeviceCollectives>> devices;  // that join later
    std::vector<std::unique_ptr<worker::Communicator>> ranks;

    kernels::cuda_sim::NcclTraffic Received(int rank) const;
  };

  // Of the ranks on these devices.
  Group Make(const char* name, const std::vector<int>& devices);
  absl::StatusOr<worker::Communicator*> JoinOne(Group& group, int rank);
  Group& node_of(int rank);
  Group& rail_of(int rank);

  const FiberGroupOptions options_;
  FiberRanks& clock_;
  const std::shared_ptr<kernels::cuda_sim::SimMachine> machine_;
  std::vector<Group> ep_;     // one
  std::vector<Group> nodes_;  // [node]
  std::vector<Group> rails_;  // [rank in its node]
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONFORMANCE_FIBER_GROUPS_H_
