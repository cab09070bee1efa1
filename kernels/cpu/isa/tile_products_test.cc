// RoundedTask by tiles against the scalar table, bit by bit: the same kernel over tile
// registers in software, with scalar and with AVX-512 vectors; its machine code, with
// tile instructions emulated; and over those of this machine where it has some. And the
// check that the backend makes before it uses them.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
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

bool Has(CpuIsa isa) {
  const std::vector<CpuIsa> all = CpuIsasOf(ReadCpu());
  return std::find(all.begin(), all.end(), isa) != all.end();
}

struct Kernel {
  std::string name;
  CpuIsa needs;
  const TileOps* ops;
  bool emulated = false;
};

class TileProducts : public testing::TestWithParam<Kernel> {
 protected:
  void SetUp() override {
    ThreadTiles().Reset();
    if (GetParam().needs == CpuIsa::kAmx && !Has(CpuIsa::kAmx)) {
      GTEST_SKIP() << "no AMX";
    }
    if (!Has(GetParam().needs)) {
      GTEST_SKIP() << "no " << CpuIsaName(GetParam().needs);
    }
    if (GetParam().needs == CpuIsa::kAmx) {
      ASSERT_TRUE(RequestTiles().ok()) << RequestTiles();
    }
    if (GetParam().emulated) {
      if (Has(CpuIsa::kAmx)) {
        GTEST_SKIP() << "this machine has AMX itself";
      }
      emulation_.emplace();
    }
  }
  // Nothing was refused, and what was taken is given back.
  void TearDown() override {
    EXPECT_EQ(ThreadTiles().fault(), "");
    EXPECT_FALSE(ThreadTiles().configured());
  }

  const TileOps& ops() const { return *GetParam().ops; }

 private:
  std::optional<EmulatedTiles> emulation_;
};

INSTANTIATE_TEST_SUITE_P(
    Kernels, TileProducts,
    testing::Values(Kernel{"scalar_twin", CpuIsa::kScalar, &scalar::kTileOps},
                    Kernel{"avx512_twin", CpuIsa::kAvx512Vnni, &avx512vnni::kTileOps},
                    Kernel{"amx_emulated", CpuIsa::kAvx512Vnni, &amx::kTileOps, true},
                    Kernel{"amx", CpuIsa::kAmx, &amx::kTileOps}),
    [](const auto& kernel) { return kernel.param.name; });

LeafGroups LeavesOf(const std::vector<int64_t>& lengths) {
  LeafGroups leaves = {};
  for (const int64_t length : lengths) {
    const auto leaf = static_cast<size_t>(leaves.count);
    leaves.input[leaf + 1] = leaves.input[leaf] + length;
    leaves.begin[leaf + 1] =
        leaves.begin[leaf] + (length + kRoundedGroup - 1) / kRoundedGroup;
    ++leaves.count;
  }
  return leaves;
}

struct Case {
  std::vector<int64_t> leaves;  // inputs of each
  int64_t row_begin;            // weight rows
  int64_t row_end;
  int64_t first;  // row of x, a multiple of a block
  int64_t count;
};

// A problem in memory of exactly its size.
class Problem {
 public:
  Problem(const Case& size, uint64_t seed)
      : size_(size), leaves_(LeavesOf(size.leaves)), random_(seed) {
    const int64_t groups = leaves_.begin[leaves_.count];
    const int64_t blocks =
        (size.first + size.count + kRoundedBlockRows - 1) / kRoundedBlockRows;
    const auto places = static_cast<size_t>(blocks * kRoundedBlockRows * groups);
    x_codes_.resize(places * kRoundedGroup);
    scales_.resize(places);
    offsets_.resize(places);
    x_ = {x_codes_.data(), scales_.data(), offsets_.data()};
    std::normal_distribution<float> normal;
    std::vector<float> row(static_cast<size_t>(leaves_.input[leaves_.count]));
    for (int64_t i = 0; i < size.first + size.count; ++i) {
      std::generate(row.begin(), row.end(), [&] { return normal(random_); });
      scalar::kOps.round_row(row.data(), leaves_, x_, i);
    }
    const auto tiles = static_cast<size_t>((size.row_end + 15) / 16 * groups);
    codes_.resize(tiles * kRoundedGroupBytes);
    std::generate(codes_.begin(), codes_.end(), [&] { return Byte(1, 255); });
    steps_.resize(tiles * 16);
    std::generate(steps_.begin(), steps_.end(), [&] { return Byte(90, 160); });
  }

  std::vector<int8_t>& x_codes() { return x_codes_; }
  std::vector<float>& scales() { return scales_; }
  std::vector<int32_t>& offsets() { return offsets_; }
  std::vector<uint8_t>& codes() { return codes_; }
  std::vector<uint8_t>& steps() { return steps_; }

