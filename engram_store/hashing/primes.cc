#include "engram_store/hashing/primes.h"

#include <limits>

#include "common/status.h"

namespace tessera::engram_store {
namespace {

uint64_t PowerMod(uint64_t value, uint64_t exponent, uint64_t modulus) {
  uint64_t result = 1;
  value %= modulus;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0) {
      result = result * value % modulus;  // Both factors are below 2^32.
    }
    value = value * value % modulus;
  }
  return result;
}

// One round of Miller-Rabin: false means that `number` is composite.
bool PassesRound(uint64_t number, uint64_t witness) {
  uint64_t odd = number - 1;
  int twos = 0;
  while ((odd & 1) == 0) {
    odd >>= 1;
    ++twos;
  }
  uint64_t x = PowerMod(witness, odd, number);
  if (x == 1 || x == number - 1) {
    return true;
  }
  for (int i = 1; i < twos; ++i) {
    x = x * x % number;
    if (x == number - 1) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool IsPrime(uint32_t number) {
  // These three witnesses are exact below 4,759,123,141 > 2^32 (Jaeschke 1993). A number
  // that equals a witness is prime and must not be tested against itself.
  for (const uint32_t witness : {2u, 7u, 61u}) {
    if (number == witness) {
      return true;
    }
  }
  if (number < 2 || number % 2 == 0) {
    return false;
  }
  return PassesRound(number, 2) && PassesRound(number, 7) && PassesRound(number, 61);
}

absl::StatusOr<uint32_t> PrimeAllocator::NextAbove(uint64_t number) {
  for (uint64_t candidate = number + 1; candidate <= std::numeric_limits<uint32_t>::max();
       ++candidate) {
    const uint32_t value = static_cast<uint32_t>(candidate);
    if (!seen_.contains(value) && IsPrime(value)) {
      seen_.insert(value);
      return value;
    }
  }
  return InvalidArgumentF("no unused prime above {} fits 32 bits", number);
}

}  // namespace tessera::engram_store
