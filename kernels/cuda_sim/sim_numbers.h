// SimNumbers: what device code has of numbers alone, an instruction or two each on a GPU
// (NvccThread, NvccBF16). Nothing is checked.
#ifndef TESSERA_KERNELS_CUDA_SIM_SIM_NUMBERS_H_
#define TESSERA_KERNELS_CUDA_SIM_SIM_NUMBERS_H_

#include <cmath>
#include <cstdint>

#include "kernels/cuda_sim/number_bits.h"

namespace tessera::kernels::cuda_sim {

class SimNumbers {
 public:
  // Of an angle of at most about pi/4.
  void SineCosineOfEighth(double angle, double* sine, double* cosine) {
    *sine = std::sin(angle);
    *cosine = std::cos(angle);
  }

  // Both in BF16, rounded to nearest even, `low` in the lower half.
  uint32_t PackBF16(float low, float high) const {
    return uint32_t{BF16Bits(high)} << 16 | BF16Bits(low);
  }
  // The two codes in the lower half of `codes`, exactly.
  void UnpackE4M3(uint32_t codes, float (&values)[2]) const {
    values[0] = E4M3Value(codes & 0xffU);
    values[1] = E4M3Value(codes >> 8 & 0xffU);
  }

  // The bytes of low and high, 0 to 7, that the selector's lower four digits of 4 bits
  // name, the last digit first.
  uint32_t SelectBytes(uint32_t low, uint32_t high, uint32_t selector) const {
    const uint64_t bytes = uint64_t{high} << 32 | low;
    uint32_t result = 0;
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t byte = selector >> (4 * i) & 7U;
      result |= static_cast<uint32_t>(bytes >> (8 * byte) & 0xffU) << (8 * i);
    }
    return result;
  }
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_SIM_NUMBERS_H_