  // Bits of the outputs, and of what lies between two rows of them.
  std::vector<uint32_t> Run(void (*rounded_linear)(const RoundedTask&)) const {
    constexpr int64_t kBetween = 3;
    const int64_t stride = size_.row_end - size_.row_begin + kBetween;
    std::vector<float> out(static_cast<size_t>(size_.count * stride), -77.0F);
    rounded_linear({.codes = codes_.data(),
                    .steps = steps_.data(),
                    .leaves = leaves_,
                    .row_begin = size_.row_begin,
                    .row_end = size_.row_end,
                    .x = x_,
                    .x_row = size_.first,
                    .count = size_.count,
                    .out = out.data(),
                    .out_stride = stride});
    std::vector<uint32_t> bits(out.size());
    std::memcpy(bits.data(), out.data(), out.size() * sizeof(float));
    return bits;
  }

 private:
  uint8_t Byte(int least, int most) {
    return static_cast<uint8_t>(std::uniform_int_distribution<int>(least, most)(random_));
  }

  const Case size_;
  const LeafGroups leaves_;
  std::mt19937_64 random_;
  std::vector<int8_t> x_codes_;
  std::vector<float> scales_;
  std::vector<int32_t> offsets_;
  RoundedRows x_ = {};
  std::vector<uint8_t> codes_;
  std::vector<uint8_t> steps_;
};

constexpr uint64_t kSeed = 31;

TEST_P(TileProducts, EveryNumberOfRowsHasTheBitsOfTheScalarTable) {
  for (int64_t count = 1; count <= 33; ++count) {
    const Problem problem({{150}, 0, 48, 0, count}, kSeed);
    EXPECT_EQ(problem.Run(ops().rounded_linear), problem.Run(scalar::kOps.rounded_linear))
        << count;
  }
}

TEST_P(TileProducts, EveryCutOfWeightRowsHasThem) {
  for (int64_t begin = 0; begin <= 17; begin += 3) {
    for (int64_t end = begin + 1; end <= 70; end += 5) {
      const Problem problem({{96}, begin, end, 0, 19}, kSeed);
      EXPECT_EQ(problem.Run(ops().rounded_linear),
                problem.Run(scalar::kOps.rounded_linear))
          << begin << " to " << end;
    }
  }
}

// One group to nine, the last one cut short; leaves of one group, of none, and of odd and
// even numbers of them; rows of x that begin a later block.
TEST_P(TileProducts, EveryCutOfTheContractionHasThem) {
  for (int64_t inputs = 1; inputs <= 288; inputs += 41) {
    const Problem problem({{inputs}, 0, 32, 12, 18}, kSeed);
    EXPECT_EQ(problem.Run(ops().rounded_linear), problem.Run(scalar::kOps.rounded_linear))
        << inputs;
  }
  const std::vector<std::vector<int64_t>> cuts = {
      {64, 33}, {5, 0, 70, 32}, {0, 1, 1, 1, 1, 1, 1, 100}, {45, 45, 45, 45}};
  for (const std::vector<int64_t>& leaves : cuts) {
    const Problem problem({leaves, 3, 61, 24, 31}, kSeed);
    EXPECT_EQ(problem.Run(ops().rounded_linear), problem.Run(scalar::kOps.rounded_linear))
        << leaves.size() << " leaves";
  }
}

// More rows than one pass takes.
TEST_P(TileProducts, PassesOverRowsHaveThem) {
  const Problem problem({{32768}, 0, 20, 0, 50}, kSeed);
  EXPECT_EQ(problem.Run(ops().rounded_linear), problem.Run(scalar::kOps.rounded_linear));
}

// Blocks of 12 rows and then half a one; fewer rows and other weight rows cost nothing.
TEST_P(TileProducts, EachBlockIsMultipliedOnce) {
  if (GetParam().needs == CpuIsa::kAmx) {
    GTEST_SKIP() << "products of a processor are not counted";
  }
  constexpr int64_t kGroups = 5;
  struct Count {
    int64_t rows;
    int64_t blocks;
  };
  for (const Count& count : {Count{5, 0}, Count{6, 1}, Count{11, 1}, Count{12, 1},
                             Count{17, 1}, Count{18, 2}, Count{41, 3}, Count{42, 4}}) {
    ThreadTiles().Reset();
    Problem({{150}, 20, 70, 0, count.rows}, kSeed).Run(ops().rounded_linear);
    EXPECT_EQ(ThreadTiles().products(), count.blocks * 4 * kGroups) << count.rows;
  }
}

TEST_P(TileProducts, TheLargestCodesHaveThem) {
  Problem problem({{128}, 0, 32, 0, 12}, kSeed);
  for (size_t i = 0; i < problem.x_codes().size(); ++i) {
    problem.x_codes()[i] = i / kRoundedGroup % 2 == 0 ? 127 : -127;
  }
  for (size_t i = 0; i < problem.offsets().size(); ++i) {
    problem.offsets()[i] = -128 * 32 * problem.x_codes()[i * kRoundedGroup];
  }
  for (size_t i = 0; i < problem.codes().size(); ++i) {
    problem.codes()[i] = i / 64 % 2 == 0 ? 255 : 1;
  }
  EXPECT_EQ(problem.Run(ops().rounded_linear), problem.Run(scalar::kOps.rounded_linear));
}

