#include "worker/comm/exchange_rounds.h"

#include <algorithm>

namespace tessera::worker {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

// Of all ranks together, in a round of RoutedRounds.
constexpr int64_t kRoutedRows = 16'384;
// Of a rank: below, a round reads its experts for too few.
constexpr int64_t kMinRoutedRows = 256;

}  // namespace

ExchangeRounds RoundsOf(int64_t rows, int num_ranks, const RoundPolicy& policy) {
  if (num_ranks == 1) {
    return {.count = 1, .rows = rows};
  }
  const int64_t bounded = CeilDiv(rows, policy.max_round_rows);
  const int64_t wanted = rows >= policy.min_rows ? 2 : 1;
  const int64_t count = std::clamp<int64_t>(std::max(bounded, wanted), 1, rows);
  return {.count = count, .rows = CeilDiv(rows, count)};
}

RoundPart PartOfRound(int64_t num_tokens, const ExchangeRounds& rounds, int64_t round) {
  const int64_t begin = num_tokens * round / rounds.count;
  return {.begin = begin, .count = num_tokens * (round + 1) / rounds.count - begin};
}

RoundPart PartOfRounds(int64_t num_tokens, int64_t own_rounds, int64_t num_rounds,
                       int64_t round) {
  const int64_t first = num_tokens / own_rounds;
  if (round == 0) {
    return {.begin = 0, .count = first};
  }
  const RoundPart part =
      PartOfRound(num_tokens - first, {.count = num_rounds - 1, .rows = 0}, round - 1);
  return {.begin = first + part.begin, .count = part.count};
}

RoundPolicy RoutedPolicy(int num_ranks, const std::optional<RoundPolicy>& overlap) {
  return {.min_rows = overlap.value_or(kOneRound).min_rows,
          .max_round_rows = std::max(kRoutedRows / num_ranks, kMinRoutedRows)};
}

}  // namespace tessera::worker
