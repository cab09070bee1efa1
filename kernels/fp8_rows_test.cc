// Rows of Fp8RowFormat in place of float32 ones: experts give the same bits for rows of
// any values; why they take codes and scales and not their products; and what bytes that
// no row was rounded to do.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/fp8_products.h"
#include "kernels/reference/reference_ops.h"
#include "model/formats/number_formats.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kInputs = 272;  // two groups and a short one
constexpr int64_t kWidth = 48;
constexpr uint32_t kSeed = 20261128;
constexpr float kMax = std::numeric_limits<float>::max();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

using Row = std::vector<float>;

// An expert, and what its views name. Scales of weights are multiples of `unit`.
class Expert {
 public:
  explicit Expert(float unit = 0x1p-9F)
      : codes_(static_cast<size_t>(3 * kInputs * kWidth)), scales_(16) {
    std::mt19937 random(kSeed);
    for (std::byte& code : codes_) {
      code = static_cast<std::byte>(random() & 0xbeU);  // no NaN
    }
    for (size_t i = 0; i < scales_.size(); ++i) {
      scales_[i] = unit * static_cast<float>(1 + i);
    }
    weights_ = {View(0, kWidth, kInputs), View(1, kWidth, kInputs),
                View(2, kInputs, kWidth)};
  }

  // Of one item for each row of x.
  std::vector<float> Run(const TensorView& x) {
    std::vector<int32_t> rows;
    for (int32_t row = 0; row < x.dim(0); ++row) {
      rows.push_back(row);
    }
    std::array<int32_t, 2> offsets = {0, static_cast<int32_t>(x.dim(0))};
    std::vector<float> out(static_cast<size_t>(x.dim(0) * kInputs));
    reference::Fp8GroupedExperts(
        {.x = x,
         .row_of_item = TensorView(rows.data(), DType::kI32, {x.dim(0)}),
         .item_offsets = TensorView(offsets.data(), DType::kI32, {2}),
         .experts = std::span(&weights_, 1),
         .out = TensorView(out.data(), DType::kF32, {x.dim(0), kInputs})});
    return out;
  }

 private:
  WeightView View(int64_t part, int64_t rows, int64_t cols) {
    WeightView w;
    w.data = codes_.data() + part * kInputs * kWidth;
    w.dtype = DType::kF8E4M3;
    w.rows = rows;
    w.cols = cols;
    w.row_bytes = cols;
    w.scales = reinterpret_cast<const std::byte*>(scales_.data() + 5 * part);
    w.scale_stride = (cols + kFp8Group - 1) / kFp8Group;
    w.block_rows = kFp8Group;
    w.block_cols = kFp8Group;
    return w;
  }

  std::vector<std::byte> codes_;
  std::vector<float> scales_;
  ExpertWeights weights_;
};

TensorView ViewOf(std::vector<float>& values) {
  return TensorView(values.data(), DType::kF32,
                    {static_cast<int64_t>(values.size()) / kInputs, kInputs});
}

std::vector<uint8_t> Packed(std::span<const float> values) {
  const RowFormat format = Fp8RowFormat(kInputs);
  const auto row_bytes = static_cast<size_t>(format.packed_bytes());
  std::vector<uint8_t> bytes(values.size() / kInputs * row_bytes);
  for (size_t row = 0; row < values.size() / kInputs; ++row) {
    PackRow(format, values.data() + row * kInputs,
            reinterpret_cast<std::byte*>(bytes.data() + row * row_bytes));
  }
  return bytes;
}

TensorView ViewOf(std::vector<uint8_t>& bytes) {
  const int64_t row_bytes = Fp8RowFormat(kInputs).packed_bytes();
  return TensorView(bytes.data(), DType::kU8,
                    {static_cast<int64_t>(bytes.size()) / row_bytes, row_bytes});
}

float ScaleOf(const std::vector<uint8_t>& packed, int64_t group) {
  float scale = 0;
  std::memcpy(&scale, packed.data() + Fp8RowFormat(kInputs).scales_begin() + 4 * group,
              sizeof(scale));
  return scale;
}

// Of every magnitude, group by group, and those at which formats and scales end.
Row RowsOfManyKinds() {
  std::mt19937 random(kSeed + 1);
  std::uniform_real_distribution<float> value(-1, 1);
  Row rows;
  for (int exponent = -149; exponent < 128; exponent += 3) {
    for (int64_t i = 0; i < kInputs; ++i) {
      rows.push_back(std::ldexp(value(random), exponent + static_cast<int>(i % 4)));
    }
  }
  const float kinds[] = {0.0F,
                         -0.0F,
                         kDenormal,
                         -kDenormal,
                         std::numeric_limits<float>::min(),
                         1e-4F,
                         std::nextafter(1e-4F, 1.0F),
                         448.0F,
                         std::nextafter(448.0F, 500.0F),
                         224.5F,
                         248 * 0x1p120F,
                         kMax,
                         -kMax,
                         std::numeric_limits<float>::infinity(),
                         std::numeric_limits<float>::quiet_NaN()};
  for (const float kind : kinds) {
    Row row(kInputs, kind);
    rows.insert(rows.end(), row.begin(), row.end());
    std::generate(row.begin(), row.end(), [&] { return value(random) * 0x1p-16F; });
    row[200] = kind;  // the groups beside it are none of its business
    rows.insert(rows.end(), row.begin(), row.end());
  }
  return rows;
}

