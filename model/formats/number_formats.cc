#include "model/formats/number_formats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>

#include "absl/status/status.h"

#include "common/check.h"
#include "common/status.h"

namespace tessera::model {
namespace {

static_assert(std::endian::native == std::endian::little,
              "checkpoint bytes are read in place as little-endian values");

constexpr uint32_t kSignBit = 0x80000000U;
constexpr uint32_t kInfinityBits = 0x7f800000U;

uint8_t ToCode(std::byte byte) { return std::to_integer<uint8_t>(byte); }

template <typename T>
T Load(std::span<const std::byte> bytes, size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

// Calls visit(block index, first value index of a row part, length) for each row of each
// block.
template <typename Visit>
void ForEachBlockRow(const BlockLayout& layout, const Visit& visit) {
  for (int64_t row = 0; row < layout.rows; ++row) {
    const int64_t block_base = row / layout.block_rows * layout.num_block_cols();
    for (int64_t block_col = 0; block_col < layout.num_block_cols(); ++block_col) {
      const int64_t begin = block_col * layout.block_cols;
      const int64_t length = std::min(layout.block_cols, layout.cols - begin);
      visit(static_cast<size_t>(block_base + block_col),
            static_cast<size_t>(row * layout.cols + begin), static_cast<size_t>(length));
    }
  }
}

void CheckLayout(const BlockLayout& layout, size_t num_values, size_t num_codes,
                 size_t num_scales) {
  TESSERA_CHECK(layout.block_rows > 0 && layout.block_cols > 0);
  TESSERA_CHECK_EQ(num_values, static_cast<size_t>(layout.num_values()));
  TESSERA_CHECK_EQ(num_codes, static_cast<size_t>(layout.num_values()));
  TESSERA_CHECK_EQ(num_scales, static_cast<size_t>(layout.num_blocks()));
}

}  // namespace

float Bf16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & ~kSignBit) > kInfinityBits) {
    return 0x7fc0;
  }
  // Adding just under half of the last kept bit, and one more if that bit is odd, carries
  // exactly when the value rounds up.
  const uint32_t odd = (bits >> 16) & 1U;
  return static_cast<uint16_t>((bits + 0x7fffU + odd) >> 16);
}

float RoundToBf16(float value) { return Bf16ToFloat(FloatToBf16(value)); }

float E4M3ToFloat(uint8_t code) { return kE4M3Values[code]; }

uint8_t FloatToE4M3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & ~kSignBit;
  const uint32_t sign = (bits >> 24) & 0x80U;
  if (magnitude > kInfinityBits) {
    return static_cast<uint8_t>(sign | 0x7fU);
  }
  if (magnitude >= std::bit_cast<uint32_t>(kE4M3Max)) {
    return static_cast<uint8_t>(sign | 0x7eU);
  }
  if (magnitude < std::bit_cast<uint32_t>(0x1p-6F)) {
    // Below the normal range codes step by 2^-9, which is the last bit of a float near
    // 2^14: the addition rounds, and the difference of the bits is the code.
    constexpr float kAnchor = 0x1p14F;
    const float sum = std::bit_cast<float>(magnitude) + kAnchor;
    return static_cast<uint8_t>(
        sign | (std::bit_cast<uint32_t>(sum) - std::bit_cast<uint32_t>(kAnchor)));
  }
  const uint32_t odd = (magnitude >> 20) & 1U;
  const uint32_t rounded = (magnitude + 0x7ffffU + odd) >> 20;
  constexpr uint32_t kBiasDifference = (127U - 7U) << 3;
  return static_cast<uint8_t>(sign | (rounded - kBiasDifference));
}

float E8M0ToFloat(uint8_t code) {
  if (code == 255) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  return code == 0 ? 0x1p-127F : std::bit_cast<float>(static_cast<uint32_t>(code) << 23);
}

uint8_t FloatToE8M0(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (bits == std::bit_cast<uint32_t>(0x1p-127F)) {
    return 0;
  }
  TESSERA_CHECK((bits & 0x807fffffU) == 0 && bits != 0 && bits != kInfinityBits);
  return static_cast<uint8_t>(bits >> 23);
}

float PowerOfTwoCeil(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t exponent = (bits >> 23) + ((bits & 0x7fffffU) != 0 ? 1U : 0U);
  return std::bit_cast<float>(std::min(exponent, 255U) << 23);
}

float Fp4ToFloat(uint8_t code) {
  TESSERA_DCHECK(code < 16);
  return kFp4Values[code & 15U];
}

uint8_t FloatToFp4(float value) {
  TESSERA_CHECK(!std::isnan(value));
  const float a = std::fabs(value);
  // Midpoints between neighbours; a midpoint goes to the even code, hence > and >= by
  // turns.
  const int code = (a > 0.25F) + (a >= 0.75F) + (a > 1.25F) + (a >= 1.75F) + (a > 2.5F) +
                   (a >= 3.5F) + (a > 5.0F);
  return static_cast<uint8_t>(code + (std::signbit(value) ? 8 : 0));
}

void DecodeBf16(std::span<const std::byte> bytes, std::span<float> values) {
  TESSERA_CHECK_EQ(bytes.size(), 2 * values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = Bf16ToFloat(Load<uint16_t>(bytes, i));
  }
}

void EncodeBf16(std::span<const float> values, std::span<std::byte> bytes) {
  TESSERA_CHECK_EQ(bytes.size(), 2 * values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = FloatToBf16(values[i]);
    std::memcpy(bytes.data() + 2 * i, &bits, sizeof(bits));
  }
}

