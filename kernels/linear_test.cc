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

// A row alone takes codes as they lie where 64 columns have one scale; several rows take
// a panel of decoded ones.
TEST_P(LinearEnds, ARowAloneAgainstTransposedHeadsHasTheBitsOfItAmongOthers) {
  constexpr int64_t kHeads = 2;
  constexpr int64_t kHeadRows = 150;
  constexpr int64_t kSeen = 140;  // of each head, from row 5 on: three blocks of scales
  constexpr int64_t kColumns = 256;
  constexpr int64_t kScaleRows = 5;
  std::vector<uint8_t> codes(kHeads * kHeadRows * kColumns);
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = static_cast<uint8_t>(i * 41 % 251 % 127 + (i % 3 == 0 ? 128 : 0));
  }
  std::vector<float> x(3 * kHeads * kSeen);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = 0.3F - 0.01F * static_cast<float>(i % 59);
  }
  enum Damage { kNothing, kCode, kScale, kLargeScale };
  for (const Damage damage : {kNothing, kCode, kScale, kLargeScale}) {
    std::vector<float> scales(kScaleRows * 2);
    for (size_t i = 0; i < scales.size(); ++i) {
      scales[i] = 0.01F + 0.003F * static_cast<float>(i);
    }
    std::vector<uint8_t> stored = codes;
    if (damage == kCode) {
      stored[(kHeadRows + 30) * kColumns + 200] = 0xff;
    } else if (damage != kNothing) {
      scales[7] = damage == kScale ? NAN : 0x1p+120F;  // times 2^8 it is infinite
    }
    for (uint8_t& code : stored) {
      if (damage == kLargeScale) {
        code &= 0x9f;  // so small that no sum is infinite
      }
    }
    WeightView w;
    w.data = reinterpret_cast<const std::byte*>(stored.data());
    w.dtype = DType::kF8E4M3;
    w.rows = kHeads * kHeadRows;
    w.cols = kColumns;
    w.row_bytes = kColumns;
    w.scales = reinterpret_cast<const std::byte*>(scales.data());
    w.scale_dtype = DType::kF32;
    w.scale_stride = 2;
    w.block_rows = 64;
    w.block_cols = 128;
    std::vector<float> together(3 * kHeads * kColumns);
    std::vector<float> alone(together.size());
    const TensorView in = Floats(x, {3, kHeads, kSeen});
    backend_->HeadLinearTransposed(*stream_, in, w, kHeadRows, 5,
                                   Floats(together, {3, kHeads, kColumns}));
    const TensorView out = Floats(alone, {3, kHeads, kColumns});
    for (int64_t row = 0; row < 3; ++row) {
      backend_->HeadLinearTransposed(*stream_, in.Rows(row, 1), w, kHeadRows, 5,
                                     out.Rows(row, 1));
    }
    int64_t damaged = 0;
    for (size_t i = 0; i < alone.size(); ++i) {
      ASSERT_EQ(std::isnan(alone[i]), std::isnan(together[i])) << damage << ": " << i;
      damaged += std::isnan(alone[i]) ? 1 : 0;
      if (!std::isnan(alone[i])) {
        ASSERT_EQ(alone[i], together[i]) << damage << ": " << i;
      }
    }
    EXPECT_EQ(damaged, damage == kCode ? 3 : damage == kScale ? 3 * 128 : 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, LinearEnds, EveryLevel(), LevelName);

}  // namespace
}  // namespace tessera::kernels
