// Weight rows from their checkpoint format to floats, written once for all instruction
// sets. Included through simd_table.h only.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_DECODE_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_DECODE_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

TESSERA_INLINE int64_t RoundUp16(int64_t n) { return (n + 15) / 16 * 16; }

// Bytes of n values from an even index on.
TESSERA_INLINE int64_t CodeBytes(WeightFormat format, int64_t n) {
  switch (format) {
    case WeightFormat::kF32:
      return 4 * n;
    case WeightFormat::kBf16:
      return 2 * n;
    case WeightFormat::kF8E4M3:
      return n;
    case WeightFormat::kFp4:
      break;
  }
  return (n + 1) / 2;
}

template <WeightFormat kFormat>
TESSERA_INLINE V16 DecodeVector(const uint8_t* at) {
  if constexpr (kFormat == WeightFormat::kF32) {
    return Load(reinterpret_cast<const float*>(at));
  } else if constexpr (kFormat == WeightFormat::kBf16) {
    return DecodeBf16(at);
  } else if constexpr (kFormat == WeightFormat::kF8E4M3) {
    return DecodeF8(at);
  } else {
    return DecodeFp4(at);
  }
}

// The short way for groups of 32 values times `scale`; returns how many values it
// decoded. None if a value or a scale is beyond what it holds.
template <WeightFormat kFormat>
TESSERA_INLINE int64_t DecodeGroups(const uint8_t* codes, int64_t count, float scale,
                                    float* out) {
  constexpr int64_t kGroup = 32;
  V16 values[2];
  int64_t i = 0;
  if constexpr (kFormat == WeightFormat::kFp4) {
    const V16 products = Fp4Products(scale);
    for (; i + kGroup <= count; i += kGroup) {
      LookUpFp4(codes + i / 2, products, values);
      Store(FromFp4Order(values[0]), out + i);
      Store(FromFp4Order(values[1]), out + i + 16);
    }
  } else if constexpr (kFormat == WeightFormat::kF8E4M3) {
    const float scale_of_codes = scale * 256.0F;
    if (scale_of_codes == __builtin_inff()) {
      return 0;
    }
    const V16 factor = Set(scale_of_codes);
    I16 largest = ZeroInts();
    for (; i + kGroup <= count; i += kGroup) {
      largest = LargerF8(largest, LoadTwice(codes + i));
      DecodeFiniteF8(codes + i, values);
      Store(Mul(values[0], factor), out + i);
      Store(Mul(values[1], factor), out + i + 16);
    }
    if (HoldsNanF8(largest)) {
      return 0;
    }
  }
  return i;
}

// Values [begin, begin + count) of the codes of a row, times `scale` if the format has
// one.
template <WeightFormat kFormat, bool kScaled>
void DecodeRun(const uint8_t* row, int64_t begin, int64_t count, float scale,
               float* out) {
  const V16 factor = Set(scale);
  int64_t i = 0;
  if (kFormat == WeightFormat::kFp4 &&
      begin % 2 != 0) {  // the high nibble of a shared byte
    uint8_t codes[16] = {};
    codes[0] = static_cast<uint8_t>(row[begin / 2] >> 4);
    StoreFirst(kScaled ? Mul(DecodeVector<kFormat>(codes), factor)
                       : DecodeVector<kFormat>(codes),
               out, 1);
    i = 1;
  }
  const uint8_t* codes = row + CodeBytes(kFormat, begin + i);
  if constexpr (kScaled) {
    const int64_t decoded = DecodeGroups<kFormat>(codes, count - i, scale, out + i);
    codes += CodeBytes(kFormat, decoded);
    i += decoded;
  }
  for (; i + 16 <= count; i += 16) {
    const V16 values = DecodeVector<kFormat>(codes);
    Store(kScaled ? Mul(values, factor) : values, out + i);
    codes += CodeBytes(kFormat, 16);
  }
  if (i < count) {  // do not read past the row
    uint8_t last[64] = {};
    __builtin_memcpy(last, codes, static_cast<uint64_t>(CodeBytes(kFormat, count - i)));
    const V16 values = DecodeVector<kFormat>(last);
    StoreFirst(kScaled ? Mul(values, factor) : values, out + i, count - i);
  }
}

// Scales have no sign.
TESSERA_INLINE float E4M3Scale(uint32_t code) {
  const uint32_t exponent = code >> 3;
  const uint32_t mantissa = code & 7;
  if (exponent == 0) {
    return static_cast<float>(mantissa) * 0x1p-9F;
  }
  const uint32_t bits =
      code == 0x7f ? 0x7fc00000U : ((exponent + 120) << 23) | (mantissa << 20);
  float scale;
  __builtin_memcpy(&scale, &bits, sizeof(scale));
  return scale;
}

TESSERA_INLINE float ScaleAt(const WeightRows& w, int64_t at) {
  float scale;
  if (w.scale_format == ScaleFormat::kF32) {
    __builtin_memcpy(&scale, w.scales + at * 4, sizeof(scale));
    return scale;
  }
  const uint32_t code = w.scales[at];
  if (w.scale_format == ScaleFormat::kE4M3) {
    return E4M3Scale(code);
  }
  uint32_t bits = code << 23;
  if (code == 0) {
    bits = 0x00400000U;  // 2^-127 is below the smallest normal
  } else if (code == 255) {
    bits = 0x7fc00000U;  // NaN
  }
  __builtin_memcpy(&scale, &bits, sizeof(scale));
  return scale;
}

template <WeightFormat kFormat>
void DecodeRowOf(const WeightRows& w, int64_t row, int64_t begin, int64_t count,
                 float* out) {
  const uint8_t* codes = w.data + row * w.row_bytes;
  if (w.scale_format == ScaleFormat::kNone) {
    DecodeRun<kFormat, false>(codes, begin, count, 1.0F, out);
    return;
  }
  const int64_t scale_row = (w.row_offset + row) / w.block_rows * w.scale_stride;
  int64_t block = (w.col_offset + begin) / w.block_cols;
  for (int64_t i = 0; i < count; ++block) {
    const int64_t block_end = (block + 1) * w.block_cols - w.col_offset - begin;
    const int64_t run = Smaller(block_end, count) - i;
    DecodeRun<kFormat, true>(codes, begin + i, run, ScaleAt(w, scale_row + block),
                             out + i);
    i += run;
  }
}

void DecodeRow(const WeightRows& w, int64_t row, int64_t begin, int64_t count,
               float* out) {
  switch (w.format) {
    case WeightFormat::kF32:
      return DecodeRowOf<WeightFormat::kF32>(w, row, begin, count, out);
    case WeightFormat::kBf16:
      return DecodeRowOf<WeightFormat::kBf16>(w, row, begin, count, out);
    case WeightFormat::kF8E4M3:
      return DecodeRowOf<WeightFormat::kF8E4M3>(w, row, begin, count, out);
    case WeightFormat::kFp4:
      return DecodeRowOf<WeightFormat::kFp4>(w, row, begin, count, out);
  }
}

// As DecodeRow, then zeros up to a multiple of 16.
TESSERA_INLINE void DecodePadded(const WeightRows& w, int64_t row, int64_t begin,
                                 int64_t count, float* out) {
  DecodeRow(w, row, begin, count, out);
  for (int64_t i = count; i < RoundUp16(count); ++i) {
    out[i] = 0.0F;
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_DECODE_H_
