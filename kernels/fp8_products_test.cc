// Which products numerics fp8-g128 takes in FP8; and that the reference's are what the
// definition says, where numbers are such that nothing is rounded.
#include "kernels/fp8_products.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/reference/reference_ops.h"
#include "model/formats/number_formats.h"

namespace tessera::kernels {
namespace {

// Not read by the decision.
std::array<std::byte, 96 * 1024> memory;

WeightView Fp8(int64_t rows, int64_t cols) {
  WeightView w;
  w.data = memory.data();
  w.dtype = DType::kF8E4M3;
  w.rows = rows;
  w.cols = cols;
  w.row_bytes = cols;
  w.scales = memory.data();
  w.scale_stride = (cols + 127) / 128;
  w.block_rows = 128;
  w.block_cols = 128;
  return w;
}

WeightView Fp4(int64_t rows, int64_t cols) {
  WeightView w = Fp8(rows, cols);
  w.dtype = DType::kFp4;
  w.row_bytes = cols / 2;
  w.scale_dtype = DType::kF8E8M0;
  w.scale_stride = cols / 32;
  w.block_rows = 1;
  w.block_cols = 32;
  return w;
}

TEST(Fp8Products, AreThoseOfFp8BlocksThatTheCopiesCanRead) {
  EXPECT_TRUE(IsFp8Product(Fp8(96, 192), KSplit::Whole()));
  EXPECT_TRUE(IsFp8Product(Fp8(384, 96).RowSlice(48, 48), KSplit::Whole()));
  EXPECT_FALSE(IsFp8Product(Fp8(96, 200), KSplit::Whole()));  // rows of 8 mod 16 bytes
  EXPECT_FALSE(IsFp8Product(Fp8(96, 256).ColSlice(64, 128), KSplit::Whole()));
  EXPECT_FALSE(IsFp8Product(Fp4(96, 192), KSplit::Whole()));
  WeightView w = Fp8(96, 192);
  w.dtype = DType::kBF16;
  EXPECT_FALSE(IsFp8Product(w, KSplit::Whole()));
  w = Fp8(96, 192);
  w.block_rows = 64;
  EXPECT_FALSE(IsFp8Product(w, KSplit::Whole()));
  w = Fp8(96, 192);
  w.scales = nullptr;
  EXPECT_FALSE(IsFp8Product(w, KSplit::Whole()));
}

// What a rank holds of a cut contraction decides nothing: the total does.
TEST(Fp8Products, OfACutContractionHaveLeavesOfWholeGroups) {
  for (const int num_leaves : {8, 4, 2, 1}) {
    const int first = 8 - num_leaves;
    EXPECT_TRUE(IsFp8Product(Fp8(64, 2048 / 8 * num_leaves), {2048, first, num_leaves}));
    EXPECT_FALSE(IsFp8Product(Fp8(64, 1536 / 8 * num_leaves), {1536, first, num_leaves}));
    EXPECT_FALSE(IsFp8Product(Fp8(64, 256 / 8 * num_leaves), {256, first, num_leaves}));
  }
}

TEST(Fp8Products, OfAnExpertAreAllThreeOrNone) {
  const auto expert = [](const WeightView& wide, const WeightView& down) {
    return IsFp8Expert({wide, wide, down});
  };
  EXPECT_TRUE(expert(Fp4(32, 192), Fp4(192, 32)));
  EXPECT_TRUE(expert(Fp8(48, 160), Fp8(160, 48)));
  EXPECT_TRUE(expert(Fp4(48, 160), Fp8(160, 48)));
  EXPECT_FALSE(expert(Fp4(48, 160), Fp4(160, 48)));  // half of a group of 32
  EXPECT_FALSE(expert(Fp8(40, 160), Fp8(160, 40)));
  EXPECT_FALSE(expert(Fp4(32, 32 * 1024), Fp4(32 * 1024, 32)));
  WeightView plain = Fp8(32, 192);
  plain.dtype = DType::kBF16;
  plain.scales = nullptr;
  EXPECT_FALSE(expert(plain, Fp4(192, 32)));
}

// Integers up to 15 are e4m3 codes of any group whose largest they are.
std::vector<float> Integers(int64_t count) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(static_cast<float>(i * 7 % 31 - 15));
  }
  return values;
}

