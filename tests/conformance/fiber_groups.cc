#include "tests/conformance/fiber_groups.h"

#include <cstddef>
#include <numeric>
#include <utility>

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/cuda/devices/nccl_collectives.h"
#include "worker/comm/nccl/nccl_group.h"

namespace tessera::testing {

using kernels::cuda_sim::NcclTraffic;
using kernels::cuda_sim::SimMachine;
using kernels::cuda_sim::SimNcclComm;

NcclTraffic FiberGroups::Group::Received(int rank) const {
  NcclTraffic sum;
  for (int from = 0; from < static_cast<int>(ranks.size()); ++from) {
    const NcclTraffic part = id.Traffic(from, rank);
    sum.messages += part.messages;
    sum.bytes += part.bytes;
  }
  return sum;
}

FiberGroups::FiberGroups(const FiberGroupOptions& options, FiberRanks* clock)
    : options_(options),
      clock_(*clock),
      machine_(std::make_shared<SimMachine>(kernels::cuda_sim::SimOptions{
          .seed = options.seed, .num_devices = options.layout.num_ranks})) {
  const auto [num_ranks, per_node] = options.layout;
  std::vector<int> all(static_cast<size_t>(num_ranks));
  std::iota(all.begin(), all.end(), 0);
  ep_.push_back(Make("ep", all));
  if (per_node == 0) {
    return;
  }
  for (int node = 0; node < num_ranks / per_node; ++node) {
    const auto first = all.begin() + node * per_node;
    nodes_.push_back(Make("node", {first, first + per_node}));
  }
  for (int place = 0; place < per_node; ++place) {
    std::vector<int> devices;
    for (int rank = place; rank < num_ranks; rank += per_node) {
      devices.push_back(rank);
    }
    rails_.push_back(Make("rail", devices));
  }
}

FiberGroups::Group FiberGroups::Make(const char* name, const std::vector<int>& devices) {
  Group group = {
      .name = name, .id = SimNcclComm::GetUniqueId(machine_), .devices = {}, .ranks = {}};
  const int size = static_cast<int>(devices.size());
  for (int rank = 0; rank < size; ++rank) {
    auto made = kernels::cuda::CreateNcclCollectives(machine_, group.id, size, rank,
                                                     devices[static_cast<size_t>(rank)]);
    TESSERA_CHECK(made.ok());
    group.devices.push_back(*std::move(made));
  }
  if (options_.a_process_each) {
    group.ranks.resize(devices.size());
    return group;
  }
  auto made =
      worker::CreateNcclGroup(name, std::move(group.devices), options_.comm, &clock_);
  TESSERA_CHECK(made.ok());
  group.ranks = *std::move(made);
  return group;
}

absl::StatusOr<worker::Communicator*> FiberGroups::JoinOne(Group& group, int rank) {
  std::unique_ptr<worker::Communicator>& own = group.ranks[static_cast<size_t>(rank)];
  if (own == nullptr) {
    std::vector<std::unique_ptr<kernels::DeviceCollectives>> device;
    device.push_back(std::move(group.devices[static_cast<size_t>(rank)]));
    TESSERA_ASSIGN_OR_RETURN(
        auto joined,
        worker::CreateNcclGroup(group.name, std::move(device), options_.comm, &clock_));
    own = std::move(joined.front());
  }
  return own.get();
}

absl::StatusOr<worker::ExchangeGroups> FiberGroups::Join(int rank) {
  worker::ExchangeGroups groups;
  TESSERA_ASSIGN_OR_RETURN(groups.ep, JoinOne(ep_.front(), rank));
  if (const int per_node = options_.layout.ranks_per_node; per_node != 0) {
    TESSERA_ASSIGN_OR_RETURN(groups.node, JoinOne(node_of(rank), rank % per_node));
    TESSERA_ASSIGN_OR_RETURN(groups.rail, JoinOne(rail_of(rank), rank / per_node));
  }
  return groups;
}

FiberGroups::Group& FiberGroups::node_of(int rank) {
  return nodes_[static_cast<size_t>(rank / options_.layout.ranks_per_node)];
}

FiberGroups::Group& FiberGroups::rail_of(int rank) {
  return rails_[static_cast<size_t>(rank % options_.layout.ranks_per_node)];
}

std::vector<std::string> FiberGroups::Findings() const {
  std::vector<std::string> findings;
  for (const kernels::cuda_sim::Finding& finding : machine_->findings()) {
    findings.push_back(finding.ToString());
  }
  return findings;
}

NcclTraffic FiberGroups::ReceivedOverEp(int rank) { return ep_.front().Received(rank); }
NcclTraffic FiberGroups::ReceivedOverRail(int rank) {
  return rail_of(rank).Received(rank / options_.layout.ranks_per_node);
}
NcclTraffic FiberGroups::ReceivedOverNode(int rank) {
  return node_of(rank).Received(rank % options_.layout.ranks_per_node);
}

}  // namespace tessera::testing
