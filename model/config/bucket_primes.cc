#include "model/config/bucket_primes.h"

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::model {
namespace {

constexpr uint64_t kMaxRows = std::numeric_limits<uint32_t>::max();

class PrimeSequence {
 public:
  // The smallest prime >= base that was not handed out.
  absl::StatusOr<uint32_t> Next(int64_t base) {
    // Everything between a base and the last prime taken from it is handed out or
    // composite.
    uint64_t& candidate =
        next_.try_emplace(base, static_cast<uint64_t>(base)).first->second;
    for (; candidate <= kMaxRows; ++candidate) {
      const uint32_t number = static_cast<uint32_t>(candidate);
      if (IsPrimeNumber(number) && taken_.insert(number).second) {
        ++candidate;
        return number;
      }
    }
    return InvalidArgumentF("no unused prime from {} on fits 32 bits", base);
  }

 private:
  std::set<uint32_t> taken_;
  std::map<int64_t, uint64_t> next_;  // by base: where the search goes on
};

}  // namespace

bool IsPrimeNumber(uint32_t number) {
  if (number < 4) {
    return number >= 2;
  }
  if (number % 2 == 0) {
    return false;
  }
  for (uint64_t divisor = 3; divisor * divisor <= number; divisor += 2) {
    if (number % divisor == 0) {
      return false;
    }
  }
  return true;
}

absl::StatusOr<std::vector<std::vector<uint32_t>>> EngramBucketPrimes(
    const EngramConfig& config) {
  PrimeSequence sequence;
  std::vector<std::vector<uint32_t>> layers;
  for (const int64_t layer_id : config.layer_ids) {
    std::vector<uint32_t> primes;
    uint64_t rows = 0;
    for (const int64_t base : config.bucket_bases) {
      for (int64_t head = 0; head < config.num_heads; ++head) {
        TESSERA_ASSIGN_OR_RETURN(const uint32_t prime, sequence.Next(base));
        primes.push_back(prime);
        rows += prime;
      }
    }
    if (rows > kMaxRows) {
      return InvalidArgumentF(
          "the engram table of layer {} has {} rows, expected under 2^32", layer_id,
          rows);
    }
    layers.push_back(std::move(primes));
  }
  return layers;
}

}  // namespace tessera::model