TEST(Fp8Products, OfIntegersAreExact) {
  constexpr int64_t kRows = 2;
  constexpr int64_t kInputs = 1024;
  constexpr int64_t kOutputs = 3;
  std::vector<float> x = Integers(kRows * kInputs);
  const std::vector<float> values = Integers(kOutputs * kInputs);
  std::vector<uint8_t> codes;
  for (const float value : values) {
    codes.push_back(model::FloatToE4M3(value));
  }
  std::vector<float> scales;
  for (int64_t b = 0; b < kInputs / 128; ++b) {
    scales.push_back(std::ldexp(1.0F, static_cast<int>(b % 3)));
  }
  WeightView w = Fp8(kOutputs, kInputs);
  w.data = reinterpret_cast<const std::byte*>(codes.data());
  w.scales = reinterpret_cast<const std::byte*>(scales.data());
  for (const KSplit& split : {KSplit::Whole(), KSplit{1024, 0, 8}}) {
    std::vector<float> out(kRows * kOutputs);
    reference::Fp8Linear(TensorView(x.data(), DType::kF32, {kRows, kInputs}), w, split,
                         TensorView(out.data(), DType::kF32, {kRows, kOutputs}));
    for (int64_t t = 0; t < kRows; ++t) {
      for (int64_t o = 0; o < kOutputs; ++o) {
        float sum = 0;
        for (int64_t i = 0; i < kInputs; ++i) {
          sum += x[static_cast<size_t>(t * kInputs + i)] *
                 values[static_cast<size_t>(o * kInputs + i)] *
                 scales[static_cast<size_t>(i / 128)];
        }
        EXPECT_EQ(out[static_cast<size_t>(t * kOutputs + o)], sum) << t << ", " << o;
      }
    }
  }
}

TEST(Fp8Products, OfFp4AreExactForIntegersAtAnyScale) {
  constexpr int64_t kInputs = 160;
  std::vector<float> x = Integers(kInputs);
  std::vector<uint8_t> pairs;
  for (int64_t i = 0; i < kInputs / 2; ++i) {
    pairs.push_back(static_cast<uint8_t>(i * 37 + 11));
  }
  const std::vector<uint8_t> scales = {127, 125, 131, 124, 128};
  WeightView w = Fp4(1, kInputs);
  w.data = reinterpret_cast<const std::byte*>(pairs.data());
  w.scales = reinterpret_cast<const std::byte*>(scales.data());
  float sum = 0;
  for (size_t i = 0; i < kInputs; ++i) {
    const auto code =
        static_cast<uint8_t>(i % 2 == 0 ? pairs[i / 2] & 15U : pairs[i / 2] >> 4);
    sum += x[i] * std::ldexp(model::Fp4ToFloat(code), scales[i / 32] - 127);
  }
  float out = 0;
  reference::Fp8Linear(TensorView(x.data(), DType::kF32, {1, kInputs}), w,
                       KSplit::Whole(), TensorView(&out, DType::kF32, {1, 1}));
  EXPECT_EQ(out, sum);
  x[130] = std::numeric_limits<float>::infinity();
  reference::Fp8Linear(TensorView(x.data(), DType::kF32, {1, kInputs}), w,
                       KSplit::Whole(), TensorView(&out, DType::kF32, {1, 1}));
  EXPECT_TRUE(std::isnan(out));
}

// Inputs are rounded, a group of 128 by its own largest value.
TEST(Fp8Products, RoundInputsByTheirGroups) {
  constexpr int64_t kInputs = 144;
  std::vector<float> x(kInputs, 0.0F);
  x[0] = 448;
  x[1] = 17;  // between 16 and 18: to the even one
  x[140] = 17;
  x[141] = 1;
  std::vector<uint8_t> codes(kInputs, model::FloatToE4M3(0.0F));
  WeightView w = Fp8(1, kInputs);
  const std::vector<float> scales = {1, 1};
  w.data = reinterpret_cast<const std::byte*>(codes.data());
  w.scales = reinterpret_cast<const std::byte*>(scales.data());
  for (const auto& [input, expected] :
       {std::pair{0, 448.0F}, {1, 16.0F}, {140, 16.0F}, {141, 1.0F}}) {
    codes[static_cast<size_t>(input)] = model::FloatToE4M3(1.0F);
    float out = 0;
    reference::Fp8Linear(TensorView(x.data(), DType::kF32, {1, kInputs}), w,
                         KSplit::Whole(), TensorView(&out, DType::kF32, {1, 1}));
    EXPECT_EQ(out, expected) << input;
    codes[static_cast<size_t>(input)] = model::FloatToE4M3(0.0F);
  }
}

}  // namespace
}  // namespace tessera::kernels
