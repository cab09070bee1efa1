#include "model/formats/number_formats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

float Next(float value) { return std::nextafterf(value, kInf); }
float Previous(float value) { return std::nextafterf(value, -kInf); }

TEST(Bf16, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = Bf16ToFloat(static_cast<uint16_t>(bits));
    ASSERT_EQ(std::bit_cast<uint32_t>(value), bits << 16);
    const uint16_t back = FloatToBf16(value);
    ASSERT_EQ(back, std::isnan(value) ? 0x7fc0 : bits) << bits;
  }
}

TEST(Bf16, TiesGoToTheEvenCodeAndNeighboursToTheNearest) {
  // The midpoint of two neighbours is the lower one's bits with 0x8000 appended.
  for (uint32_t bits = 0; bits < 0x7f80; ++bits) {
    const float middle = std::bit_cast<float>((bits << 16) | 0x8000U);
    const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    ASSERT_EQ(FloatToBf16(middle), even) << bits;
    ASSERT_EQ(FloatToBf16(Previous(middle)), bits);
    ASSERT_EQ(FloatToBf16(Next(middle)), bits + 1);
    ASSERT_EQ(FloatToBf16(-middle), even | 0x8000U);
  }
}

TEST(Bf16, LargestFloatOverflowsToInfinity) {
  EXPECT_EQ(FloatToBf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(FloatToBf16(-kInf), 0xff80);
  EXPECT_EQ(RoundToBf16(1.0F + 0x1p-9F), 1.0F);
}

TEST(E4M3, EveryCodeHasItsValueAndComesBack) {
  for (int code = 0; code < 256; ++code) {
    const float value = E4M3ToFloat(static_cast<uint8_t>(code));
    EXPECT_EQ(std::signbit(value), code >= 128);
    EXPECT_EQ(FloatToE4M3(value), code);
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
      continue;
    }
    const int exponent = (code >> 3) & 15;
    const double fraction = (code & 7) / 8.0 + (exponent > 0 ? 1.0 : 0.0);
    const double expected = std::ldexp(fraction, exponent > 0 ? exponent - 7 : -6);
    EXPECT_EQ(std::fabs(value), expected) << code;
  }
  EXPECT_EQ(E4M3ToFloat(0x7e), kE4M3Max);
  EXPECT_EQ(E4M3ToFloat(0x01), 0x1p-9F);
}

TEST(E4M3, TiesGoToTheEvenCodeAndNeighboursToTheNearest) {
  for (uint8_t code = 0; code < 0x7e; ++code) {
    const float middle = (kE4M3Values[code] + kE4M3Values[code + 1]) / 2;
    const uint8_t even = code % 2 == 0 ? code : static_cast<uint8_t>(code + 1);
    EXPECT_EQ(FloatToE4M3(middle), even) << int{code};
    EXPECT_EQ(FloatToE4M3(Previous(middle)), code);
    EXPECT_EQ(FloatToE4M3(Next(middle)), code + 1);
    EXPECT_EQ(FloatToE4M3(-middle), even | 0x80);
  }
}

TEST(E4M3, LargeValuesSaturateAndNanStaysNan) {
  for (const float value : {448.0F, 463.9F, 464.0F, 1e30F, kInf}) {
    EXPECT_EQ(FloatToE4M3(value), 0x7e) << value;
    EXPECT_EQ(FloatToE4M3(-value), 0xfe) << value;
  }
  EXPECT_EQ(FloatToE4M3(kNan), 0x7f);
  EXPECT_EQ(FloatToE4M3(-0.0F), 0x80);
  EXPECT_EQ(FloatToE4M3(std::numeric_limits<float>::denorm_min()), 0x00);
}

TEST(E8M0, EveryCodeIsItsPowerOfTwo) {
  for (int code = 0; code < 255; ++code) {
    const float value = E8M0ToFloat(static_cast<uint8_t>(code));
    EXPECT_EQ(value, std::ldexp(1.0, code - 127)) << code;
    EXPECT_EQ(FloatToE8M0(value), code);
  }
  EXPECT_TRUE(std::isnan(E8M0ToFloat(255)));
}

TEST(E8M0, DecodingRefusesNanByIndex) {
  const std::vector<std::byte> bytes = {std::byte{127}, std::byte{255}};
  std::vector<float> values(2);
  const absl::Status status = DecodeE8M0(bytes, values);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("scale 1"));
}

TEST(E8M0DeathTest, EncodingChecksForAPowerOfTwo) {
  EXPECT_DEATH((void)FloatToE8M0(3.0F), "");
  EXPECT_DEATH((void)FloatToE8M0(-1.0F), "");
  EXPECT_DEATH((void)FloatToE8M0(0.0F), "");
}

