// Number formats: how the values of a checkpoint and of quantised activations are
// encoded, both ways.
//
//   BF16   the upper half of an fp32.
//   E4M3   fp8 "e4m3fn": sign, 4 exponent bits with bias 7, 3 mantissa bits; largest
//   value 448,
//          no infinity, NaN is 0x7f and 0xff.
//   E8M0   a scale: byte b is 2^(b - 127), 255 is NaN; byte 0 is 2^-127, not zero.
//   FP4    e2m1: codes 0..7 are 0, 0.5, 1, 1.5, 2, 3, 4, 6; bit 3 is the sign (code 8 is
//   -0). MXFP4  FP4 with one E8M0 scale per row and 32 consecutive columns; two codes in
//   a byte, the low
//          nibble is the even column.
//
// Every encoder rounds to nearest, ties to the even code. This is the definition that
// kernels are tested against. Kernels that are compiled for one instruction set decode in
// their own way: the functions here are ordinary calls, built once, so that no such
// object file can replace them.
//
// All functions are pure and thread-safe. Sizes that do not agree are bugs of the caller
// (checked).
#ifndef TESSERA_MODEL_FORMATS_NUMBER_FORMATS_H_
#define TESSERA_MODEL_FORMATS_NUMBER_FORMATS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "absl/status/status.h"

#include "model/formats/dtype.h"

namespace tessera::model {

inline constexpr float kE4M3Max = 448.0F;
inline constexpr float kFp4Max = 6.0F;
// Columns that share one E8M0 scale in MXFP4 weights and in FP8 Engram rows.
inline constexpr int64_t kMicroscaleGroup = 32;

// The smallest amax that a scale is made from, so that no scale is zero or denormal.
inline constexpr float kActivationAmaxFloor = 1e-4F;
inline constexpr float kWeightAmaxFloor = 1e-30F;
inline constexpr float kEngramRowAmaxFloor = 0x1.cp-92F;  // 448 * 2^-100

namespace internal {

// 2^exponent for exponents of normal floats; constexpr, which std::ldexp is not in C++20.
constexpr float PowerOfTwo(int exponent) {
  float value = 1.0F;
  for (; exponent > 0; --exponent) {
    value *= 2.0F;
  }
  for (; exponent < 0; ++exponent) {
    value *= 0.5F;
  }
  return value;
}

constexpr std::array<float, 256> MakeE4M3Values() {
  std::array<float, 256> values{};
  for (int code = 0; code < 128; ++code) {
    const int exponent = code >> 3;
    const int mantissa = code & 7;
    float value = exponent == 0
                      ? static_cast<float>(mantissa) * PowerOfTwo(-9)
                      : static_cast<float>(8 + mantissa) * PowerOfTwo(exponent - 10);
    if (code == 0x7f) {
      value = std::numeric_limits<float>::quiet_NaN();
    }
    values[static_cast<size_t>(code)] = value;
    values[static_cast<size_t>(code + 128)] = -value;
  }
  return values;
}

}  // namespace internal

// Value of each code, as data for tables of any kind.
inline constexpr std::array<float, 256> kE4M3Values = internal::MakeE4M3Values();
inline constexpr std::array<float, 16> kFp4Values = {
    0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
    -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};

// Exact. NaN payloads are kept.
float Bf16ToFloat(uint16_t bits);
// Overflows to infinity as rounding says; every NaN becomes 0x7fc0.
uint16_t FloatToBf16(float value);
// The nearest BF16 value as a float.
float RoundToBf16(float value);

float E4M3ToFloat(uint8_t code);
// Values beyond 448, infinity included, saturate; NaN becomes NaN of its sign.
uint8_t FloatToE4M3(float value);

// Byte 255 gives NaN.
float E8M0ToFloat(uint8_t code);
// `value` must be a power of two between 2^-127 and 2^127 (checked).
uint8_t FloatToE8M0(float value);
// The smallest power of two >= value, made from the bits because a floating log2 is wrong
// at exact powers. For positive values up to 2^127; denormals give 2^-126, larger values
// and infinity give infinity.
float PowerOfTwoCeil(float value);

float Fp4ToFloat(uint8_t code);
// Values beyond 6 saturate. FP4 has no NaN: `value` must not be one (checked).
uint8_t FloatToFp4(float value);

// Arrays as they lie in a file, at any alignment, little-endian.
void DecodeBf16(std::span<const std::byte> bytes, std::span<float> values);
void EncodeBf16(std::span<const float> values, std::span<std::byte> bytes);
// kDataLoss for byte 255, with its index.
absl::Status DecodeE8M0(std::span<const std::byte> bytes, std::span<float> values);
// Any of F32, F64, BF16, F8_E4M3, F8_E8M0 to fp32, without scales. kUnimplemented for
// other dtypes; kDataLoss for an E8M0 NaN.
absl::Status DecodeToFloat(DType dtype, std::span<const std::byte> bytes,
                           std::span<float> values);

// A row-major matrix with one scale per block_rows x block_cols; the last blocks cover
// what is left. Weights have 128 x 128 blocks, activations 1 x 128, Engram rows 1 x 32.
struct BlockLayout {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t block_rows = 128;
  int64_t block_cols = 128;

  int64_t num_values() const { return rows * cols; }
  int64_t num_block_rows() const { return (rows + block_rows - 1) / block_rows; }
  int64_t num_block_cols() const { return (cols + block_cols - 1) / block_cols; }
  int64_t num_blocks() const { return num_block_rows() * num_block_cols(); }
};

// value ~ code * scale with the power-of-two scale 2^ceil(log2(max(amax, amax_floor) /
// 448)) of its block ("ue8m0"). A NaN stays a NaN; an infinity makes its own code NaN.
void QuantizeFp8(std::span<const float> values, const BlockLayout& layout,
                 float amax_floor, std::span<std::byte> codes, std::span<float> scales);
// Exact for power-of-two scales, apart from overflow.
void DequantizeFp8(std::span<const std::byte> codes, std::span<const float> scales,
                   const BlockLayout& layout, std::span<float> values);

// MXFP4 of a [rows, cols] matrix whose cols are a multiple of 32: packed [rows, cols / 2]
// and E8M0 scales [rows, cols / 32] = 2^ceil(log2(amax / 6)). kInvalidArgument for a
// value that is not finite, which FP4 cannot hold.
absl::Status QuantizeMxfp4(std::span<const float> values, std::span<std::byte> packed,
                           std::span<std::byte> scales);
// kDataLoss for a scale byte 255.
absl::Status DequantizeMxfp4(std::span<const std::byte> packed,
                             std::span<const std::byte> scales, std::span<float> values);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_FORMATS_NUMBER_FORMATS_H_
