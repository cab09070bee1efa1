// Products in 8 bits with the table of amx against those with the scalar one, bit by bit:
// dense ones, those of heads, experts in 8 bits and in e2m1, on one thread and on three.
// Where the machine has no tiles their instructions are emulated.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa/simd_tables.h"
#include "kernels/cpu/isa/tile_support.h"
#include "kernels/cpu/simd/tiles/emulated_tiles.h"

namespace tessera::kernels::cpu {
namespace {

constexpr uint64_t kSeed = 51;

bool Has(CpuIsa isa) {
  const std::vector<CpuIsa> all = CpuIsasOf(ReadCpu());
  return std::find(all.begin(), all.end(), isa) != all.end();
}

class TileOpsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Has(CpuIsa::kAvx512Vnni)) {
      GTEST_SKIP() << "no avx512vnni";
    }
    if (Has(CpuIsa::kAmx)) {
      ASSERT_TRUE(RequestTiles().ok()) << RequestTiles();
    } else {
      emulation_.emplace();
    }
  }

  static std::unique_ptr<CpuContext> Context(CpuIsa isa, int threads) {
    auto context = CpuContext::Create(
        TableOf(isa),
        {.numerics = "w8a8-g32", .num_threads = threads, .work_per_thread = 1});
    EXPECT_TRUE(context.ok()) << context.status();
    return *std::move(context);
  }

  std::vector<float> Normal(int64_t count) {
    std::normal_distribution<float> normal(0, 0.3F);
    std::vector<float> values(static_cast<size_t>(count));
    std::generate(values.begin(), values.end(), [&] { return normal(random_); });
    return values;
  }

 private:
  std::optional<EmulatedTiles> emulation_;
  std::mt19937_64 random_{kSeed};
};

WeightView ViewOf(const std::vector<float>& values, int64_t cols) {
  WeightView view;
  view.data = reinterpret_cast<const std::byte*>(values.data());
  view.dtype = DType::kF32;
  view.rows = static_cast<int64_t>(values.size()) / cols;
  view.cols = cols;
  view.row_bytes = cols * 4;
  return view;
}

// A weight in the form of a context.
struct Rounded {
  Rounded(CpuContext& context, const WeightView& w, const KSplit& split) {
    const auto rounded = RoundWeight(context, w, split, &memory);
    EXPECT_TRUE(rounded.ok()) << rounded.status();
    view = *rounded;
  }
  DeviceBuffer memory;
  WeightView view;
};

TEST_F(TileOpsTest, DenseProductsHaveTheBitsOfTheScalarTable) {
  constexpr int64_t kInputs = 360;
  constexpr int64_t kOutputs = 75;
  const std::vector<float> w = Normal(kInputs * kOutputs);
  for (const int64_t rows : {1, 5, 6, 12, 40, 97}) {
    std::vector<float> x = Normal(rows * kInputs);
    for (const KSplit& split : {KSplit::Whole(), KSplit{kInputs, 0, 8}}) {
      const auto run = [&](CpuIsa isa, int threads) {
        const auto context = Context(isa, threads);
        const Rounded weight(*context, ViewOf(w, kInputs), split);
        std::vector<float> out(static_cast<size_t>(rows * kOutputs), -1);
        Linear(*context, TensorView(x.data(), DType::kF32, {rows, kInputs}), weight.view,
               split, TensorView(out.data(), DType::kF32, {rows, kOutputs}));
        return out;
      };
      const std::vector<float> expected = run(CpuIsa::kScalar, 1);
      EXPECT_EQ(run(CpuIsa::kAmx, 1), expected) << rows;
      EXPECT_EQ(run(CpuIsa::kAmx, 3), expected) << rows;
    }
  }
}

TEST_F(TileOpsTest, ProductsOfHeadsHaveThem) {
  constexpr int64_t kHeads = 3;
  constexpr int64_t kHeadRows = 37;  // heads begin inside of tiles
  constexpr int64_t kInputs = 80;
  const std::vector<float> w = Normal(kHeads * kHeadRows * kInputs);
  for (const int64_t tokens : {1, 7, 29}) {
    std::vector<float> x = Normal(tokens * kHeads * kInputs);
    const auto run = [&](CpuIsa isa, int threads) {
      const auto context = Context(isa, threads);
      const Rounded weight(*context, ViewOf(w, kInputs), KSplit::Whole());
      std::vector<float> out(static_cast<size_t>(tokens * kHeads * kHeadRows), -1);
      HeadLinear(*context, TensorView(x.data(), DType::kF32, {tokens, kHeads, kInputs}),
                 weight.view, kHeadRows, 0,
                 TensorView(out.data(), DType::kF32, {tokens, kHeads, kHeadRows}));
      return out;
    };
    const std::vector<float> expected = run(CpuIsa::kScalar, 1);
    EXPECT_EQ(run(CpuIsa::kAmx, 1), expected) << tokens;
    EXPECT_EQ(run(CpuIsa::kAmx, 3), expected) << tokens;
  }
}

