// Linear and HeadLinear of numerics w8a8-g32: what is computed, stated in plain loops and
// met bit by bit; and that instruction sets, batches, threads, slices and the cut of a
// contraction do not change a bit of it.
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kGroup = 32;
constexpr std::string_view kIsas[] = {"scalar", "avx2", "avx512", "avx512vnni", "amx"};

BackendOptions Rounded(std::string_view isa, int threads = 1) {
  return {.name = "cpu",
          .cpu_isa = isa,
          .numerics = "w8a8-g32",
          .num_threads = threads,
          .work_per_thread = threads > 1 ? 1 : BackendOptions().work_per_thread};
}

// Weights in float32, so that what they are is what they say.
struct Matrix {
  int64_t rows;
  int64_t cols;
  std::vector<float> values;

  WeightView View() const {
    WeightView view;
    view.data = reinterpret_cast<const std::byte*>(values.data());
    view.dtype = DType::kF32;
    view.rows = rows;
    view.cols = cols;
    view.row_bytes = cols * 4;
    return view;
  }
};

std::vector<float> Normal(int64_t count, std::mt19937_64* random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    value = normal(*random);
  }
  return values;
}

Matrix RandomMatrix(int64_t rows, int64_t cols, std::mt19937_64* random) {
  Matrix matrix = {rows, cols, Normal(rows * cols, random)};
  for (size_t i = 0; i < matrix.values.size(); i += 7) {  // of many sizes
    matrix.values[i] = std::ldexp(matrix.values[i], static_cast<int>(i % 40) - 30);
  }
  return matrix;
}

float LargestOf(const float* values, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::abs(values[i]));
  }
  return largest;
}

// The step of a group of weights, by trying: 2^e.
float WeightStep(const float* w, int64_t n) {
  const float largest = LargestOf(w, n);
  int power = -126;
  while (std::nearbyint(std::ldexp(static_cast<double>(largest), -power)) > 127) {
    ++power;
  }
  return std::ldexp(1.0F, power);
}

// One leaf by the definition.
float LeafSum(const float* x, const float* w, int64_t n) {
  float sum = 0;
  for (int64_t begin = 0; begin < n; begin += kGroup) {
    const int64_t count = std::min(kGroup, n - begin);
    const float step = WeightStep(w + begin, count);
    const float largest = LargestOf(x + begin, count);
    const bool zero = largest < 0x1p-100F;
    const float inverse = zero ? 0.0F : 127.0F / largest;
    int32_t dot = 0;
    for (int64_t i = begin; i < begin + count; ++i) {
      dot += static_cast<int32_t>(std::nearbyint(w[i] / step)) *
             static_cast<int32_t>(std::nearbyint(x[i] * inverse));
    }
    const float scale = zero ? 0.0F : largest / 127.0F;
    sum = std::fma(static_cast<float>(dot), step * scale, sum);
  }
  return sum;
}

float SplitSum(const float* x, const float* w, int64_t n, const KSplit& split) {
  if (split.num_leaves == 0) {
    return LeafSum(x, w, n);
  }
  std::array<float, KSplit::kLeaves> sums = {};
  const int64_t origin = KSplit::LeafBegin(split.total, split.first_leaf);
  for (int leaf = 0; leaf < split.num_leaves; ++leaf) {
    const int64_t from = KSplit::LeafBegin(split.total, split.first_leaf + leaf) - origin;
    const int64_t to =
        KSplit::LeafBegin(split.total, split.first_leaf + leaf + 1) - origin;
    sums[static_cast<size_t>(leaf)] = LeafSum(x + from, w + from, to - from);
  }
  for (size_t distance = 1; distance < static_cast<size_t>(split.num_leaves);
       distance *= 2) {
    for (size_t leaf = 0; leaf + distance < static_cast<size_t>(split.num_leaves);
         leaf += 2 * distance) {
      sums[leaf] += sums[leaf + distance];
    }
  }
  return sums[0];
}

std::vector<float> Expected(const std::vector<float>& x, const Matrix& w,
                            const KSplit& split) {
  std::vector<float> out;
  const auto rows = static_cast<int64_t>(x.size()) / w.cols;
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t o = 0; o < w.rows; ++o) {
      out.push_back(
          SplitSum(x.data() + t * w.cols, w.values.data() + o * w.cols, w.cols, split));
    }
  }
  return out;
}