TEST_P(TileProducts, WhatIsNotFiniteStaysInItsRowAndOutput) {
  Problem problem({{128}, 0, 32, 0, 12}, kSeed);
  problem.steps()[7] = 255;
  std::fill_n(problem.scales().begin() + 3, 1, std::numeric_limits<float>::quiet_NaN());
  const std::vector<uint32_t> bits = problem.Run(ops().rounded_linear);
  const std::vector<uint32_t> scalar = problem.Run(scalar::kOps.rounded_linear);
  constexpr size_t kStride = 35;
  for (size_t i = 0; i < bits.size(); ++i) {
    if (i / kStride != 3) {  // of a NaN the bits are free
      EXPECT_EQ(bits[i], scalar[i]) << i;
    }
  }
}

TEST_P(TileProducts, MultiplyCountsWholeTiles) {
  EXPECT_EQ(ops().multiply(3), 3 * 4 * 16 * 16 * 64);
}

TEST_P(TileProducts, TheCheckOfTheBackendAgrees) {
  EXPECT_TRUE(CheckTiles(ops()).ok()) << CheckTiles(ops());
}

// One output of a kernel that is one unit in the last place off, or a part of the problem
// left out.
TEST(TileSupport, TheCheckSeesWhatIsWrong) {
  const TileOps first = {.rounded_linear =
                             [](const RoundedTask& task) {
                               scalar::kOps.rounded_linear(task);
                               uint32_t bits;
                               std::memcpy(&bits, task.out, sizeof(bits));
                               bits ^= 1;
                               std::memcpy(task.out, &bits, sizeof(bits));
                             },
                         .int8_linear = nullptr,
                         .multiply = nullptr};
  const TileOps last = {.rounded_linear =
                            [](const RoundedTask& task) {
                              scalar::kOps.rounded_linear(task);
                              task.out[task.count * task.out_stride - 1] += 1;
                            },
                        .int8_linear = nullptr,
                        .multiply = nullptr};
  const TileOps none = {.rounded_linear = [](const RoundedTask&) {},
                        .int8_linear = nullptr,
                        .multiply = nullptr};
  // Not the rows after the last half block, nor a tile of its own, nor a second leaf.
  const TileOps rest = {.rounded_linear =
                            [](const RoundedTask& task) {
                              RoundedTask whole = task;
                              whole.count = task.count / 6 * 6;
                              scalar::kOps.rounded_linear(whole);
                            },
                        .int8_linear = nullptr,
                        .multiply = nullptr};
  const TileOps pairs = {.rounded_linear =
                             [](const RoundedTask& task) {
                               RoundedTask whole = task;
                               whole.row_end = task.row_end / 32 * 32;
                               scalar::kOps.rounded_linear(whole);
                             },
                         .int8_linear = nullptr,
                         .multiply = nullptr};
  const TileOps leaf = {.rounded_linear =
                            [](const RoundedTask& task) {
                              RoundedTask one = task;
                              one.leaves.count = 1;
                              scalar::kOps.rounded_linear(one);
                            },
                        .int8_linear = nullptr,
                        .multiply = nullptr};
  for (const TileOps* wrong : {&first, &last, &none, &rest, &pairs, &leaf}) {
    EXPECT_EQ(CheckTiles(*wrong).code(), absl::StatusCode::kInternal);
  }
}

TEST(TileSupport, TheCheckSeesWhatIsWrongWithPackedWeights) {
  const TileOps rows = {.rounded_linear = scalar::kOps.rounded_linear,
                        .int8_linear = [](const Int8Task&) { return int64_t{0}; },
                        .multiply = nullptr};
  const TileOps none = {.rounded_linear = scalar::kOps.rounded_linear,
                        .int8_linear = [](const Int8Task&) { return int64_t{18}; },
                        .multiply = nullptr};
  const TileOps last = {.rounded_linear = scalar::kOps.rounded_linear,
                        .int8_linear =
                            [](const Int8Task& task) {
                              scalar::kOps.int8_linear(task);
                              task.out[18 * task.out_stride - 1] *= 1.0000002F;
                              return int64_t{18};
                            },
                        .multiply = nullptr};
  for (const TileOps* wrong : {&rows, &none, &last}) {
    EXPECT_EQ(CheckTiles(*wrong).code(), absl::StatusCode::kInternal);
  }
}

TEST(TileSupport, AMachineWithoutTilesRefusesThem) {
  if (Has(CpuIsa::kAmx)) {
    GTEST_SKIP() << "this machine has AMX";
  }
  EXPECT_EQ(RequestTiles().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(TileSupport, TilesOfThisMachineAreReady) {
  if (!Has(CpuIsa::kAmx)) {
    GTEST_SKIP() << "no AMX";
  }
  EXPECT_TRUE(PrepareTiles().ok()) << PrepareTiles();
}

}  // namespace
}  // namespace tessera::kernels::cpu
