// Linear at the ends of its formats: damaged weights, and scales beyond what the short
// ways of decoding hold. Everything else: tests/parity.
#include <cmath>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "tests/testing/each_backend.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kOutputs = 6;
constexpr int64_t kInputs = 199;  // two cache lines, two groups of 32 and a rest
constexpr int64_t kBlocks = 7;    // of 32 columns

class LinearEnds : public EachBackend {
 protected:
  // The weights are all ones.
  void SetUp() override {
    EachBackend::SetUp();
    codes_.assign(kOutputs * kInputs, 0x38);
    scales_.assign(kOutputs * kBlocks, 127);
  }
  // Outputs of `rows` rows of ones.
  std::vector<float> Run(int64_t rows) {
    WeightView w;
    w.data = reinterpret_cast<const std::byte*>(codes_.data());
    w.dtype = DType::kF8E4M3;
    w.rows = kOutputs;
    w.cols = kInputs;
    w.row_bytes = kInputs;
    w.scales = reinterpret_cast<const std::byte*>(scales_.data());
    w.scale_dtype = DType::kF8E8M0;
    w.scale_stride = kBlocks;
    w.block_rows = 1;
    w.block_cols = 32;
    std::vector<float> x(static_cast<size_t>(rows * kInputs), 1);
    std::vector<float> out(static_cast<size_t>(rows * kOutputs), -1);
    backend_->Linear(*stream_, Floats(x, {rows, kInputs}), w, KSplit::Whole(),
                     Floats(out, {rows, kOutputs}));
    return out;
  }

  std::vector<uint8_t> codes_;
  std::vector<uint8_t> scales_;
};

TEST_P(LinearEnds, ADamagedWeightIsSeenInItsOutputAlone) {
  for (const int64_t column : {0, 17, 127, 128, 191, 198}) {
    SetUp();
    codes_[static_cast<size_t>(2 * kInputs + column)] = 0xff;
    for (const int64_t rows : {1, 3, 4, 9}) {
      const std::vector<float> out = Run(rows);
      for (size_t i = 0; i < out.size(); ++i) {
        if (i % kOutputs == 2) {
          EXPECT_TRUE(std::isnan(out[i])) << column << " of " << rows << " rows";
        } else {
          EXPECT_EQ(out[i], kInputs);
        }
      }
    }
  }
}

TEST_P(LinearEnds, ADamagedScaleIsSeenInItsOutputAlone) {
  scales_[4 * kBlocks + 2] = 255;
  for (const int64_t rows : {1, 3, 9}) {
    const std::vector<float> out = Run(rows);
    for (size_t i = 0; i < out.size(); ++i) {
      EXPECT_EQ(std::isnan(out[i]), i % kOutputs == 4);
    }
  }
}

TEST_P(LinearEnds, TheLargestAndTheSmallestScaleCount) {
  for (uint8_t& code : codes_) {
    code = 0x08;  // 2^-6
  }
  for (size_t block = 0; block < kBlocks; ++block) {
    scales_[1 * kBlocks + block] = 254;  // 2^127
    scales_[2 * kBlocks + block] = 0;    // 2^-127
  }
  for (const int64_t rows : {1, 3, 9}) {
    const std::vector<float> out = Run(rows);
    for (size_t i = 0; i < out.size(); ++i) {
      const int exponent = i % kOutputs == 1 ? 121 : (i % kOutputs == 2 ? -133 : -6);
      EXPECT_EQ(out[i], std::ldexp(static_cast<float>(kInputs), exponent));
    }
  }
}

// Enough of everything that no blocking fits: rows of x, weight rows and columns.
TEST_P(LinearEnds, ManyRowsTogetherHaveTheBitsOfEachAlone) {
  constexpr int64_t kManyRows = 75;
  constexpr int64_t kManyOutputs = 39;
  constexpr int64_t kManyInputs = 1319;
  constexpr int64_t kManyBlocks = (kManyInputs + 127) / 128;
  std::vector<uint8_t> codes(kManyOutputs * kManyInputs);
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = static_cast<uint8_t>(i * 41 % 251 % 127 + (i % 3 == 0 ? 128 : 0));
  }
  std::vector<float> scales(kManyBlocks);
  for (size_t i = 0; i < scales.size(); ++i) {
    scales[i] = 0.01F + 0.001F * static_cast<float>(i);
  }
  WeightView w;
  w.data = reinterpret_cast<const std::byte*>(codes.data());
  w.dtype = DType::kF8E4M3;
  w.rows = kManyOutputs;
  w.cols = kManyInputs;
  w.row_bytes = kManyInputs;
  w.scales = reinterpret_cast<const std::byte*>(scales.data());
  w.scale_dtype = DType::kF32;
  w.scale_stride = kManyBlocks;
  w.block_rows = 128;
  w.block_cols = 128;
  std::vector<float> x(kManyRows * kManyInputs);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i * 37 % 255) / 128.0F - 1.0F;
  }
  for (const KSplit& split : {KSplit::Whole(), KSplit{kManyInputs, 0, KSplit::kLeaves}}) {
    std::vector<float> together(kManyRows * kManyOutputs, -1);
    backend_->Linear(*stream_, Floats(x, {kManyRows, kManyInputs}), w, split,
                     Floats(together, {kManyRows, kManyOutputs}));
    for (size_t row = 0; row < kManyRows; ++row) {
      std::vector<float> alone(kManyOutputs, -1);
      std::vector<float> x_row(
          x.begin() + static_cast<std::ptrdiff_t>(row * kManyInputs),
          x.begin() + static_cast<std::ptrdiff_t>((row + 1) * kManyInputs));
      backend_->Linear(*stream_, Floats(x_row, {1, kManyInputs}), w, split,
                       Floats(alone, {1, kManyOutputs}));
      EXPECT_EQ(std::memcmp(alone.data(), together.data() + row * kManyOutputs,
                            alone.size() * sizeof(float)),
                0)
          << "row " << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, LinearEnds, EveryLevel(), LevelName);

}  // namespace
}  // namespace tessera::kernels