TEST(PowerOfTwoCeil, IsExactAroundEveryPower) {
  for (int exponent = -126; exponent < 127; ++exponent) {
    const float power = std::ldexp(1.0F, exponent);
    EXPECT_EQ(PowerOfTwoCeil(power), power);
    EXPECT_EQ(PowerOfTwoCeil(Next(power)), 2 * power);
    if (exponent > -126) {
      EXPECT_EQ(PowerOfTwoCeil(Previous(power)), power);
    }
  }
  EXPECT_EQ(PowerOfTwoCeil(std::numeric_limits<float>::denorm_min()), 0x1p-126F);
  EXPECT_EQ(PowerOfTwoCeil(std::numeric_limits<float>::max()), kInf);
}

TEST(Fp4, EveryCodeComesBackAndTiesGoToEven) {
  for (uint8_t code = 0; code < 16; ++code) {
    EXPECT_EQ(FloatToFp4(Fp4ToFloat(code)), code);
  }
  for (uint8_t code = 0; code < 7; ++code) {
    const float middle = (kFp4Values[code] + kFp4Values[code + 1]) / 2;
    const uint8_t even = code % 2 == 0 ? code : static_cast<uint8_t>(code + 1);
    EXPECT_EQ(FloatToFp4(middle), even) << middle;
    EXPECT_EQ(FloatToFp4(Previous(middle)), code);
    EXPECT_EQ(FloatToFp4(Next(middle)), code + 1);
  }
  EXPECT_EQ(FloatToFp4(-0.0F), 8);
  EXPECT_EQ(FloatToFp4(kInf), 7);
  EXPECT_EQ(FloatToFp4(-100.0F), 15);
}

TEST(QuantizeFp8, RaggedBlocksHaveTheirOwnScales) {
  // Blocks of 2 x 4 over 3 x 6: [0..1]x[0..3], [0..1]x[4..5], [2]x[0..3], [2]x[4..5].
  const BlockLayout layout{.rows = 3, .cols = 6, .block_rows = 2, .block_cols = 4};
  ASSERT_EQ(layout.num_blocks(), 4);
  std::vector<float> values(18, 1.0F);
  values[7] = 448.0F;   // row 1, column 1
  values[4] = -896.0F;  // row 0, column 4
  values[12] = 449.0F;  // row 2, column 0: just over one power
  std::vector<std::byte> codes(18);
  std::vector<float> scales(4);
  QuantizeFp8(values, layout, kWeightAmaxFloor, codes, scales);
  EXPECT_THAT(scales, testing::ElementsAre(1.0F, 2.0F, 2.0F, 0x1p-8F));
  EXPECT_EQ(codes[7], std::byte{0x7e});
  EXPECT_EQ(codes[4], std::byte{0xfe});
  std::vector<float> back(18);
  DequantizeFp8(codes, scales, layout, back);
  values[12] = 448.0F;  // 449 / 2 = 224.5 lies between 224 and 240.
  EXPECT_EQ(back, values);
}

TEST(QuantizeFp8, ActivationScaleStopsAtTheFloor) {
  const BlockLayout layout{.rows = 1, .cols = 130, .block_rows = 1, .block_cols = 128};
  std::vector<float> values(130, 0.0F);
  values[129] = 448.0F * 0x1p-10F;
  std::vector<std::byte> codes(130);
  std::vector<float> scales(2);
  QuantizeFp8(values, layout, kActivationAmaxFloor, codes, scales);
  // 1e-4 / 448 = 2.23e-7 lies between 2^-23 and 2^-22.
  EXPECT_THAT(scales, testing::ElementsAre(0x1p-22F, 0x1p-10F));
  EXPECT_EQ(codes[0], std::byte{0});
  EXPECT_EQ(codes[129], std::byte{0x7e});
}

TEST(QuantizeFp8, NanStaysNan) {
  const BlockLayout layout{.rows = 1, .cols = 2, .block_rows = 1, .block_cols = 128};
  std::vector<std::byte> codes(2);
  std::vector<float> scales(1);
  QuantizeFp8(std::vector<float>{kNan, 1.0F}, layout, kActivationAmaxFloor, codes,
              scales);
  EXPECT_EQ(codes[0], std::byte{0x7f});
  EXPECT_EQ(scales[0], 0x1p-8F);
}

