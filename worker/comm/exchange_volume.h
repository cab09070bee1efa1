// What an ExpertExchange moves: messages and bytes of one rank, exactly from the routing
// of all ranks, and expected where tokens choose their experts at random. Pure
// arithmetic, by the message layout that exchange_message.h draws; tests hold the
// counters of a Communicator against it, docs/design/0009-expert-exchange-at-scale.md
// plans with it.
#ifndef TESSERA_WORKER_COMM_EXCHANGE_VOLUME_H_
#define TESSERA_WORKER_COMM_EXCHANGE_VOLUME_H_

#include <cstdint>
#include <span>
#include <vector>

#include "worker/comm/exchange_rounds.h"
#include "worker/comm/expert_exchange.h"

namespace tessera::worker {

// Of one rank and one exchange (a Dispatch and its Combine).
struct ExchangeVolume {
  int64_t messages = 0;        // sent: to every other rank one each way, empty ones too
  int64_t dispatch_bytes = 0;  // received
  int64_t combine_bytes = 0;   // received
  int64_t combine_parts = 0;   // received and not empty; those of dispatch never are

  friend bool operator==(const ExchangeVolume&, const ExchangeVolume&) = default;
};

// `expert_ids[s]`: [T_s, k] of rank s's tokens; as many lists as there are ranks.
// `element_bytes`: of an activation.
ExchangeVolume VolumeOf(const ExpertExchangeOptions& options, int64_t element_bytes,
                        std::span<const std::vector<int32_t>> expert_ids, int rank);

// The same over nodes and rails (ExchangeGroups): of one rank, on each of the two.
struct NodeExchangeVolume {
  ExchangeVolume rail;  // between nodes: a row once per node
  ExchangeVolume node;  // inside the node

  friend bool operator==(const NodeExchangeVolume&, const NodeExchangeVolume&) = default;
};

// As VolumeOf; `ranks_per_node` divides the number of lists.
NodeExchangeVolume VolumeOverNodes(const ExpertExchangeOptions& options,
                                   int64_t element_bytes,
                                   std::span<const std::vector<int32_t>> expert_ids,
                                   int rank, int ranks_per_node);

// Of an exchange in slots (SlotExchange) of `rows` rows a rank: the same for every rank
// and routing. Activations of 4 bytes; no lengths ahead.
ExchangeVolume SlotVolume(const ExpertExchangeOptions& options, int num_ranks,
                          int64_t rows);
// In rounds (SlotRounds): each has the messages of one, so theirs grow with the rounds,
// and bytes but for what is padded to whole rounds do not.
ExchangeVolume SlotVolume(const ExpertExchangeOptions& options, int num_ranks,
                          const ExchangeRounds& rounds);

// What comes to one rank over the wire where a transport sends lengths ahead, 8 bytes for
// each message, and no empty part (NCCL).
struct WireVolume {
  int64_t messages = 0;
  int64_t bytes = 0;

  friend bool operator==(const WireVolume&, const WireVolume&) = default;
};
WireVolume WithLengthsAhead(const ExchangeVolume& volume);

// Where every rank brings `num_tokens` tokens, each of which picks k of the experts at
// random, and the experts are spread evenly over the ranks. Paddings are left out.
struct ExpectedVolume {
  double messages = 0;
  double dispatch_bytes = 0;
  double combine_bytes = 0;
  double ranks_per_token = 0;  // other ranks that a token's row goes to
};
ExpectedVolume ExpectVolume(const ExpertExchangeOptions& options, int64_t element_bytes,
                            int num_ranks, int64_t num_tokens);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_EXCHANGE_VOLUME_H_
