// Weights to float32 on the device, value by value: the same products of stored value and
// scale as kernels/reference/weight_decode.h.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_WEIGHT_DECODE_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_WEIGHT_DECODE_CUH_

#include <cstdint>
#include <cstring>

#include "kernels/cuda/primitives/device_tensor.cuh"

namespace tessera::kernels::cuda {

TESSERA_DEVICE inline float FloatOfBits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

TESSERA_DEVICE inline float DecodeE4M3(uint32_t code) {
  const uint32_t sign = (code & 0x80U) << 24;
  const uint32_t magnitude = code & 0x7fU;
  if (magnitude == 0x7fU) {
    return FloatOfBits(sign | 0x7fc00000U);
  }
  // Exponent and mantissa at the places of float32, times 2^(127 - 7): denormals too.
  const float scaled = FloatOfBits(magnitude << 20) * 0x1p120F;
  return sign != 0 ? -scaled : scaled;
}

TESSERA_DEVICE inline float DecodeE8M0(uint32_t code) {
  if (code == 255U) {
    return FloatOfBits(0x7fc00000U);
  }
  return FloatOfBits(code == 0U ? 0x00400000U : code << 23);
}

TESSERA_DEVICE inline float DecodeE2M1(uint32_t code) {
  // Two exponent bits with bias 1 and one of the mantissa: as above.
  const float magnitude = FloatOfBits((code & 7U) << 22) * 0x1p126F;
  return (code & 8U) != 0 ? -magnitude : magnitude;
}

// The scale of value [row, col] of a weight that has scales.
TESSERA_DEVICE inline float LoadScale(Thread& thread, const DeviceWeight& w, int64_t row,
                                      int64_t col) {
  const int64_t at = (w.row_offset + row) / w.block_rows * w.scale_stride +
                     (w.col_offset + col) / w.block_cols;
  if (w.scale_dtype == DType::kF32) {
    const GlobalSpan<const float> scales = {reinterpret_cast<const float*>(w.scales.data),
                                            w.scales.size / 4};
    return thread.Load(scales, at);
  }
  return DecodeE8M0(thread.Load(w.scales, at));
}

// Value [row, col] times its scale.
TESSERA_DEVICE inline float LoadWeight(Thread& thread, const DeviceWeight& w, int64_t row,
                                       int64_t col) {
  const int64_t begin = row * w.row_bytes;
  if (w.dtype == DType::kF32) {
    const GlobalSpan<const float> values = {reinterpret_cast<const float*>(w.values.data),
                                            w.values.size / 4};
    return thread.Load(values, begin / 4 + col);
  }
  if (w.dtype == DType::kBF16) {
    const GlobalSpan<const uint16_t> values = {
        reinterpret_cast<const uint16_t*>(w.values.data), w.values.size / 2};
    return FloatOfBits(uint32_t{thread.Load(values, begin / 2 + col)} << 16);
  }
  float value;
  if (w.dtype == DType::kF8E4M3) {
    value = DecodeE4M3(thread.Load(w.values, begin + col));
  } else {
    const uint32_t pair = thread.Load(w.values, begin + col / 2);
    value = DecodeE2M1(col % 2 == 0 ? pair & 15U : pair >> 4);
  }
  if (w.scales.data == nullptr) {
    return value;
  }
  return value * LoadScale(thread, w, row, col);
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_WEIGHT_DECODE_CUH_
