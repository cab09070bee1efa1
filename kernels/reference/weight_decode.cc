#include "kernels/reference/weight_decode.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace tessera::kernels::reference {
namespace {

using model::DType;

float LoadFloat(const std::byte* at) {
  float value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

float LoadBf16(const std::byte* at) {
  uint16_t code;
  std::memcpy(&code, at, sizeof(code));
  return DecodeBf16(code);
}

// The stored value at column `i` of a row, without its scale.
float StoredValue(DType dtype, const std::byte* row, int64_t i) {
  switch (dtype) {
    case DType::kF32:
      return LoadFloat(row + i * 4);
    case DType::kBF16:
      return LoadBf16(row + i * 2);
    case DType::kF8E4M3:
      return DecodeF8E4M3(static_cast<uint8_t>(row[i]));
    case DType::kFp4: {
      const auto pair = static_cast<uint8_t>(row[i / 2]);
      return DecodeFp4(static_cast<uint8_t>(i % 2 == 0 ? pair & 15 : pair >> 4));
    }
    default:
      TESSERA_CHECK(false);
      return 0;
  }
}

float ScaleOf(const WeightView& w, int64_t row, int64_t col) {
  const int64_t block_row = (w.row_offset + row) / w.block_rows;
  const int64_t block_col = (w.col_offset + col) / w.block_cols;
  const int64_t at = block_row * w.scale_stride + block_col;
  if (w.scale_dtype == DType::kF8E8M0) {
    return DecodeF8E8M0(static_cast<uint8_t>(w.scales[at]));
  }
  TESSERA_CHECK(w.scale_dtype == DType::kF32);
  return LoadFloat(w.scales + at * 4);
}

}  // namespace

float DecodeF8E4M3(uint8_t code) {
  const int exponent = (code >> 3) & 15;
  const int mantissa = code & 7;
  const float sign = (code & 0x80) != 0 ? -1.0F : 1.0F;
  if (exponent == 15 && mantissa == 7) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  if (exponent == 0) {
    return sign * std::ldexp(static_cast<float>(mantissa), -9);
  }
  return sign * std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
}

float DecodeF8E8M0(uint8_t code) {
  return code == 255 ? std::numeric_limits<float>::quiet_NaN()
                     : std::ldexp(1.0F, code - 127);
}

float DecodeFp4(uint8_t code) {
  static constexpr std::array<float, 8> kMagnitudes = {0,    0.5F, 1.0F, 1.5F,
                                                       2.0F, 3.0F, 4.0F, 6.0F};
  const float magnitude = kMagnitudes[code & 7];
  return (code & 8) != 0 ? -magnitude : magnitude;
}

float DecodeBf16(uint16_t code) {
  return std::bit_cast<float>(static_cast<uint32_t>(code) << 16);
}

float RoundToBf16(float value) {
  if (std::isnan(value)) {
    return value;
  }
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
  return std::bit_cast<float>(rounded & 0xffff0000U);
}

bool CanDecode(model::DType weight, model::DType scale) {
  switch (weight) {
    case DType::kF32:
    case DType::kBF16:
      return true;
    case DType::kF8E4M3:
      return scale == DType::kF32 || scale == DType::kF8E8M0;
    case DType::kFp4:
      return scale == DType::kF8E8M0;
    default:
      return false;
  }
}

template <typename T>
void DecodeRow(const WeightView& w, int64_t row, int64_t begin, int64_t count, T* out) {
  TESSERA_CHECK(row >= 0 && row < w.rows && begin >= 0 && begin + count <= w.cols);
  const std::byte* values = w.data + row * w.row_bytes;
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<T>(StoredValue(w.dtype, values, begin + i));
  }
  if (!w.has_scales()) {
    return;
  }
  for (int64_t i = 0; i < count;) {
    const auto scale = static_cast<T>(ScaleOf(w, row, begin + i));
    const int64_t in_block = (w.col_offset + begin + i) % w.block_cols;
    const int64_t end = std::min(count, i + w.block_cols - in_block);
    for (; i < end; ++i) {
      out[i] *= scale;
    }
  }
}

template <typename T>
std::vector<T> DecodeAll(const WeightView& w) {
  std::vector<T> out(static_cast<size_t>(w.rows * w.cols));
  for (int64_t row = 0; row < w.rows; ++row) {
    DecodeRow(w, row, 0, w.cols, out.data() + row * w.cols);
  }
  return out;
}

template void DecodeRow(const WeightView&, int64_t, int64_t, int64_t, float*);
template void DecodeRow(const WeightView&, int64_t, int64_t, int64_t, double*);
template std::vector<float> DecodeAll(const WeightView&);
template std::vector<double> DecodeAll(const WeightView&);

}  // namespace tessera::kernels::reference
