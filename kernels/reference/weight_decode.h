// Decodes weights from their checkpoint format, value by value (weight_view.h has the
// table of formats). Slow and obvious: the definition that the vectorised decoders are
// tested against.
#ifndef TESSERA_KERNELS_REFERENCE_WEIGHT_DECODE_H_
#define TESSERA_KERNELS_REFERENCE_WEIGHT_DECODE_H_

#include <cstdint>
#include <vector>

#include "kernels/weight_view.h"

namespace tessera::kernels::reference {

// Single codes. Exact: every value of the three formats is a float.
float DecodeF8E4M3(uint8_t code);  // 0x7f and 0xff are NaN
float DecodeF8E8M0(uint8_t code);  // 2^(code - 127); 255 is NaN
float DecodeFp4(uint8_t code);     // the low four bits
float DecodeBf16(uint16_t code);
float RoundToBf16(float value);  // to nearest, ties to even

// True if weights of this dtype with scales of this dtype can be decoded. `scale` is
// looked at for kF8E4M3 and kFp4 only.
bool CanDecode(model::DType weight, model::DType scale);

// Values [row, begin .. begin + count) of `w`, times their scales, into out[0 .. count).
// T is float or double.
template <typename T>
void DecodeRow(const WeightView& w, int64_t row, int64_t begin, int64_t count, T* out);

// The whole matrix, row-major. For small weights: norms, gates, kernels of convolutions.
template <typename T>
std::vector<T> DecodeAll(const WeightView& w);

}  // namespace tessera::kernels::reference

#endif  // TESSERA_KERNELS_REFERENCE_WEIGHT_DECODE_H_
