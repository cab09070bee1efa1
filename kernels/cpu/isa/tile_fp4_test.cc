// Int8Task by tiles against the scalar table, bit by bit, over the kernels of
// tile_products_test: e2m1 weights as a checkpoint has them.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cpu/isa/cpu_features.h"
#include "kernels/cpu/isa/tile_support.h"
#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/simd/tiles/emulated_tiles.h"
#include "kernels/cpu/simd/tiles/software_tiles.h"
#include "kernels/cpu/simd/tiles/twin_registers.h"

namespace tessera::kernels::cpu {
namespace {

constexpr uint64_t kSeed = 71;

bool Has(CpuIsa isa) {
  const std::vector<CpuIsa> all = CpuIsasOf(ReadCpu());
  return std::find(all.begin(), all.end(), isa) != all.end();
}

struct Kernel {
  std::string name;
  CpuIsa needs;
  const TileOps* ops;
};

class TileFp4 : public testing::TestWithParam<Kernel> {
 protected:
  void SetUp() override {
    ThreadTiles().Reset();
    if (!Has(GetParam().needs)) {
      GTEST_SKIP() << "no " << CpuIsaName(GetParam().needs);
    }
    if (GetParam().ops == &amx::kTileOps && Has(CpuIsa::kAmx)) {
      ASSERT_TRUE(RequestTiles().ok()) << RequestTiles();
    } else {
      emulation_.emplace();
    }
  }
  void TearDown() override {
    EXPECT_EQ(ThreadTiles().fault(), "");
    EXPECT_FALSE(ThreadTiles().configured());
  }

  const TileOps& ops() const { return *GetParam().ops; }

 private:
  std::optional<EmulatedTiles> emulation_;
};

// The machine's own tiles, or its instructions emulated.
INSTANTIATE_TEST_SUITE_P(
    Kernels, TileFp4,
    testing::Values(Kernel{"scalar_twin", CpuIsa::kScalar, &scalar::kTileOps},
                    Kernel{"avx512_twin", CpuIsa::kAvx512Vnni, &avx512vnni::kTileOps},
                    Kernel{"amx", CpuIsa::kAvx512Vnni, &amx::kTileOps}),
    [](const auto& kernel) { return kernel.param.name; });

struct Case {
  int64_t inputs;
  int64_t row_begin;
  int64_t row_end;
  int64_t count;
  int64_t row_offset = 0;  // of the scales
  int64_t col_offset = 0;
};

// A problem in memory of exactly its size.
class Problem {
 public:
  explicit Problem(const Case& size) : size_(size), random_(kSeed) {
    const int64_t blocks = (size.inputs + kInt8BlockValues - 1) / kInt8BlockValues;
    const auto places = static_cast<size_t>(size.count * blocks);
    codes_.resize(places * kInt8BlockValues);
    scales_.resize(places * 16);
    offsets_.resize(places * 16);
    x_ = {codes_.data(), scales_.data(), offsets_.data(), blocks};
    std::normal_distribution<float> normal;
    std::vector<float> row(static_cast<size_t>(size.inputs));
    for (int64_t i = 0; i < size.count; ++i) {
      std::generate(row.begin(), row.end(), [&] { return normal(random_); });
      scalar::kOps.quantize_int8(row.data(), size.inputs, x_, i);
    }
    weights_.resize(static_cast<size_t>(size.row_end * size.inputs / 2));
    std::generate(weights_.begin(), weights_.end(), [&] { return Byte(0, 255); });
    scale_stride_ = (size.col_offset + size.inputs) / 32;
    weight_scales_.resize(
        static_cast<size_t>((size.row_offset + size.row_end) * scale_stride_));
    std::generate(weight_scales_.begin(), weight_scales_.end(),
                  [&] { return Byte(110, 140); });
  }

  std::vector<uint8_t>& weight_scales() { return weight_scales_; }