absl::Status DecodeE8M0(std::span<const std::byte> bytes, std::span<float> values) {
  TESSERA_CHECK_EQ(bytes.size(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (ToCode(bytes[i]) == 255) {
      return DataLossF("scale {} is an e8m0 nan (byte 255), expected 0 to 254", i);
    }
    values[i] = E8M0ToFloat(ToCode(bytes[i]));
  }
  return absl::OkStatus();
}

absl::Status DecodeToFloat(DType dtype, std::span<const std::byte> bytes,
                           std::span<float> values) {
  TESSERA_CHECK_EQ(bytes.size() * 8, DTypeBits(dtype) * values.size());
  switch (dtype) {
    case DType::kF32:
      if (!values.empty()) {
        std::memcpy(values.data(), bytes.data(), bytes.size());
      }
      return absl::OkStatus();
    case DType::kF64:
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(Load<double>(bytes, i));
      }
      return absl::OkStatus();
    case DType::kBF16:
      DecodeBf16(bytes, values);
      return absl::OkStatus();
    case DType::kF8E4M3:
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = E4M3ToFloat(ToCode(bytes[i]));
      }
      return absl::OkStatus();
    case DType::kF8E8M0:
      return DecodeE8M0(bytes, values);
    case DType::kF16:
    case DType::kFp4:
    case DType::kI8:
    case DType::kU8:
    case DType::kI32:
    case DType::kI64:
    case DType::kBool:
      break;
  }
  return StatusF(absl::StatusCode::kUnimplemented, "no decoding of {} to fp32",
                 DTypeName(dtype));
}

void QuantizeFp8(std::span<const float> values, const BlockLayout& layout,
                 float amax_floor, std::span<std::byte> codes, std::span<float> scales) {
  CheckLayout(layout, values.size(), codes.size(), scales.size());
  std::fill(scales.begin(), scales.end(), amax_floor);
  ForEachBlockRow(layout, [&](size_t block, size_t begin, size_t length) {
    float amax = scales[block];
    for (size_t i = begin; i < begin + length; ++i) {
      amax = std::max(amax, std::fabs(values[i]));  // NaN leaves amax as it is.
    }
    scales[block] = amax;
  });
  for (float& scale : scales) {
    scale = PowerOfTwoCeil(scale * (1.0F / kE4M3Max));
  }
  ForEachBlockRow(layout, [&](size_t block, size_t begin, size_t length) {
    const float scale = scales[block];
    for (size_t i = begin; i < begin + length; ++i) {
      codes[i] = std::byte{FloatToE4M3(values[i] / scale)};
    }
  });
}

void DequantizeFp8(std::span<const std::byte> codes, std::span<const float> scales,
                   const BlockLayout& layout, std::span<float> values) {
  CheckLayout(layout, values.size(), codes.size(), scales.size());
  ForEachBlockRow(layout, [&](size_t block, size_t begin, size_t length) {
    const float scale = scales[block];
    for (size_t i = begin; i < begin + length; ++i) {
      values[i] = kE4M3Values[ToCode(codes[i])] * scale;
    }
  });
}

absl::Status QuantizeMxfp4(std::span<const float> values, std::span<std::byte> packed,
                           std::span<std::byte> scales) {
  constexpr size_t kGroup = static_cast<size_t>(kMicroscaleGroup);
  TESSERA_CHECK_EQ(values.size(), scales.size() * kGroup);
  TESSERA_CHECK_EQ(values.size(), packed.size() * 2);
  for (size_t group = 0; group < scales.size(); ++group) {
    const std::span<const float> in = values.subspan(group * kGroup, kGroup);
    float amax = kFp4Max * std::numeric_limits<float>::min();
    for (size_t i = 0; i < kGroup; ++i) {
      if (!std::isfinite(in[i])) {
        return InvalidArgumentF("value {} is {}, expected a finite number for mxfp4",
                                group * kGroup + i, in[i]);
      }
      amax = std::max(amax, std::fabs(in[i]));
    }
    const float scale = PowerOfTwoCeil(amax * (1.0F / kFp4Max));
    scales[group] = std::byte{FloatToE8M0(scale)};
    for (size_t i = 0; i < kGroup; i += 2) {
      const unsigned low = FloatToFp4(in[i] / scale);
      const unsigned high = FloatToFp4(in[i + 1] / scale);
      packed[(group * kGroup + i) / 2] = static_cast<std::byte>(low | (high << 4));
    }
  }
  return absl::OkStatus();
}

absl::Status DequantizeMxfp4(std::span<const std::byte> packed,
                             std::span<const std::byte> scales, std::span<float> values) {
  constexpr size_t kGroup = static_cast<size_t>(kMicroscaleGroup);
  TESSERA_CHECK_EQ(values.size(), scales.size() * kGroup);
  TESSERA_CHECK_EQ(values.size(), packed.size() * 2);
  for (size_t group = 0; group < scales.size(); ++group) {
    const uint8_t scale_code = ToCode(scales[group]);
    if (scale_code == 255) {
      return DataLossF("scale {} is an e8m0 nan (byte 255), expected 0 to 254", group);
    }
    const float scale = E8M0ToFloat(scale_code);
    for (size_t i = group * kGroup; i < (group + 1) * kGroup; i += 2) {
      const uint8_t pair = ToCode(packed[i / 2]);
      values[i] = kFp4Values[pair & 15U] * scale;
      values[i + 1] = kFp4Values[pair >> 4] * scale;
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::model
