#include "worker/comm/exchange_rounds.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "gtest/gtest.h"

namespace tessera::worker {
namespace {

TEST(ExchangeRounds, FewRowsGoInOne) {
  for (const int64_t rows : {1, 2, 32, 64, 255}) {
    EXPECT_EQ(RoundsOf(rows, 8, {}), (ExchangeRounds{1, rows})) << rows;
  }
}

TEST(ExchangeRounds, RowsThatHideTheWireGoInTwo) {
  EXPECT_EQ(RoundsOf(256, 2, {}), (ExchangeRounds{2, 128}));
  EXPECT_EQ(RoundsOf(257, 64, {}), (ExchangeRounds{2, 129}));
  EXPECT_EQ(RoundsOf(512, 8, {}), (ExchangeRounds{2, 256}));
}

TEST(ExchangeRounds, NoRoundHasMoreRowsThanItsBound) {
  EXPECT_EQ(RoundsOf(513, 8, {}), (ExchangeRounds{3, 171}));
  EXPECT_EQ(RoundsOf(8192, 64, {}), (ExchangeRounds{32, 256}));
  // Nor where nothing is to be hidden.
  EXPECT_EQ(RoundsOf(40, 8, {.min_rows = 100, .max_round_rows = 16}),
            (ExchangeRounds{3, 14}));
}

TEST(ExchangeRounds, ARankAloneHasOne) {
  EXPECT_EQ(RoundsOf(4096, 1, {}), (ExchangeRounds{1, 4096}));
}

TEST(ExchangeRounds, ARowIsNotCutInTwo) {
  EXPECT_EQ(RoundsOf(1, 8, {.min_rows = 1, .max_round_rows = 1}), (ExchangeRounds{1, 1}));
}

TEST(ExchangeRounds, EachTokenGoesInOneRoundThatHasAPlaceForIt) {
  for (int64_t rows = 1; rows <= 40; ++rows) {
    for (const int64_t bound : {1, 2, 3, 7, 40}) {
      const ExchangeRounds rounds =
          RoundsOf(rows, 2, {.min_rows = 5, .max_round_rows = bound});
      EXPECT_LE(rounds.rows, std::max<int64_t>(bound, 1));
      EXPECT_GE(rounds.count * rounds.rows, rows);
      for (int64_t tokens = 0; tokens <= rows; ++tokens) {
        int64_t end = 0;
        for (int64_t round = 0; round < rounds.count; ++round) {
          const RoundPart part = PartOfRound(tokens, rounds, round);
          EXPECT_EQ(part.begin, end);
          EXPECT_LE(part.count, rounds.rows) << tokens << " of " << rows;
          end += part.count;
        }
        EXPECT_EQ(end, tokens);
      }
    }
  }
}

// Of every rank, whatever the number of rounds that another one needs.
TEST(ExchangeRounds, TheRestOfARanksTokensFitsIntoTheRoundsOfAll) {
  for (int64_t tokens = 0; tokens <= 40; ++tokens) {
    for (const int64_t bound : {1, 2, 3, 7, 40}) {
      const ExchangeRounds own = RoundsOf(std::max<int64_t>(tokens, 1), 2,
                                          {.min_rows = 5, .max_round_rows = bound});
      for (int64_t count = own.count; count <= own.count + 5; ++count) {
        int64_t end = 0;
        for (int64_t round = 0; round < count; ++round) {
          const RoundPart part = PartOfRounds(tokens, own.count, count, round);
          EXPECT_EQ(part.begin, end);
          EXPECT_GE(part.count, 0);
          EXPECT_LE(part.count, own.rows) << tokens << " in " << count;
          if (round == 0) {  // sent before the count is known
            EXPECT_EQ(part, PartOfRounds(tokens, own.count, own.count, 0));
          }
          end += part.count;
        }
        EXPECT_EQ(end, tokens) << count << " rounds";
      }
    }
  }
}

TEST(ExchangeRounds, RowsOfAllRanksBoundARoundOfAnyNumberOfRows) {
  EXPECT_EQ(RoundsOf(2048, 8, RoutedPolicy(8, std::nullopt)), (ExchangeRounds{1, 2048}));
  EXPECT_EQ(RoundsOf(8192, 8, RoutedPolicy(8, std::nullopt)), (ExchangeRounds{4, 2048}));
  EXPECT_EQ(RoundsOf(8192, 64, RoutedPolicy(64, std::nullopt)),
            (ExchangeRounds{32, 256}));
  EXPECT_EQ(RoundsOf(8192, 512, RoutedPolicy(512, std::nullopt)),
            (ExchangeRounds{32, 256}));
  // Two, to hide the wire.
  EXPECT_EQ(RoundsOf(255, 8, RoutedPolicy(8, RoundPolicy{})), (ExchangeRounds{1, 255}));
  EXPECT_EQ(RoundsOf(2048, 8, RoutedPolicy(8, RoundPolicy{})), (ExchangeRounds{2, 1024}));
}

}  // namespace
}  // namespace tessera::worker
