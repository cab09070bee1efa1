#include "kernels/row_format.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "model/formats/number_formats.h"

namespace tessera::kernels {
namespace {

struct NamedFormat {
  const char* name;
  int64_t bytes;
  RowFormat format;
};

void PrintTo(const NamedFormat& named, std::ostream* os) { *os << named.name; }

// The rows of the published models, and one whose last group is short.
constexpr NamedFormat kFormats[] = {
    {"MlaRow", 656, {RowCode::kE4M3, RowScale::kF32, 576, 512, 128}},
    {"MlaIndexKey", 132, {RowCode::kE4M3, RowScale::kF32, 128, 128, 128}},
    {"V4Row", 584, {RowCode::kE4M3, RowScale::kE8M0, 512, 448, 64}},
    {"V41Window", 528, {RowCode::kE4M3, RowScale::kE8M0, 512, 512, 32}},
    {"V41Entry", 288, {RowCode::kFp4, RowScale::kE4M3, 512, 512, 16}},
    {"EntryIndexKey", 68, {RowCode::kFp4, RowScale::kE8M0, 128, 128, 32}},
    {"ShortGroup", 136 + 2 * 4 + 2 * 16, {RowCode::kE4M3, RowScale::kF32, 152, 136, 128}},
};

std::vector<float> Unpack(const RowFormat& format, const std::vector<std::byte>& row) {
  std::vector<float> values(static_cast<size_t>(format.width), -77.0F);
  UnpackRow(format, row.data(), values.data());
  return values;
}

std::vector<std::byte> Pack(const RowFormat& format, const std::vector<float>& values) {
  std::vector<std::byte> row(static_cast<size_t>(format.packed_bytes()), std::byte{0xa5});
  PackRow(format, values.data(), row.data());
  return row;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

class RowFormats : public testing::TestWithParam<NamedFormat> {
 protected:
  // Values whose groups reach from 2^-30 to 2^30, some of them zeros.
  std::vector<float> RandomValues(std::mt19937_64& random) const {
    std::uniform_real_distribution<float> value(-1, 1);
    std::uniform_int_distribution<int> exponent(-30, 30);
    std::vector<float> values(static_cast<size_t>(format().width));
    float unit = 1;
    for (size_t i = 0; i < values.size(); ++i) {
      if (i % 8 == 0) {
        unit = i % 3 == 0 ? 0x1p-9F : std::ldexp(1.0F, exponent(random));
      }
      values[i] = i % 13 == 5 ? -0.0F : value(random) * unit;
    }
    return values;
  }
  const RowFormat& format() const { return GetParam().format; }
};

TEST_P(RowFormats, HaveTheBytesOfThePublishedLayouts) {
  EXPECT_EQ(format().packed_bytes(), GetParam().bytes);
}

TEST_P(RowFormats, KeepWhatTheyHaveRoundedOnce) {
  constexpr uint64_t kSeed = 41;
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 200; ++round) {
    const std::vector<float> once =
        Unpack(format(), Pack(format(), RandomValues(random)));
    ASSERT_TRUE(SameBits(Unpack(format(), Pack(format(), once)), once))
        << "round " << round << " seed " << kSeed;
  }
}

TEST_P(RowFormats, WriteEveryByte) {
  std::vector<float> zeros(static_cast<size_t>(format().width), 0.0F);
  std::vector<std::byte> other(static_cast<size_t>(format().packed_bytes()),
                               std::byte{0x5a});
  PackRow(format(), zeros.data(), other.data());
  EXPECT_EQ(Pack(format(), zeros), other);
}

TEST_P(RowFormats, DamageOneGroupAlone) {
  for (const float damage : {std::numeric_limits<float>::quiet_NaN(),
                             -std::numeric_limits<float>::infinity()}) {
    std::vector<float> values(static_cast<size_t>(format().width), 0.5F);
    values[3] = damage;
    const std::vector<float> out = Unpack(format(), Pack(format(), values));
    for (int64_t i = 0; i < format().width; ++i) {
      EXPECT_EQ(std::isnan(out[static_cast<size_t>(i)]), i < format().group) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, RowFormats, testing::ValuesIn(kFormats),
                         [](const auto& named) { return std::string(named.param.name); });

// Every scale with every code: what any checkpoint's rounding can give is kept.
TEST(RowFormat, KeepsEveryFp4GroupOfEveryE4M3Scale) {
  const RowFormat format = {RowCode::kFp4, RowScale::kE4M3, 16, 16, 16};
  constexpr uint64_t kSeed = 42;
  std::mt19937_64 random(kSeed);
  for (int scale = 1; scale < 0x7f; ++scale) {
    for (int largest = 1; largest < 8; ++largest) {
      std::vector<float> values;
      for (int i = 0; i < 16; ++i) {
        const auto most = static_cast<uint64_t>(largest);
        const auto code = static_cast<uint8_t>(i == 0 ? most : random() % (most + 1));
        values.push_back(model::Fp4ToFloat(code) *
                         model::E4M3ToFloat(static_cast<uint8_t>(scale)));
      }
      ASSERT_TRUE(SameBits(Unpack(format, Pack(format, values)), values))
          << "scale " << scale << " code " << largest << " seed " << kSeed;
    }
  }
}

// 448 makes the scale 1: steps of 2 between 16 and 32, of 2^-9 near zero.
TEST(RowFormat, RoundsToTheNearestAndTiesToEven) {
  const RowFormat fp8 = {RowCode::kE4M3, RowScale::kE8M0, 9, 8, 8};
  const std::vector<float> values = {448,      17,       19, -17,      17.001F,
                                     0x1p-10F, 0x3p-10F, 0,  0x1.01p0F};
  EXPECT_EQ(Unpack(fp8, Pack(fp8, values)),
            (std::vector<float>{448, 16, 20, -16, 18, 0, 0x1p-8F, 0, 1}));
  const RowFormat fp4 = {RowCode::kFp4, RowScale::kE8M0, 8, 8, 8};
  EXPECT_EQ(Unpack(fp4, Pack(fp4, {6, 5, 3.5F, 2.5F, -1.75F, 1.25F, 0.75F, 0.25F})),
            (std::vector<float>{6, 4, 4, 2, -2, 1, 1, 0}));
}

TEST(RowFormat, LaysOutCodesScalesAndBf16AsDocumented) {
  // Scale 2 of the first group, 1 of the second.
  const std::vector<float> values = {896, 0, 448, 1, -2, 3};
  const std::vector<std::byte> mla =
      Pack({RowCode::kE4M3, RowScale::kF32, 6, 4, 2}, values);
  const std::vector<uint8_t> expected_mla = {0x7e, 0, 0x7e, 0x38, 0, 0,    0,    0x40,
                                             0,    0, 0x80, 0x3f, 0, 0xc0, 0x40, 0x40};
  ASSERT_EQ(mla.size(), expected_mla.size());
  EXPECT_EQ(std::memcmp(mla.data(), expected_mla.data(), mla.size()), 0);
  const std::vector<std::byte> v4 =
      Pack({RowCode::kE4M3, RowScale::kE8M0, 6, 4, 2}, values);
  const std::vector<uint8_t> expected_v4 = {0x7e, 0,   0x7e, 0x38, 0, 0xc0, 0x40, 0x40,
                                            128,  127, 0,    0,    0, 0,    0,    0};
  ASSERT_EQ(v4.size(), expected_v4.size());
  EXPECT_EQ(std::memcmp(v4.data(), expected_v4.data(), v4.size()), 0);
  const std::vector<std::byte> fp4 =
      Pack({RowCode::kFp4, RowScale::kE4M3, 2, 2, 2}, {3, -6});
  EXPECT_EQ(fp4, (std::vector<std::byte>{std::byte{0xf5}, std::byte{0x38}}));
}

}  // namespace
}  // namespace tessera::kernels
