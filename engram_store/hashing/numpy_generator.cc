#include "engram_store/hashing/numpy_generator.h"

#include "common/check.h"

namespace tessera::engram_store {
namespace {

// Constants of M. E. O'Neill's seed_seq_fe as numpy's SeedSequence has them; the pool is
// 4 words.
constexpr uint32_t kInitA = 0x43b0d7e5;
constexpr uint32_t kMultA = 0x931e8875;
constexpr uint32_t kInitB = 0x8b51f9dd;
constexpr uint32_t kMultB = 0x58f38ded;
constexpr uint32_t kMixLeft = 0xca01f9dd;
constexpr uint32_t kMixRight = 0x4973f715;
constexpr size_t kPoolWords = 4;
constexpr size_t kStateWords = 8;

// PCG's 128-bit LCG multiplier.
constexpr uint64_t kPcgMultiplierHigh = 0x2360ED051FC65DA4;
constexpr uint64_t kPcgMultiplierLow = 0x4385DF649FCCF645;

// One step of the hash whose state `h` walks a fixed sequence of multipliers.
uint32_t HashMix(uint32_t value, uint32_t multiplier, uint32_t* h) {
  value ^= *h;
  *h *= multiplier;
  value *= *h;
  return value ^ (value >> 16);
}

uint32_t Mix(uint32_t x, uint32_t y) {
  const uint32_t z = kMixLeft * x - kMixRight * y;
  return z ^ (z >> 16);
}

}  // namespace

std::array<uint64_t, 4> NumpySeedWords(uint64_t seed) {
  // A 64-bit seed has at most two entropy words; the loop for seeds over 128 bits never
  // runs.
  const std::array<uint32_t, kPoolWords> entropy = {
      static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), 0, 0};
  std::array<uint32_t, kPoolWords> pool;
  uint32_t h = kInitA;
  for (size_t i = 0; i < kPoolWords; ++i) {
    pool[i] = HashMix(entropy[i], kMultA, &h);
  }
  for (size_t source = 0; source < kPoolWords; ++source) {
    for (size_t target = 0; target < kPoolWords; ++target) {
      if (source != target) {
        pool[target] = Mix(pool[target], HashMix(pool[source], kMultA, &h));
      }
    }
  }
  std::array<uint64_t, 4> words{};
  h = kInitB;
  for (size_t i = 0; i < kStateWords; ++i) {
    const uint64_t word = HashMix(pool[i % kPoolWords], kMultB, &h);
    words[i / 2] |= word << (32 * (i % 2));
  }
  return words;
}

NumpyGenerator::NumpyGenerator(uint64_t seed) {
  const std::array<uint64_t, 4> words = NumpySeedWords(seed);
  const Uint128 initial = (static_cast<Uint128>(words[0]) << 64) | words[1];
  increment_ = (((static_cast<Uint128>(words[2]) << 64) | words[3]) << 1) | 1;
  Step();
  state_ += initial;
  Step();
}

void NumpyGenerator::Step() {
  constexpr Uint128 kMultiplier =
      (static_cast<Uint128>(kPcgMultiplierHigh) << 64) | kPcgMultiplierLow;
  state_ = state_ * kMultiplier + increment_;
}

uint64_t NumpyGenerator::Next64() {
  Step();
  const uint64_t folded =
      static_cast<uint64_t>(state_ >> 64) ^ static_cast<uint64_t>(state_);
  const unsigned rotation = static_cast<unsigned>(state_ >> 122);
  return (folded >> rotation) | (folded << ((64 - rotation) & 63));
}

uint64_t NumpyGenerator::Below(uint64_t bound) {
  TESSERA_CHECK_LT(uint64_t{1} << 32, bound);
  // Lemire's multiply-and-reject (ACM TOMACS 2019): the threshold is computed only when
  // needed.
  Uint128 product = static_cast<Uint128>(Next64()) * bound;
  if (static_cast<uint64_t>(product) < bound) {
    const uint64_t threshold = (0 - bound) % bound;
    while (static_cast<uint64_t>(product) < threshold) {
      product = static_cast<Uint128>(Next64()) * bound;
    }
  }
  return static_cast<uint64_t>(product >> 64);
}

}  // namespace tessera::engram_store
