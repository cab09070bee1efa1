#include "worker/comm/exchange_volume.h"

#include <algorithm>
#include <cstddef>

namespace tessera::worker {
namespace {

constexpr int64_t kHeaderBytes = 24;
constexpr int64_t kWordBytes = 4;  // a row's number of items; an item's expert; a value

int64_t Padded(int64_t bytes) { return (bytes + 7) / 8 * 8; }

int64_t WeightBytes(const ExpertExchangeOptions& options, int64_t element_bytes) {
  return options.weights_travel ? element_bytes : 0;
}

struct Part {
  int64_t rows = 0;
  int64_t items = 0;
};

// What of one rank's tokens goes to the ranks that `belongs` says.
template <typename Belongs>
Part PartFor(const ExpertExchangeOptions& options, std::span<const int32_t> expert_ids,
             Belongs belongs) {
  Part part;
  const auto k = static_cast<size_t>(options.experts_per_token);
  for (size_t token = 0; token + k <= expert_ids.size(); token += k) {
    const auto items =
        std::ranges::count_if(expert_ids.subspan(token, k), [&](int32_t expert) {
          return belongs(options.expert_owner[static_cast<size_t>(expert)]);
        });
    part.items += items;
    part.rows += items > 0 ? 1 : 0;
  }
  return part;
}

int64_t MessageBytes(const ExpertExchangeOptions& options, int64_t element_bytes,
                     const Part& part) {
  return Padded(Padded(Padded(kHeaderBytes + kWordBytes * (part.rows + part.items)) +
                       WeightBytes(options, element_bytes) * part.items) +
                DispatchRowBytes(options, element_bytes) * part.rows);
}

void AddCombined(int64_t items, int64_t output_bytes, ExchangeVolume& volume) {
  volume.combine_bytes += output_bytes * items;
  volume.combine_parts += items > 0 ? 1 : 0;
}

}  // namespace

ExchangeVolume VolumeOf(const ExpertExchangeOptions& options, int64_t element_bytes,
                        std::span<const std::vector<int32_t>> expert_ids, int rank) {
  // Nodes of one rank: the rails are the group.
  return VolumeOverNodes(options, element_bytes, expert_ids, rank, 1).rail;
}

NodeExchangeVolume VolumeOverNodes(const ExpertExchangeOptions& options,
                                   int64_t element_bytes,
                                   std::span<const std::vector<int32_t>> expert_ids,
                                   int rank, int ranks_per_node) {
  const int64_t output_bytes = options.hidden_size * element_bytes;
  const int num_nodes = static_cast<int>(expert_ids.size()) / ranks_per_node;
  const int own_node = rank / ranks_per_node;
  const int own_place = rank % ranks_per_node;
  const auto on_node = [&](int node) {
    return [node, ranks_per_node](int owner) { return owner / ranks_per_node == node; };
  };
  // What the rank at `place` of the own node has for `to`, a rank of that node: from all
  // of its rail.
  const auto relayed = [&](int place, int to) {
    Part sum;
    for (int node = 0; node < num_nodes; ++node) {
      const Part part =
          PartFor(options, expert_ids[static_cast<size_t>(node * ranks_per_node + place)],
                  [to](int owner) { return owner == to; });
      sum.rows += part.rows;
      sum.items += part.items;
    }
    return sum;
  };
  NodeExchangeVolume volume;
  for (int node = 0; node < num_nodes; ++node) {
    if (node == own_node) {
      continue;
    }
    const auto peer = static_cast<size_t>(node * ranks_per_node + own_place);
    volume.rail.messages += 2;
    volume.rail.dispatch_bytes += MessageBytes(
        options, element_bytes, PartFor(options, expert_ids[peer], on_node(own_node)));
    AddCombined(
        PartFor(options, expert_ids[static_cast<size_t>(rank)], on_node(node)).items,
        output_bytes, volume.rail);
  }
  for (int place = 0; place < ranks_per_node; ++place) {
    if (place == own_place) {
      continue;
    }
    volume.node.messages += 2;
    volume.node.dispatch_bytes +=
        MessageBytes(options, element_bytes, relayed(place, rank));
    AddCombined(relayed(own_place, own_node * ranks_per_node + place).items, output_bytes,
                volume.node);
  }
  return volume;
}

ExchangeVolume SlotVolume(const ExpertExchangeOptions& options, int num_ranks,
                          int64_t rows) {
  int64_t most_experts = 0;
  for (int rank = 0; rank < num_ranks; ++rank) {
    most_experts =
        std::max<int64_t>(most_experts, std::ranges::count(options.expert_owner, rank));
  }
  const int64_t k = options.experts_per_token;
  const int64_t words =
      (DispatchRowBytes(options, kWordBytes) + kWordBytes - 1) / kWordBytes + k +
      (options.weights_travel ? k : 0);
  const int64_t others = num_ranks - 1;
  return {.messages = 2 * others,
          .dispatch_bytes = others * rows * ((words + 3) / 4 * 4) * kWordBytes,
          .combine_bytes = others * rows * std::min(k, most_experts) *
                           options.hidden_size * kWordBytes,
          .combine_parts = others};
}

ExchangeVolume SlotVolume(const ExpertExchangeOptions& options, int num_ranks,
                          const ExchangeRounds& rounds) {
  ExchangeVolume volume = SlotVolume(options, num_ranks, rounds.rows);
  for (int64_t* const one : {&volume.messages, &volume.dispatch_bytes,
                             &volume.combine_bytes, &volume.combine_parts}) {
    *one *= rounds.count;
  }
  return volume;
}

WireVolume WithLengthsAhead(const ExchangeVolume& volume) {
  const int64_t peers = volume.messages / 2;
  return {.messages = volume.messages + peers + volume.combine_parts,
          .bytes = volume.dispatch_bytes + volume.combine_bytes +
                   volume.messages * int64_t{sizeof(int64_t)}};
}

ExpectedVolume ExpectVolume(const ExpertExchangeOptions& options, int64_t element_bytes,
                            int num_ranks, int64_t num_tokens) {
  const auto experts = static_cast<double>(options.expert_owner.size());
  const double here = experts / num_ranks;
  const auto k = static_cast<double>(options.experts_per_token);
  // All k picks miss the experts of one rank: a draw without putting back.
  double misses = 1;
  for (double pick = 0; pick < k; ++pick) {
    misses *= std::max(0.0, experts - here - pick) / (experts - pick);
  }
  const double others = num_ranks - 1;
  const auto row_bytes = static_cast<double>(DispatchRowBytes(options, element_bytes));
  const auto output_bytes = static_cast<double>(options.hidden_size * element_bytes);
  const auto weight_bytes = static_cast<double>(WeightBytes(options, element_bytes));
  const auto tokens = static_cast<double>(num_tokens);
  const double items = k / num_ranks;  // of a token at one rank
  ExpectedVolume volume;
  volume.messages = 2 * others;
  volume.ranks_per_token = others * (1 - misses);
  volume.dispatch_bytes =
      others * static_cast<double>(kHeaderBytes) +
      tokens * (volume.ranks_per_token * (static_cast<double>(kWordBytes) + row_bytes) +
                others * items * (static_cast<double>(kWordBytes) + weight_bytes));
  volume.combine_bytes = tokens * others * items * output_bytes;
  return volume;
}

}  // namespace tessera::worker