TEST(QuantizeFp8, QuantisedValuesAreAFixedPoint) {
  constexpr uint32_t kSeed = 17;
  SCOPED_TRACE(kSeed);
  std::mt19937 generator(kSeed);
  std::normal_distribution<float> normal;
  const BlockLayout layout{.rows = 131, .cols = 257};
  std::vector<float> values(static_cast<size_t>(layout.num_values()));
  for (float& value : values) value = normal(generator);
  std::vector<std::byte> codes(values.size());
  std::vector<float> scales(6);
  std::vector<float> once(values.size());
  std::vector<float> twice(values.size());
  QuantizeFp8(values, layout, kWeightAmaxFloor, codes, scales);
  DequantizeFp8(codes, scales, layout, once);
  for (size_t i = 0; i < values.size(); ++i) {
    // Half a step: 2^-4 of a normal value, 2^-10 of the scale below.
    ASSERT_LE(std::fabs(once[i] - values[i]),
              std::max(std::fabs(values[i]) * 0x1p-4F, scales[0] * 0x1p-9F));
  }
  QuantizeFp8(once, layout, kWeightAmaxFloor, codes, scales);
  DequantizeFp8(codes, scales, layout, twice);
  EXPECT_EQ(once, twice);
}

TEST(Mxfp4, LowNibbleIsTheEvenColumn) {
  std::vector<float> values(32, 0.0F);
  values[0] = 6.0F;
  values[1] = -1.5F;
  values[31] = 0.5F;
  std::vector<std::byte> packed(16);
  std::vector<std::byte> scales(1);
  ASSERT_TRUE(QuantizeMxfp4(values, packed, scales).ok());
  EXPECT_EQ(scales[0], std::byte{127});
  EXPECT_EQ(packed[0], std::byte{0xb7});
  EXPECT_EQ(packed[15], std::byte{0x10});
  std::vector<float> back(32);
  ASSERT_TRUE(DequantizeMxfp4(packed, scales, back).ok());
  EXPECT_EQ(back, values);
}

TEST(Mxfp4, ScaleIsTheSmallestPowerThatDoesNotSaturate) {
  for (const auto& [amax, code] :
       {std::pair{6.0F, 127}, {6.001F, 128}, {12.0F, 128}, {3.0F, 126}, {0.0F, 1}}) {
    std::vector<float> values(32, 0.0F);
    values[5] = -amax;
    std::vector<std::byte> packed(16);
    std::vector<std::byte> scales(1);
    ASSERT_TRUE(QuantizeMxfp4(values, packed, scales).ok());
    EXPECT_EQ(std::to_integer<int>(scales[0]), code) << amax;
  }
}

TEST(Mxfp4, EveryByteDecodesToItsTwoCodes) {
  const std::vector<std::byte> scales(16, std::byte{130});
  std::vector<std::byte> packed(256);
  for (size_t i = 0; i < 256; ++i) packed[i] = static_cast<std::byte>(i);
  std::vector<float> values(512);
  ASSERT_TRUE(DequantizeMxfp4(packed, scales, values).ok());
  for (size_t i = 0; i < 256; ++i) {
    EXPECT_EQ(values[2 * i], kFp4Values[i % 16] * 8);
    EXPECT_EQ(values[2 * i + 1], kFp4Values[i / 16] * 8);
  }
}

TEST(Mxfp4, RefusesWhatItCannotHold) {
  std::vector<float> values(32, 0.0F);
  std::vector<std::byte> packed(16);
  std::vector<std::byte> scales(1);
  for (const float bad : {kNan, kInf, -kInf}) {
    values[3] = bad;
    EXPECT_EQ(QuantizeMxfp4(values, packed, scales).code(),
              absl::StatusCode::kInvalidArgument);
  }
  scales[0] = std::byte{255};
  EXPECT_EQ(DequantizeMxfp4(packed, scales, values).code(), absl::StatusCode::kDataLoss);
}

TEST(DecodeToFloat, ReadsUnalignedBytesOfEachFormat) {
  std::vector<std::byte> bytes(17);
  const double number = 1.5;
  std::memcpy(bytes.data() + 1, &number, 8);
  std::memcpy(bytes.data() + 9, &number, 8);
  std::vector<float> values(2);
  const std::span<const std::byte> tail = std::span(bytes).subspan(1);
  ASSERT_TRUE(DecodeToFloat(DType::kF64, tail, values).ok());
  EXPECT_THAT(values, testing::ElementsAre(1.5F, 1.5F));
  std::vector<std::byte> bf16(4);
  EncodeBf16(std::vector<float>{-2.0F, 0.1F}, bf16);
  ASSERT_TRUE(DecodeToFloat(DType::kBF16, bf16, values).ok());
  EXPECT_THAT(values, testing::ElementsAre(-2.0F, RoundToBf16(0.1F)));
  const std::vector<std::byte> codes = {std::byte{0x38}, std::byte{0xb8}};
  ASSERT_TRUE(DecodeToFloat(DType::kF8E4M3, codes, values).ok());
  EXPECT_THAT(values, testing::ElementsAre(1.0F, -1.0F));
  EXPECT_EQ(DecodeToFloat(DType::kI8, codes, values).code(),
            absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace tessera::model
