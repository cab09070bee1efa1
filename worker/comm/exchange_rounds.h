// In how many rounds the rows of an exchange go: arithmetic that every rank does alike,
// or whose results they tell each other, since the collectives of all have to match.
// docs/design/0009-expert-exchange-at-scale.md (Rounds) has what a round costs and hides.
#ifndef TESSERA_WORKER_COMM_EXCHANGE_ROUNDS_H_
#define TESSERA_WORKER_COMM_EXCHANGE_ROUNDS_H_

#include <cstdint>
#include <limits>
#include <optional>

namespace tessera::worker {

struct RoundPolicy {
  // Of a rank: fewer rows go in one round. A second round reads the rank's experts again
  // and hides half of the wire, which pays from about 210 rows on between 8 GPUs (V3.2,
  // on paper: 0009). Published figures of two batches that overlap agree: decode + 25 %
  // at 256 tokens a GPU, - 27 % at 32.
  int64_t min_rows = 256;
  // Of a rank and round: bounds the memory of an exchange, two rounds' whatever the rows.
  int64_t max_round_rows = 256;
};

// All rows in one round.
inline constexpr RoundPolicy kOneRound = {
    .min_rows = std::numeric_limits<int64_t>::max(),
    .max_round_rows = std::numeric_limits<int64_t>::max()};

struct ExchangeRounds {
  int64_t count = 1;
  int64_t rows = 0;  // places of a rank in each: count * rows is at least all rows

  friend bool operator==(const ExchangeRounds&, const ExchangeRounds&) = default;
};

// Of exchanges of up to `rows` rows a rank between `num_ranks` ranks. No round is without
// a place; one rank alone has one round.
ExchangeRounds RoundsOf(int64_t rows, int num_ranks, const RoundPolicy& policy);

// Tokens [begin, begin + count) of a rank.
struct RoundPart {
  int64_t begin = 0;
  int64_t count = 0;

  friend bool operator==(const RoundPart&, const RoundPart&) = default;
};

// Those of `num_tokens` that go in a round: as evenly as can be, so never more than its
// places where num_tokens is at most the rows. Rounds of few tokens may be empty.
RoundPart PartOfRound(int64_t num_tokens, const ExchangeRounds& rounds, int64_t round);

// The same where the number of rounds comes with the first of them: of a rank that has
// `own_rounds` by itself, `num_rounds` in the end, at least as many. The first round is
// as of its own; what is left goes evenly into the others, whose parts are no larger than
// its own rounds' places.
RoundPart PartOfRounds(int64_t num_tokens, int64_t own_rounds, int64_t num_rounds,
                       int64_t round);

// Of exchanges of as many rows as there are (RoutedRounds). A rank has room for what all
// others may send it in a round, so that the rows of a round are bounded by their sum
// over the ranks: of V4-Flash 1.6 GB of outputs a round. `overlap`: from how many rows on
// rounds hide the wire, where anything runs beside it.
RoundPolicy RoutedPolicy(int num_ranks, const std::optional<RoundPolicy>& overlap);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_EXCHANGE_ROUNDS_H_
