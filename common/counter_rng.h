// CounterRng: random numbers as a pure function of (seed, stream, counter). The sampler
// keys it by (request seed, choice index, token position), so a token's draw depends on
// nothing else: not on the batch, the sharding, a restart or a replay. Philox4x32-10 of
// Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011); its constants
// are theirs.
#ifndef TESSERA_COMMON_COUNTER_RNG_H_
#define TESSERA_COMMON_COUNTER_RNG_H_

#include <array>
#include <cstdint>

namespace tessera {

// A value type without state; thread-safe because every call is pure.
class CounterRng {
 public:
  CounterRng(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  // Four uniform 32-bit words for `counter`.
  std::array<uint32_t, 4> Words(uint64_t counter) const;

  // Uniform in [0, 1) with 53 bits, from the first two words of `counter`.
  double Uniform(uint64_t counter) const;

 private:
  uint64_t seed_;
  uint64_t stream_;
};

}  // namespace tessera

#endif  // TESSERA_COMMON_COUNTER_RNG_H_
