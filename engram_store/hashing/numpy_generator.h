// NumpyGenerator: the draws of numpy's default_rng(seed).integers(0, bound, dtype=int64),
// restated. DeepSeek derives the hash multipliers of Engram with numpy, so that the
// stream of PCG64 seeded by SeedSequence is part of the checkpoint format. It is no
// general random source: everything else uses common/counter_rng.h.
#ifndef TESSERA_ENGRAM_STORE_HASHING_NUMPY_GENERATOR_H_
#define TESSERA_ENGRAM_STORE_HASHING_NUMPY_GENERATOR_H_

#include <array>
#include <cstdint>

namespace tessera::engram_store {

// Four 64-bit words that SeedSequence(seed) generates: the initial state and the
// increment of PCG64, high half first.
std::array<uint64_t, 4> NumpySeedWords(uint64_t seed);

// A value type; external synchronisation, since every draw advances the state.
class NumpyGenerator {
 public:
  explicit NumpyGenerator(uint64_t seed);

  // The next raw output of PCG64 (XSL-RR 128/64).
  uint64_t Next64();

  // A uniform draw from [0, bound) as numpy makes it. `bound` must exceed 2^32: numpy
  // takes another path below, which nothing here needs (checked).
  uint64_t Below(uint64_t bound);

 private:
  __extension__ using Uint128 = unsigned __int128;

  void Step();

  Uint128 state_ = 0;
  Uint128 increment_ = 0;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_HASHING_NUMPY_GENERATOR_H_
