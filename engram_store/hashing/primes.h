// Primes for the bucket counts of Engram columns: every column of a model gets a prime of
// its own.
#ifndef TESSERA_ENGRAM_STORE_HASHING_PRIMES_H_
#define TESSERA_ENGRAM_STORE_HASHING_PRIMES_H_

#include <cstdint>
#include <set>

#include "absl/status/statusor.h"

namespace tessera::engram_store {

// Exact for every 32-bit number.
bool IsPrime(uint32_t number);

// Hands out primes, none twice over its lifetime: one allocator serves all layers of a
// model, in the order of the config. External synchronisation.
class PrimeAllocator {
 public:
  // The smallest prime above `number` that was not handed out yet. kInvalidArgument when
  // no such prime fits 32 bits.
  absl::StatusOr<uint32_t> NextAbove(uint64_t number);

 private:
  std::set<uint32_t> seen_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_HASHING_PRIMES_H_