std::vector<float> RunLinear(const BackendOptions& options, const WeightView& w,
                             std::vector<float> x, const KSplit& split) {
  const auto backend = CreateBackend(options);
  EXPECT_TRUE(backend.ok()) << backend.status();
  const auto stream = (*backend)->CreateStream();
  DeviceBuffer memory;
  const auto prepared = (*backend)->Prepare(w, split, &memory);
  EXPECT_TRUE(prepared.ok()) << prepared.status();
  const auto rows = static_cast<int64_t>(x.size()) / w.cols;
  std::vector<float> out(static_cast<size_t>(rows * w.rows), -1);
  (*backend)->Linear(**stream, TensorView(x.data(), DType::kF32, {rows, w.cols}),
                     *prepared, split,
                     TensorView(out.data(), DType::kF32, {rows, w.rows}));
  return out;
}

struct Case {
  int64_t inputs;
  int64_t outputs;
  int64_t rows;
  KSplit split;
};

// Whole tiles and parts of them; groups that end early; leaves of less than a group, and
// of none; one row, and more than registers hold together; a rank's part of the leaves;
// one row with as many groups as are taken out of its block, and with more.
const Case kCases[] = {{512, 64, 1, KSplit::Whole()},  {96, 33, 3, KSplit::Whole()},
                       {45, 5, 7, KSplit::Whole()},    {1, 1, 2, KSplit::Whole()},
                       {2048, 40, 23, {2048, 0, 8}},   {360, 17, 14, {720, 0, 4}},
                       {100, 48, 4, {100, 0, 8}},      {5, 16, 2, {5, 0, 8}},
                       {64, 20, 5, {512, 3, 1}},       {16384, 17, 1, KSplit::Whole()},
                       {16390, 17, 1, KSplit::Whole()}};

TEST(RoundedLinear, HasTheBitsOfItsDefinitionOnEveryInstructionSet) {
  constexpr uint64_t kSeed = 1;
  std::mt19937_64 random(kSeed);
  for (const Case& size : kCases) {
    const Matrix w = RandomMatrix(size.outputs, size.inputs, &random);
    std::vector<float> x = Normal(size.rows * size.inputs, &random);
    std::fill_n(x.begin(), std::min(kGroup, size.inputs), 0.0F);  // without a scale
    const std::vector<float> expected = Expected(x, w, size.split);
    for (const std::string_view isa : kIsas) {
      if (!CreateBackend(Rounded(isa)).ok()) {
        continue;  // not on this machine
      }
      EXPECT_EQ(RunLinear(Rounded(isa), w.View(), x, size.split), expected)
          << isa << ", " << size.inputs << " inputs";
      EXPECT_EQ(RunLinear(Rounded(isa, 3), w.View(), x, size.split), expected) << isa;
    }
  }
}

TEST(RoundedLinear, RowsAloneHaveTheBitsOfRowsTogether) {
  constexpr uint64_t kSeed = 2;
  std::mt19937_64 random(kSeed);
  for (const Case& size : kCases) {
    const Matrix w = RandomMatrix(size.outputs, size.inputs, &random);
    const std::vector<float> x = Normal(size.rows * size.inputs, &random);
    const std::vector<float> expected =
        RunLinear(Rounded("auto"), w.View(), x, size.split);
    for (int64_t row = 0; row < size.rows; ++row) {
      const auto begin = x.begin() + row * size.inputs;
      const std::vector<float> alone =
          RunLinear(Rounded("auto"), w.View(), {begin, begin + size.inputs}, size.split);
      EXPECT_TRUE(
          std::equal(alone.begin(), alone.end(), expected.begin() + row * size.outputs));
    }
  }
}

// More rows than the room for rounded inputs holds.
TEST(RoundedLinear, ManyWideRowsPassInParts) {
  constexpr uint64_t kSeed = 3;
  constexpr int64_t kInputs = 60000;
  constexpr int64_t kRows = 61;
  std::mt19937_64 random(kSeed);
  const Matrix w = RandomMatrix(3, kInputs, &random);
  const std::vector<float> x = Normal(kRows * kInputs, &random);
  EXPECT_EQ(RunLinear(Rounded("auto", 2), w.View(), x, KSplit::Whole()),
            Expected(x, w, KSplit::Whole()));
}

// The leaves of ranks, added as a tree, are those of one rank.
TEST(RoundedLinear, PartsOfACutContractionAreSubtrees) {
  constexpr uint64_t kSeed = 4;
  constexpr int64_t kInputs = 8 * 45;
  std::mt19937_64 random(kSeed);
  const Matrix w = RandomMatrix(9, kInputs, &random);
  const std::vector<float> x = Normal(kInputs, &random);
  const std::vector<float> whole =
      RunLinear(Rounded("auto"), w.View(), x, {kInputs, 0, 8});
  std::vector<std::vector<float>> halves;
  for (const int half : {0, 1}) {
    const int64_t begin = half * kInputs / 2;
    const KSplit split = {kInputs, half * 4, 4};
    halves.push_back(RunLinear(Rounded("auto"), w.View().ColSlice(begin, kInputs / 2),
                               {x.begin() + begin, x.begin() + begin + kInputs / 2},
                               split));
  }
  for (size_t o = 0; o < whole.size(); ++o) {
    EXPECT_EQ(halves[0][o] + halves[1][o], whole[o]);
  }
}