// The outputs of all items; item i takes row i % rows of x.
std::vector<float> RunExperts(CpuContext& context, std::vector<float>& x, int64_t rows,
                              std::vector<int32_t>& offsets,
                              const std::vector<ExpertWeights>& experts) {
  const int64_t inputs = static_cast<int64_t>(x.size()) / rows;
  const int64_t items = offsets.back();
  std::vector<int32_t> row_of_item(static_cast<size_t>(items));
  for (size_t i = 0; i < row_of_item.size(); ++i) {
    row_of_item[i] = static_cast<int32_t>(static_cast<int64_t>(i) % rows);
  }
  std::vector<float> out(static_cast<size_t>(items * inputs), -1);
  GroupedExpertsArgs args;
  args.x = TensorView(x.data(), DType::kF32, {rows, inputs});
  args.row_of_item = TensorView(row_of_item.data(), DType::kI32, {items});
  args.item_offsets =
      TensorView(offsets.data(), DType::kI32, {static_cast<int64_t>(offsets.size())});
  args.experts = experts;
  args.out = TensorView(out.data(), DType::kF32, {items, inputs});
  GroupedExperts(context, args);
  return out;
}

TEST_F(TileOpsTest, ExpertsHaveThem) {
  constexpr int64_t kInputs = 96;
  constexpr int64_t kInner = 72;
  constexpr int64_t kRows = 5;
  std::vector<int32_t> offsets = {0, 1, 14, 14, 124, 131};
  const size_t experts = offsets.size() - 1;
  std::vector<std::vector<float>> weights;
  for (size_t i = 0; i < 3 * experts; ++i) {
    weights.push_back(Normal(kInputs * kInner));
  }
  std::vector<float> x = Normal(kRows * kInputs);
  const auto run = [&](CpuIsa isa, int threads) {
    const auto context = Context(isa, threads);
    std::vector<std::unique_ptr<Rounded>> rounded;
    for (size_t i = 0; i < weights.size(); ++i) {
      rounded.push_back(std::make_unique<Rounded>(
          *context, ViewOf(weights[i], i % 3 == 2 ? kInner : kInputs), KSplit::Whole()));
    }
    std::vector<ExpertWeights> all;
    for (size_t e = 0; e < experts; ++e) {
      all.push_back(
          {rounded[3 * e]->view, rounded[3 * e + 1]->view, rounded[3 * e + 2]->view});
    }
    return RunExperts(*context, x, kRows, offsets, all);
  };
  const std::vector<float> expected = run(CpuIsa::kScalar, 1);
  EXPECT_EQ(run(CpuIsa::kAmx, 1), expected);
  EXPECT_EQ(run(CpuIsa::kAmx, 3), expected);
}

// As a checkpoint has them: codes, and a scale for 32 of them.
struct PackedMatrix {
  PackedMatrix(int64_t num_rows, int64_t num_cols, std::mt19937_64* random)
      : rows(num_rows),
        cols(num_cols),
        codes(static_cast<size_t>(num_rows * num_cols / 2)),
        scales(static_cast<size_t>(num_rows * num_cols / 32)) {
    for (uint8_t& code : codes) {
      code = static_cast<uint8_t>((*random)() & 0xff);
    }
    for (uint8_t& scale : scales) {
      scale = static_cast<uint8_t>(118 + (*random)() % 6);
    }
  }
  WeightView View() const {
    WeightView view;
    view.data = reinterpret_cast<const std::byte*>(codes.data());
    view.dtype = DType::kFp4;
    view.rows = rows;
    view.cols = cols;
    view.row_bytes = cols / 2;
    view.scales = reinterpret_cast<const std::byte*>(scales.data());
    view.scale_dtype = DType::kF8E8M0;
    view.scale_stride = cols / 32;
    view.block_rows = 1;
    view.block_cols = 32;
    return view;
  }
  int64_t rows;
  int64_t cols;
  std::vector<uint8_t> codes;
  std::vector<uint8_t> scales;
};

TEST_F(TileOpsTest, PackedExpertsHaveThem) {
  constexpr int64_t kInputs = 608;
  constexpr int64_t kInner = 96;
  constexpr int64_t kRows = 5;
  std::mt19937_64 random(kSeed);
  std::vector<int32_t> offsets = {0, 1, 14, 14, 94, 101};
  std::vector<PackedMatrix> matrices;
  std::vector<ExpertWeights> all;
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    matrices.emplace_back(kInner, kInputs, &random);
    matrices.emplace_back(kInner, kInputs, &random);
    matrices.emplace_back(kInputs, kInner, &random);
  }
  for (size_t i = 0; i < matrices.size(); i += 3) {
    all.push_back({matrices[i].View(), matrices[i + 1].View(), matrices[i + 2].View()});
  }
  std::vector<float> x = Normal(kRows * kInputs);
  const auto run = [&](CpuIsa isa, int threads) {
    const auto context = Context(isa, threads);
    return RunExperts(*context, x, kRows, offsets, all);
  };
  const std::vector<float> expected = run(CpuIsa::kScalar, 1);
  EXPECT_EQ(run(CpuIsa::kAmx, 1), expected);
  EXPECT_EQ(run(CpuIsa::kAmx, 3), expected);
}

TEST(SimdTables, OnlyProductsOfManyRowsDifferFromTheLevelBelow) {
  const SimdOps amx = TableOf(CpuIsa::kAmx);
  const SimdOps below = TableOf(CpuIsa::kAvx512Vnni);
  EXPECT_NE(amx.rounded_linear, below.rounded_linear);
  EXPECT_NE(amx.int8_linear, below.int8_linear);
  EXPECT_EQ(amx.linear, below.linear);
  EXPECT_EQ(amx.rounded_attention, below.rounded_attention);
}

}  // namespace
}  // namespace tessera::kernels::cpu
