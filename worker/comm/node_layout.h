// Which ranks of a group share a node: for the node and rail groups of an ExpertExchange.
#ifndef TESSERA_WORKER_COMM_NODE_LAYOUT_H_
#define TESSERA_WORKER_COMM_NODE_LAYOUT_H_

#include <string_view>

#include "absl/status/statusor.h"

#include "worker/comm/communicator.h"

namespace tessera::worker {

// Collective, start-up only. Every rank says the name of its host and how many ranks per
// node it was told, 0 for nothing. Returns the ranks per node that all go by, a divisor
// of the group's size between them; 0 for one level: all ranks on one node, one on each,
// or hosts that do not hold equal runs of neighbouring ranks. kInvalidArgument: ranks
// were told different numbers, or one that does not divide the group. The Communicator's
// errors.
absl::StatusOr<int> AgreeOnRanksPerNode(Communicator& ep, std::string_view host,
                                        int told);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_NODE_LAYOUT_H_