  // Bits of the outputs and of what lies between rows of them.
  template <typename Run>
  std::vector<uint32_t> RunWith(const Run& run) const {
    constexpr int64_t kBetween = 3;
    const int64_t stride = size_.row_end + kBetween;
    std::vector<float> out(static_cast<size_t>(size_.count * stride), -77.0F);
    std::vector<float> scratch(kLinearScratchFloats);
    run(Int8Task{.weights = {.data = weights_.data(),
                             .row_bytes = size_.inputs / 2,
                             .format = WeightFormat::kFp4,
                             .scale_format = ScaleFormat::kE8M0,
                             .scales = weight_scales_.data(),
                             .scale_stride = scale_stride_,
                             .block_rows = 1,
                             .block_cols = 32,
                             .row_offset = size_.row_offset,
                             .col_offset = size_.col_offset},
                 .row_begin = size_.row_begin,
                 .row_end = size_.row_end,
                 .inputs = size_.inputs,
                 .x = x_,
                 .count = size_.count,
                 .out = out.data(),
                 .out_stride = stride,
                 .scratch = scratch.data()});
    std::vector<uint32_t> bits(out.size());
    std::memcpy(bits.data(), out.data(), out.size() * sizeof(float));
    return bits;
  }

  // `expected_rows` rows are done, with the bits of the scalar table; the others are as
  // they were.
  void Expect(const TileOps& ops, int64_t expected_rows) const {
    int64_t done = -1;
    const auto seen =
        RunWith([&](const Int8Task& task) { done = ops.int8_linear(task); });
    EXPECT_EQ(done, expected_rows);
    const auto expected = RunWith([&](const Int8Task& task) {
      Int8Task part = task;
      part.count = expected_rows;
      if (part.count > 0) {
        scalar::kOps.int8_linear(part);
      }
    });
    EXPECT_EQ(seen, expected) << size_.inputs << " inputs, " << size_.row_begin << " to "
                              << size_.row_end << ", " << size_.count << " rows";
  }

 private:
  uint8_t Byte(int least, int most) {
    return static_cast<uint8_t>(std::uniform_int_distribution<int>(least, most)(random_));
  }

  const Case size_;
  std::mt19937_64 random_;
  std::vector<int8_t> codes_;
  std::vector<float> scales_;
  std::vector<int32_t> offsets_;
  Int8Rows x_ = {};
  std::vector<uint8_t> weights_;
  std::vector<uint8_t> weight_scales_;
  int64_t scale_stride_ = 0;
};

TEST_P(TileFp4, EveryNumberOfRowsHasTheBitsOfTheScalarTable) {
  for (int64_t count = 1; count <= 33; ++count) {
    Problem({96, 0, 40, count}).Expect(ops(), count / 6 * 6);
  }
}

TEST_P(TileFp4, EveryCutOfWeightRowsHasThem) {
  for (int64_t begin = 0; begin <= 20; begin += 5) {
    for (int64_t end = begin + 1; end <= 70; end += 6) {
      Problem({64, begin, end, 18}).Expect(ops(), 18);
    }
  }
}

// Blocks of 16 groups and parts of one, odd and even numbers of them, up to the most.
TEST_P(TileFp4, EveryNumberOfGroupsHasThem) {
  for (int64_t groups = 1; groups <= 50; ++groups) {
    Problem({32 * groups, 3, 24, 12}).Expect(ops(), 12);
  }
  Problem({7168, 0, 33, 12}).Expect(ops(), 12);
}

TEST_P(TileFp4, MoreInputsThanTheScratchHoldsAreLeft) {
  Problem({7200, 0, 8, 12}).Expect(ops(), 0);
}

TEST_P(TileFp4, ScalesOfASliceAreItsOwn) {
  Problem({640, 2, 37, 13, 5, 96}).Expect(ops(), 12);
}

TEST_P(TileFp4, TheSmallestScaleHasThem) {
  Problem problem({512, 0, 32, 12});
  for (size_t i = 0; i < problem.weight_scales().size(); i += 3) {
    problem.weight_scales()[i] = 0;
  }
  problem.Expect(ops(), 12);
}

}  // namespace
}  // namespace tessera::kernels::cpu
