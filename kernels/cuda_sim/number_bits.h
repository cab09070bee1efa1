// Conversions of number formats as the instructions make them, for the twins of
// SimThread; by the formats' definitions, not by the arithmetic of the kernels' own
// decoders. Pure.
#ifndef TESSERA_KERNELS_CUDA_SIM_NUMBER_BITS_H_
#define TESSERA_KERNELS_CUDA_SIM_NUMBER_BITS_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace tessera::kernels::cuda_sim {

// To nearest even; a NaN to 0x7fff (cvt.rn.bf16x2.f32).
inline uint16_t BF16Bits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t nearest = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
  return std::isnan(value) ? uint16_t{0x7fff} : static_cast<uint16_t>(nearest);
}

// Four bits of exponent with bias 7, three of the mantissa, no infinity.
inline float E4M3Value(uint32_t code) {
  const uint32_t exponent = code >> 3 & 15U;
  const uint32_t mantissa = code & 7U;
  if ((code & 0x7fU) == 0x7fU) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                    : std::ldexp(static_cast<float>(8 + mantissa),
                                                 static_cast<int>(exponent) - 10);
  return (code & 0x80U) != 0 ? -value : value;
}

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_NUMBER_BITS_H_
