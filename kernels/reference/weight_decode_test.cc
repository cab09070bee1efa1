#include "kernels/reference/weight_decode.h"

#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::kernels::reference {
namespace {

using model::DType;

TEST(WeightDecode, E4M3CodesHaveTheirPublishedValues) {
  EXPECT_EQ(DecodeF8E4M3(0x00), 0.0F);
  EXPECT_TRUE(std::signbit(DecodeF8E4M3(0x80)));
  EXPECT_EQ(DecodeF8E4M3(0x01), std::ldexp(1.0F, -9));
  EXPECT_EQ(DecodeF8E4M3(0x08), std::ldexp(1.0F, -6));
  EXPECT_EQ(DecodeF8E4M3(0x38), 1.0F);
  EXPECT_EQ(DecodeF8E4M3(0x7e), 448.0F);
  EXPECT_EQ(DecodeF8E4M3(0xfe), -448.0F);
  EXPECT_TRUE(std::isnan(DecodeF8E4M3(0x7f)));
  EXPECT_TRUE(std::isnan(DecodeF8E4M3(0xff)));
}

TEST(WeightDecode, E8M0IsAPowerOfTwoAndItsLastCodeIsNan) {
  EXPECT_EQ(DecodeF8E8M0(127), 1.0F);
  EXPECT_EQ(DecodeF8E8M0(0), std::ldexp(1.0F, -127));
  EXPECT_EQ(DecodeF8E8M0(254), std::ldexp(1.0F, 127));
  EXPECT_TRUE(std::isnan(DecodeF8E8M0(255)));
}

TEST(WeightDecode, RoundToBf16GoesToTheNearestAndTiesToEven) {
  EXPECT_EQ(RoundToBf16(1.0F), 1.0F);
  EXPECT_EQ(RoundToBf16(1.0F + 0x1p-8F), 1.0F);
  EXPECT_EQ(RoundToBf16(1.0F + 0x3p-8F), 1.0F + 0x1p-6F);
  EXPECT_EQ(RoundToBf16(1.0F + 0x1p-8F + 0x1p-20F), 1.0F + 0x1p-7F);
}

TEST(WeightDecode, Fp4TakesTheLowNibbleFirstAndScalesBlocksOf32) {
  std::vector<uint8_t> row(32, 0);
  row[0] = 0x2f;   // -6, then 1
  row[16] = 0x71;  // 0.5, then 6: the first two of the second block
  const std::array<uint8_t, 2> scales = {128, 126};
  WeightView w;
  w.data = reinterpret_cast<const std::byte*>(row.data());
  w.dtype = DType::kFp4;
  w.rows = 1;
  w.cols = 64;
  w.row_bytes = 32;
  w.scales = reinterpret_cast<const std::byte*>(scales.data());
  w.scale_dtype = DType::kF8E8M0;
  w.scale_stride = 2;
  w.block_rows = 1;
  w.block_cols = 32;
  const std::vector<double> out = DecodeAll<double>(w);
  EXPECT_EQ(out[0], -12.0);
  EXPECT_EQ(out[1], 2.0);
  EXPECT_EQ(out[32], 0.25);
  EXPECT_EQ(out[33], 3.0);
}

TEST(WeightDecode, ASliceKeepsTheScaleGridOfTheWhole) {
  const std::vector<uint8_t> codes(8 * 8, 0x38);  // all ones
  std::array<float, 4> scales = {1, 2, 3, 4};
  WeightView w;
  w.data = reinterpret_cast<const std::byte*>(codes.data());
  w.dtype = DType::kF8E4M3;
  w.rows = 8;
  w.cols = 8;
  w.row_bytes = 8;
  w.scales = reinterpret_cast<const std::byte*>(scales.data());
  w.scale_stride = 2;
  w.block_rows = 5;
  w.block_cols = 5;
  const std::vector<float> out = DecodeAll<float>(w.RowSlice(4, 2).ColSlice(4, 2));
  EXPECT_EQ(out, (std::vector<float>{1, 2, 3, 4}));
}

TEST(WeightDecode, AnE8M0ScaleCoversABlockOfAnySize) {
  const std::vector<uint8_t> codes(40 * 40, 0x38);  // all ones
  const std::array<uint8_t, 4> scales = {127, 128, 126, 0};
  WeightView w;
  w.data = reinterpret_cast<const std::byte*>(codes.data());
  w.dtype = DType::kF8E4M3;
  w.rows = 40;
  w.cols = 40;
  w.row_bytes = 40;
  w.scales = reinterpret_cast<const std::byte*>(scales.data());
  w.scale_dtype = DType::kF8E8M0;
  w.scale_stride = 2;
  w.block_rows = 32;
  w.block_cols = 32;
  const std::vector<float> out = DecodeAll<float>(w.RowSlice(31, 2).ColSlice(31, 2));
  EXPECT_EQ(out, (std::vector<float>{1, 2, 0.5F, 0x1p-127F}));
}

}  // namespace
}  // namespace tessera::kernels::reference