TEST(Fp8Rows, AreCodesAndAScaleForEach128) {
  EXPECT_EQ(Fp8RowFormat(4096).packed_bytes(), 4096 + 4 * 32);
  EXPECT_EQ(Fp8RowFormat(kInputs).packed_bytes(), kInputs + 4 * 3);
  Row row(kInputs, 1.0F);
  row[130] = -448.0F;
  row[271] = 1e-4F;
  const std::vector<uint8_t> packed = Packed(row);
  EXPECT_EQ(packed[0], model::FloatToE4M3(256.0F));
  EXPECT_EQ(ScaleOf(packed, 0), 0x1p-8F);
  EXPECT_EQ(packed[130], model::FloatToE4M3(-448.0F));
  EXPECT_EQ(ScaleOf(packed, 1), 1.0F);
  EXPECT_EQ(ScaleOf(packed, 2), 0x1p-8F);
}

TEST(Fp8Rows, GiveTheBitsOfTheRowsThatTheyWereRoundedFrom) {
  Row rows = RowsOfManyKinds();
  std::vector<uint8_t> packed = Packed(rows);
  // With weights about 1, and with ones that the largest floats are finite with.
  for (const float unit : {0x1p-9F, 0x1p-118F}) {
    Expert expert(unit);
    const std::vector<float> expected = expert.Run(ViewOf(rows));
    const std::vector<float> out = expert.Run(ViewOf(packed));
    int64_t finite = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(std::memcmp(&out[i], &expected[i], sizeof(float)), 0)
          << "row " << i / kInputs << ": " << out[i] << ", " << expected[i];
      finite += std::isfinite(expected[i]) ? 1 : 0;
    }
    EXPECT_GT(finite, static_cast<int64_t>(expected.size()) / 2);
  }
}

// Why codes and scales stay apart until the product.
TEST(Fp8Rows, TimesTheirScalesAreRoundedToOtherOnesOrOverflow) {
  const RowFormat format = Fp8RowFormat(kInputs);
  Row row(kInputs, 1.0F);
  row[7] = 224.5F;  // the scale is 1; but that of 224, to which it is rounded, is 1/2
  const std::vector<uint8_t> packed = Packed(row);
  UnpackRow(format, reinterpret_cast<const std::byte*>(packed.data()), row.data());
  EXPECT_EQ(row[7], 224.0F);
  const std::vector<uint8_t> twice = Packed(row);
  EXPECT_EQ(ScaleOf(packed, 0), 1.0F);
  EXPECT_EQ(ScaleOf(twice, 0), 0.5F);
  EXPECT_NE(packed[7], twice[7]);

  row.assign(kInputs, 248 * 0x1p120F);  // finite, with a code of 256 and a scale of 2^120
  const std::vector<uint8_t> large = Packed(row);
  EXPECT_EQ(model::E4M3ToFloat(large[0]), 256.0F);
  EXPECT_EQ(ScaleOf(large, 0), 0x1p120F);
  UnpackRow(format, reinterpret_cast<const std::byte*>(large.data()), row.data());
  EXPECT_TRUE(std::isinf(row[0]));
}

// A row of another rank may hold anything: codes of NaN, scales that no rounding makes.
// Its own items are then what the arithmetic says, and no others.
TEST(Fp8Rows, OfAnyBytesChangeNoOtherRow) {
  const RowFormat format = Fp8RowFormat(kInputs);
  const auto row_bytes = static_cast<size_t>(format.packed_bytes());
  Row rows(static_cast<size_t>(3 * kInputs));
  std::mt19937 random(kSeed + 2);
  for (float& value : rows) {
    value = std::uniform_real_distribution<float>(-3, 3)(random);
  }
  std::vector<uint8_t> packed = Packed(rows);
  Expert expert;
  const std::vector<float> good = expert.Run(ViewOf(packed));
  for (const float scale :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -1.0F, 0.0F, -0.0F, kDenormal, kMax, 0.3F}) {
    SCOPED_TRACE(scale);
    for (size_t i = 0; i < static_cast<size_t>(kInputs); ++i) {
      packed[row_bytes + i] = static_cast<uint8_t>(i);  // every code there is
    }
    for (int64_t group = 0; group < format.num_groups(); ++group) {
      std::memcpy(packed.data() + row_bytes +
                      static_cast<size_t>(format.scales_begin() + 4 * group),
                  &scale, sizeof(scale));
    }
    const std::vector<float> out = expert.Run(ViewOf(packed));
    const size_t width = static_cast<size_t>(kInputs) * sizeof(float);
    EXPECT_EQ(std::memcmp(out.data(), good.data(), width), 0);
    EXPECT_EQ(std::memcmp(out.data() + 2 * kInputs, good.data() + 2 * kInputs, width), 0);
    EXPECT_TRUE(std::isnan(out[kInputs]));  // it has codes of NaN
  }
}

TEST(Fp8Numerics, AreTheLastPartOfAnId) {
  EXPECT_TRUE(IsFp8Numerics("cuda/fp8-g128"));
  EXPECT_TRUE(IsFp8Numerics("reference/fp8-g128"));
  EXPECT_FALSE(IsFp8Numerics("cuda/f32"));
  EXPECT_FALSE(IsFp8Numerics("cpu/int8-g32"));
}

}  // namespace
}  // namespace tessera::kernels
