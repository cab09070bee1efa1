#include "model/config/bucket_primes.h"

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

using testing::ElementsAre;

EngramConfig Config(std::vector<int64_t> layers, int64_t heads,
                    std::vector<int64_t> bases) {
  EngramConfig config;
  config.layer_ids = std::move(layers);
  config.max_ngram = static_cast<int64_t>(bases.size()) + 1;
  config.num_heads = heads;
  config.bucket_bases = std::move(bases);
  return config;
}

TEST(IsPrimeNumber, AgreesWithASieve) {
  constexpr uint32_t kLimit = 20000;
  std::vector<bool> composite(kLimit);
  for (uint32_t n = 2; n < kLimit; ++n) {
    EXPECT_EQ(IsPrimeNumber(n), !composite[n]) << n;
    for (uint32_t multiple = 2 * n; multiple < kLimit; multiple += n) {
      composite[multiple] = true;
    }
  }
  EXPECT_FALSE(IsPrimeNumber(0));
  EXPECT_FALSE(IsPrimeNumber(1));
  EXPECT_TRUE(IsPrimeNumber(4294967291u));   // the largest below 2^32
  EXPECT_FALSE(IsPrimeNumber(4293001441u));  // 65521 squared
}

TEST(EngramBucketPrimes, LaterOrdersAndLayersSkipWhatIsTaken) {
  const auto same = EngramBucketPrimes(Config({1, 15}, 2, {50, 50}));
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_THAT(*same,
              ElementsAre(ElementsAre(53, 59, 61, 67), ElementsAre(71, 73, 79, 83)));
  const auto different = EngramBucketPrimes(Config({0, 3}, 3, {1000, 2000, 3000}));
  ASSERT_TRUE(different.ok()) << different.status();
  EXPECT_THAT(
      *different,
      ElementsAre(ElementsAre(1009, 1013, 1019, 2003, 2011, 2017, 3001, 3011, 3019),
                  ElementsAre(1021, 1031, 1033, 2027, 2029, 2039, 3023, 3037, 3041)));
}

TEST(EngramBucketPrimes, BasesThatOverlapShareOneSupply) {
  const auto primes = EngramBucketPrimes(Config({0}, 3, {10, 12, 10}));
  ASSERT_TRUE(primes.ok()) << primes.status();
  EXPECT_THAT(*primes, ElementsAre(ElementsAre(11, 13, 17, 19, 23, 29, 31, 37, 41)));
}

TEST(EngramBucketPrimes, SumsAreThePublishedRowCounts) {
  const auto rows = [](std::vector<int64_t> layers, int64_t base) {
    const auto layer_primes =
        EngramBucketPrimes(Config(std::move(layers), 8, {base, base, base}));
    std::vector<uint64_t> sums;
    for (const std::vector<uint32_t>& primes : layer_primes.value()) {
      sums.push_back(std::accumulate(primes.begin(), primes.end(), uint64_t{0}));
    }
    return sums;
  };
  EXPECT_THAT(rows({1, 14}, 16000000), ElementsAre(384006168, 384016682));
  EXPECT_THAT(rows({1, 14}, 16344708), ElementsAre(392278068, 392286520));
  EXPECT_THAT(rows({1, 14}, 52269054), ElementsAre(1254462504, 1254471842));
}

TEST(EngramBucketPrimes, RefusesTablesOf32BitsOrMore) {
  EXPECT_EQ(EngramBucketPrimes(Config({0}, 3, {2000000000})).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EngramBucketPrimes(Config({0}, 1, {4294967292})).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::model