TEST(RoundedLinear, ASliceIsPreparedAsItIs) {
  constexpr uint64_t kSeed = 8;
  constexpr int64_t kInputs = 70;
  std::mt19937_64 random(kSeed);
  const Matrix w = RandomMatrix(41, kInputs, &random);
  const std::vector<float> x = Normal(3 * kInputs, &random);
  const Matrix rows = {
      19, kInputs, {w.values.begin() + 21 * kInputs, w.values.begin() + 40 * kInputs}};
  EXPECT_EQ(RunLinear(Rounded("auto"), w.View().RowSlice(21, 19), x, KSplit::Whole()),
            Expected(x, rows, KSplit::Whole()));
}

TEST(RoundedLinear, RowsOfHeadsMeetTheirHead) {
  constexpr uint64_t kSeed = 5;
  constexpr int64_t kHeads = 3;
  constexpr int64_t kHeadRows = 37;  // heads begin inside of tiles
  constexpr int64_t kBegin = 5;
  constexpr int64_t kRows = 27;
  constexpr int64_t kInputs = 80;
  constexpr int64_t kTokens = 8;
  std::mt19937_64 random(kSeed);
  const Matrix w = RandomMatrix(4 + kHeads * kHeadRows, kInputs, &random);
  std::vector<float> x = Normal(kTokens * kHeads * kInputs, &random);
  for (const int threads : {1, 3}) {
    const auto backend = CreateBackend(Rounded("auto", threads));
    ASSERT_TRUE(backend.ok()) << backend.status();
    const auto stream = (*backend)->CreateStream();
    DeviceBuffer memory;
    const auto prepared = (*backend)->Prepare(w.View(), KSplit::Whole(), &memory);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    std::vector<float> out(kTokens * kHeads * kRows, -1);
    (*backend)->HeadLinear(**stream,
                           TensorView(x.data(), DType::kF32, {kTokens, kHeads, kInputs}),
                           prepared->RowSlice(4, kHeads * kHeadRows), kHeadRows, kBegin,
                           TensorView(out.data(), DType::kF32, {kTokens, kHeads, kRows}));
    for (int64_t at = 0; at < kTokens * kHeads * kRows; ++at) {
      const int64_t row = at % kRows;
      const int64_t vector = at / kRows;
      const int64_t head = vector % kHeads;
      const float* weights =
          w.values.data() + (4 + head * kHeadRows + kBegin + row) * kInputs;
      EXPECT_EQ(out[static_cast<size_t>(at)],
                LeafSum(x.data() + vector * kInputs, weights, kInputs));
    }
  }
}

TEST(RoundedLinear, WhatIsNotFiniteIsSeenWhereItCounts) {
  constexpr uint64_t kSeed = 6;
  constexpr int64_t kInputs = 200;
  constexpr int64_t kOutputs = 20;
  constexpr int64_t kRows = 3;
  std::mt19937_64 random(kSeed);
  for (const std::string_view isa : kIsas) {
    if (!CreateBackend(Rounded(isa)).ok()) {
      continue;
    }
    for (const float damage : {std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::quiet_NaN()}) {
      Matrix w = RandomMatrix(kOutputs, kInputs, &random);
      std::vector<float> x = Normal(kRows * kInputs, &random);
      w.values[7 * kInputs + 77] = damage;
      x[kInputs + 190] = -damage;
      const std::vector<float> out =
          RunLinear(Rounded(isa), w.View(), x, KSplit::Whole());
      for (int64_t at = 0; at < kRows * kOutputs; ++at) {
        EXPECT_EQ(std::isnan(out[static_cast<size_t>(at)]),
                  at % kOutputs == 7 || at / kOutputs == 1);
      }
    }
  }
}

TEST(RoundedLinear, OtherNumericsPrepareNothing) {
  std::mt19937_64 random(7);
  const Matrix w = RandomMatrix(3, 5, &random);
  EXPECT_EQ((*CreateBackend(Rounded("auto")))->numerics_id(), "cpu/w8a8-g32");
  for (const std::string_view numerics : {"f32", "int8-g32"}) {
    const auto backend = CreateBackend({.name = "cpu", .numerics = numerics});
    DeviceBuffer memory;
    const auto prepared = (*backend)->Prepare(w.View(), KSplit::Whole(), &memory);
    ASSERT_TRUE(prepared.ok());
    EXPECT_FALSE(prepared->rounded);
    EXPECT_EQ(memory.data(), nullptr);
  }
}

}  // namespace
}  // namespace tessera::kernels
