#include "worker/comm/exchange_rounds.h"

#include <algorithm>

namespace tessera::worker {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

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

}  // namespace tessera::worker
