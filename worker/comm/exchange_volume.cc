#include "worker/comm/exchange_volume.h"

#include <algorithm>
#include <cstddef>

namespace tessera::worker {
namespace {

constexpr int64_t kHeaderBytes = 24;
constexpr int64_t kWordBytes = 4;  // a row's number of items; an item's expert

int64_t Padded(int64_t bytes) { return (bytes + 7) / 8 * 8; }

int64_t WeightBytes(const ExpertExchangeOptions& options, int64_t element_bytes) {
  return options.weights_travel ? element_bytes : 0;
}

struct Part {
  int64_t rows = 0;
  int64_t items = 0;
};

// What of one rank's tokens goes to `to`.
Part PartFor(const ExpertExchangeOptions& options, std::span<const int32_t> expert_ids,
             int to) {
  Part part;
  const auto k = static_cast<size_t>(options.experts_per_token);
  for (size_t token = 0; token + k <= expert_ids.size(); token += k) {
    const auto items = std::ranges::count_if(
        expert_ids.subspan(token, k), [&options, to](int32_t expert) {
          return options.expert_owner[static_cast<size_t>(expert)] == to;
        });
    part.items += items;
    part.rows += items > 0 ? 1 : 0;
  }
  return part;
}

}  // namespace

ExchangeVolume VolumeOf(const ExpertExchangeOptions& options, int64_t element_bytes,
                        std::span<const std::vector<int32_t>> expert_ids, int rank) {
  const int64_t row_bytes = options.hidden_size * element_bytes;
  const int64_t weight_bytes = WeightBytes(options, element_bytes);
  ExchangeVolume volume;
  for (size_t other = 0; other < expert_ids.size(); ++other) {
    if (static_cast<int>(other) == rank) {
      continue;
    }
    volume.messages += 2;
    const Part in = PartFor(options, expert_ids[other], rank);
    volume.dispatch_bytes +=
        Padded(Padded(Padded(kHeaderBytes + kWordBytes * (in.rows + in.items)) +
                      weight_bytes * in.items) +
               row_bytes * in.rows);
    const Part out =
        PartFor(options, expert_ids[static_cast<size_t>(rank)], static_cast<int>(other));
    volume.combine_bytes += row_bytes * out.items;
  }
  return volume;
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
  const auto row_bytes = static_cast<double>(options.hidden_size * element_bytes);
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
  volume.combine_bytes = tokens * others * items * row_bytes;
  return volume;
}

}  // namespace tessera::worker
