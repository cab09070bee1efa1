// The ops of numerics fp8-g128 under the simulator, all checks on: the reference's bits
// at every shape, cut, tile, chunk and schedule, and nothing else written.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/expert_table.h"
#include "kernels/cuda/products/fp4_gemm.h"
#include "kernels/cuda/products/fp8_gemm.h"
#include "kernels/cuda/products/fp8_ops.h"
#include "kernels/fp8_products.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{256} << 10;

int64_t RoundUp(int64_t value, int64_t grain) {
  return (value + grain - 1) / grain * grain;
}

// E8M0 scales about 1, far apart: what folds them into codes would lose them.
const std::byte* ScaleBytes(SimulatedDevice& device, int64_t count) {
  const TensorView scales = device.Bytes(1, count);
  for (int64_t i = 0; i < count; ++i) {
    scales.as<uint8_t>()[i] = static_cast<uint8_t>(105 + scales.as<uint8_t>()[i] % 41);
  }
  return static_cast<const std::byte*>(scales.data);
}

WeightView Fp8Weight(SimulatedDevice& device, int64_t rows, int64_t cols,
                     DType scale_dtype) {
  WeightView w;
  const TensorView codes = device.Bytes(rows, RoundUp(cols, 16));
  w.data = static_cast<const std::byte*>(codes.data);
  w.dtype = DType::kF8E4M3;
  w.rows = rows;
  w.cols = cols;
  w.row_bytes = codes.stride(0);
  w.block_rows = kFp8Group;
  w.block_cols = kFp8Group;
  w.scale_stride = (cols + kFp8Group - 1) / kFp8Group;
  w.scale_dtype = scale_dtype;
  const int64_t count = (rows + kFp8Group - 1) / kFp8Group * w.scale_stride;
  if (scale_dtype == DType::kF8E8M0) {
    w.scales = ScaleBytes(device, count);
    return w;
  }
  std::vector<float> scales;
  for (int64_t i = 0; i < count; ++i) {
    scales.push_back(0.001F * static_cast<float>(1 + i * 37 % 98));
  }
  w.scales = static_cast<const std::byte*>(device.Floats(scales).data);
  return w;
}

WeightView Fp4Weight(SimulatedDevice& device, int64_t rows, int64_t cols) {
  WeightView w;
  const TensorView codes = device.Bytes(rows, cols / 2);
  for (int64_t i = 0; i < rows * cols / 2; ++i) {  // every code in either half
    codes.as<uint8_t>()[i] = static_cast<uint8_t>(codes.as<uint8_t>()[i] * 5 + i);
  }
  w.data = static_cast<const std::byte*>(codes.data);
  w.dtype = DType::kFp4;
  w.rows = rows;
  w.cols = cols;
  w.row_bytes = cols / 2;
  w.block_rows = 1;
  w.block_cols = kFp4Group;
  w.scale_stride = cols / kFp4Group;
  w.scale_dtype = DType::kF8E8M0;
  w.scales = ScaleBytes(device, rows * w.scale_stride);
  return w;
}

// Groups of many sizes, zeros among them.
TensorView Inputs(SimulatedDevice& device, int64_t rows, int64_t cols) {
  const TensorView x = device.Random({rows, cols});
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t i = 0; i < cols; ++i) {
      const int64_t group = t + i / kFp8Group;
      x.row<float>(t)[i] = group % 5 == 4 ? 0.0F
                                          : std::ldexp(x.row<float>(t)[i],
                                                       static_cast<int>(group % 23) - 11);
    }
  }
  return x;
}

std::unique_ptr<Fp8Ops> MakeOps(SimulatedDevice& device, size_t bytes = kWorkspaceBytes) {
  auto ops = Fp8Ops::Create(device.machine(), 0, device.stream(), bytes);
  TESSERA_CHECK(ops.ok());
  return std::move(*ops);
}

// ---- Linear ----

struct LinearCase {
  int64_t rows;
  int64_t outputs;
  int64_t inputs;
  KSplit split = KSplit::Whole();
  int64_t cut = 0;  // rows of the weight that the slice leaves out
  size_t workspace = kWorkspaceBytes;
};

const LinearCase kLinearCases[] = {
    {1, 64, 128},
    {17, 200, 384},
    {3, 131, 208},
    {2, 1, 16},
    {70, 33, 144},
    {5, 100, 256, KSplit::Whole(), 48},   // blocks of rows begin inside of a tile
    {3, 150, 256, KSplit::Whole(), 200},  // of its second half
    {3, 40, 1024, {1024, 0, 8}},
    {2, 70, 512, {1024, 4, 4}},
    {18, 40, 512, {2048, 2, 2}},
    {2, 10, 256, {2048, 7, 1}},
    {40, 30, 256, KSplit::Whole(), 0, 8192},  // 31 rows at once
    {40, 30, 1024, {1024, 0, 8}, 0, 16384},
};

TEST(CudaFp8Ops, LinearHasTheReferencesBits) {
  uint64_t seed = 0;
  for (const LinearCase& size : kLinearCases) {
    SCOPED_TRACE(std::to_string(size.rows) + " x " + std::to_string(size.outputs) +
                 " x " + std::to_string(size.inputs));
    SimulatedDevice device(++seed);
    const TensorView x = Inputs(device, size.rows, size.inputs);
    const WeightView w = Fp8Weight(device, size.cut + size.outputs, size.inputs,
                                   seed % 2 == 0 ? DType::kF8E8M0 : DType::kF32)
                             .RowSlice(size.cut, size.outputs);
    const TensorView out = device.Random({size.rows, size.outputs});
    device.Upload();
    const auto ops = MakeOps(device, size.workspace);
    ASSERT_TRUE(ops->Linear(device.stream(), device.On(x), device.On(w), size.split,
                            device.On(out))
                    .ok());
    reference::Fp8Linear(x, w, size.split, out);
    device.ExpectEqual("linear");
  }
}

TEST(CudaFp8Ops, SlicesOfRowsHaveTheBitsOfTheWhole) {
  SimulatedDevice device(1);
  constexpr int64_t kOutputs = 384;
  const TensorView x = Inputs(device, 2, 96);
  const WeightView w = Fp8Weight(device, kOutputs, 96, DType::kF32);
  const TensorView out = device.Random({2, kOutputs});
  device.Upload();
  const auto ops = MakeOps(device);
  for (int64_t begin = 0; begin < kOutputs; begin += 48) {  // those of tp 8
    ASSERT_TRUE(ops->Linear(device.stream(), device.On(x),
                            device.On(w).RowSlice(begin, 48), KSplit::Whole(),
                            device.On(out.Slice(1, begin, 48)))
                    .ok());
  }
  reference::Fp8Linear(x, w, KSplit::Whole(), out);
  device.ExpectEqual("slices");
}

TEST(CudaFp8Ops, AWorkspaceWithoutRoomForARowIsAnError) {
  SimulatedDevice device(1);
  const TensorView x = Inputs(device, 2, 4096);
  const WeightView w = Fp8Weight(device, 16, 4096, DType::kF32);
  const TensorView out = device.Random({2, 16});
  device.Upload();
  const auto ops = MakeOps(device, 4096);
  EXPECT_EQ(ops->Linear(device.stream(), device.On(x), device.On(w), KSplit::Whole(),
                        device.On(out))
                .code(),
            absl::StatusCode::kResourceExhausted);
}

// ---- experts ----

enum class ExpertFormat { kFp4, kFp8, kMixed };

struct ExpertCase {
  ExpertFormat format;
  int64_t hidden;
  int64_t width;
  std::vector<int32_t> offsets;
  int64_t bound;  // room for items
  bool weighted = false;
  size_t workspace = kWorkspaceBytes;
};

ExpertWeights MakeExpert(SimulatedDevice& device, ExpertFormat format, int64_t hidden,
                         int64_t width) {
  const auto matrix = [&](bool is_fp4, int64_t rows, int64_t cols) {
    return is_fp4 ? Fp4Weight(device, rows, cols)
                  : Fp8Weight(device, rows, cols, DType::kF8E8M0);
  };
  const bool wide_fp4 = format != ExpertFormat::kFp8;
  return {matrix(wide_fp4, width, hidden), matrix(wide_fp4, width, hidden),
          matrix(format == ExpertFormat::kFp4, hidden, width)};
}

std::vector<ExpertWeights> OnDevice(const SimulatedDevice& device,
                                    std::span<const ExpertWeights> experts) {
  std::vector<ExpertWeights> on;
  for (const ExpertWeights& expert : experts) {
    on.push_back({device.On(expert.gate), device.On(expert.up), device.On(expert.down)});
  }
  return on;
}

// Rows of Fp8RowFormat, apart from each other; on either side of the device.
struct PackedRows {
  PackedRows(SimulatedDevice& device, int64_t rows, int64_t inputs)
      : format(Fp8RowFormat(inputs)),
        bytes(device.Bytes(rows, format.packed_bytes() + 12)
                  .Slice(1, 0, format.packed_bytes())) {
    std::vector<int32_t> all(static_cast<size_t>(rows));
    std::iota(all.begin(), all.end(), 0);
    slots = device.Ints(all);
  }
  CacheView On(const SimulatedDevice& device) const {
    return {device.On(bytes).SplitLast(bytes.dim(1)), format};  // [rows, 1, bytes]
  }
  void Pack(const TensorView& x) const {
    for (int64_t row = 0; row < x.dim(0); ++row) {
      PackRow(format, x.row<float>(row), Row(row));
    }
  }
  // Every code there is, and a scale that no rounding makes.
  void Damage(int64_t row, float scale) const {
    for (int64_t i = 0; i < format.coded; ++i) {
      Row(row)[i] = static_cast<std::byte>(i);
    }
    for (int64_t group = 0; group < format.num_groups(); ++group) {
      std::memcpy(Row(row) + format.scales_begin() + 4 * group, &scale, sizeof(scale));
    }
  }
  std::byte* Row(int64_t row) const {
    return reinterpret_cast<std::byte*>(bytes.row<uint8_t>(row));
  }

  RowFormat format;
  TensorView bytes;
  TensorView slots;
};

// Values that rounding twice, or to other scales, would change.
void SetExtremes(const TensorView& x) {
  x.row<float>(0)[1] = 224.5F * 0x1p-3F;  // of its group the largest, or nearly
  x.row<float>(1)[x.dim(1) - 1] = std::numeric_limits<float>::infinity();
  x.row<float>(2)[3] = std::numeric_limits<float>::max();
  std::fill_n(x.row<float>(3), x.dim(1), -0.0F);
  x.row<float>(3)[5] = std::numeric_limits<float>::denorm_min();
}

// Floats; rounded by the device; rounded, but for two rows of any bytes.
enum class ExpertRows { kFloats, kPacked, kAnyBytes };

// By the device, and the reference's on the host: of floats, wherever rows are rounded.
void RunExperts(SimulatedDevice& device, const ExpertCase& size,
                ExpertRows rows = ExpertRows::kFloats) {
  constexpr int64_t kRows = 5;
  std::vector<ExpertWeights> experts;
  for (size_t e = 0; e + 1 < size.offsets.size(); ++e) {
    experts.push_back(MakeExpert(device, size.format, size.hidden, size.width));
  }
  GroupedExpertsArgs args;
  args.x = Inputs(device, kRows, size.hidden);
  const PackedRows packed(device, kRows, size.hidden);
  if (rows != ExpertRows::kFloats) {
    SetExtremes(args.x);
  }
  if (rows == ExpertRows::kAnyBytes) {
    packed.Pack(args.x);
    packed.Damage(0, -0.3F);
    packed.Damage(4, std::numeric_limits<float>::quiet_NaN());
    args.x = packed.bytes;
  }
  args.row_of_item = device.Ids(size.bound, kRows);
  args.item_offsets = device.Ints(size.offsets);
  args.out = device.Random({size.bound, size.hidden});
  if (size.weighted) {
    args.swiglu_limit = 0.5;
    args.item_weights = device.Random({size.bound});
  }
  device.Upload();
  const std::vector<ExpertWeights> on_experts = OnDevice(device, experts);
  GroupedExpertsArgs on = args;
  for (TensorView* view : {&on.x, &on.row_of_item, &on.item_offsets, &on.out}) {
    *view = device.On(*view);
  }
  if (size.weighted) {
    on.item_weights = device.On(on.item_weights);
  }
  on.experts = on_experts;
  args.experts = experts;
  ExpertTables tables(device.machine(), 0, &device.stream(), true);
  const auto table = tables.Of(on.experts);
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ((*table)->parts().size(), 1U);
  if (rows == ExpertRows::kPacked) {
    StorePaged(device.stream(), on.x, device.On(packed.slots), packed.On(device));
    on.x = device.On(packed.bytes);
    packed.Pack(args.x);
  }
  const auto ops = MakeOps(device, size.workspace);
  const absl::Status status =
      ops->GroupedExperts(device.stream(), (*table)->parts().front(), on);
  ASSERT_TRUE(status.ok()) << status;
  reference::Fp8GroupedExperts(args);
  device.ExpectEqual("experts");
}

const ExpertCase kExpertCases[] = {
    {ExpertFormat::kFp4, 192, 32, {0, 2, 2, 5}, 5},
    {ExpertFormat::kFp4, 192, 96, {0, 0, 0, 1}, 4, true},  // room for more
    {ExpertFormat::kFp4, 416, 160, {0, 3, 20, 21}, 21, true},
    {ExpertFormat::kFp8, 144, 80, {0, 1, 19}, 20, true},
    {ExpertFormat::kFp8, 256, 144, {0, 2, 2, 5}, 5},
    {ExpertFormat::kMixed, 160, 208, {0, 1, 1, 3}, 3},
    {ExpertFormat::kFp4, 64, 64, {0, 3, 20, 21}, 24, true, 4096},  // in turns
    {ExpertFormat::kFp4, 64, 32, {1, 2, 2, 4}, 4},  // the first item is of none
    {ExpertFormat::kFp8, 64, 32, {0, 0, 0}, 2},     // no item
};

TEST(CudaFp8Ops, ExpertsHaveTheReferencesBits) {
  uint64_t seed = 0;
  for (const ExpertCase& size : kExpertCases) {
    SCOPED_TRACE(seed);
    SimulatedDevice device(++seed);
    RunExperts(device, size);
  }
}

TEST(CudaFp8Ops, ExpertsOfPackedRowsHaveTheReferencesBitsOfTheRows) {
  uint64_t seed = 20;
  for (const ExpertCase& size : kExpertCases) {
    SCOPED_TRACE(seed);
    SimulatedDevice device(++seed);
    RunExperts(device, size, ExpertRows::kPacked);
    SimulatedDevice other(seed);
    RunExperts(other, size, ExpertRows::kAnyBytes);
  }
}

TEST(CudaFp8Ops, EveryScheduleOfExpertsHasTheReferencesBits) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(seed);
    SimulatedDevice device(seed);
    // Five blocks of inputs of FP4: stages and expanded tiles are used again.
    RunExperts(device, {ExpertFormat::kFp4, 576, 64, {0, 1, 3}, 3, true});
  }
}

// ---- items in every tile ----

constexpr int64_t kOutputs = 96;  // a second tile of 64 is not whole
constexpr int64_t kInputs = 800;  // more blocks than stages; the last is not whole

// Few stages, so that they are used again.
const std::array<uint32_t, 3> kTiles[] = {
    {1, 16, 3}, {2, 16, 2}, {2, 64, 4}, {2, 128, 2}};

absl::Status MultiplyItems(SimulatedDevice& device, const Fp8Tokens& x,
                           const ExpertMatrices& w, const ListedItems& items,
                           const std::array<uint32_t, 3>& tile, TensorView out) {
  const auto [consumers, tokens, stages] = tile;
  if (w.weight().dtype == DType::kFp4) {
    const Fp4GemmConfig config = {
        .consumers = consumers,
        .tile_tokens = tokens,
        .stages = stages,
        .shared_bytes = stages * Fp4StageBytes(consumers, tokens) +
                        Fp4FixedBytes(consumers, kInputs, stages)};
    return Fp4GroupedLinear(device.stream(), x, w, items, config, out);
  }
  Fp8GemmConfig config;
  config.consumers = consumers;
  config.tile_tokens = tokens;
  config.stages = stages;
  config.shared_bytes =
      stages * Fp8StageBytes(consumers, tokens) + Fp8FixedBytes(kInputs, stages);
  return Fp8GroupedLinear(device.stream(), x, w, items, config, out);
}

// A call takes `rows` items from `first` on.
struct ItemsCase {
  std::vector<int32_t> offsets;
  int64_t first;
  int64_t rows;
};

// Whose item the row is; -1: nobody's.
int64_t ExpertOf(const ItemsCase& items, int64_t row) {
  for (size_t e = 0; e + 1 < items.offsets.size(); ++e) {
    if (items.first + row >= items.offsets[e] &&
        items.first + row < items.offsets[e + 1]) {
      return static_cast<int64_t>(e);
    }
  }
  return -1;
}

// Tokens of the items, one of them damaged, with room for what the device makes of them.
struct ItemTokens {
  ItemTokens(SimulatedDevice& device, int64_t rows) : x(Inputs(device, rows, kInputs)) {
    x.row<float>(1)[700] = std::numeric_limits<float>::infinity();
    tokens.codes =
        TensorView(device.Bytes(rows, kInputs).data, DType::kU8, {rows, kInputs});
    const int64_t pitch = RoundUp(rows, 4);
    const int64_t blocks = RoundUp(kInputs, kFp8Group) / kFp8Group;
    const std::vector<float> zeros(static_cast<size_t>(blocks * pitch));
    tokens.scales = TensorView(device.Floats(zeros).data, DType::kF32, {blocks, pitch});
    tokens.scales.shape[1] = rows;
  }
  Fp8Tokens MakeOn(SimulatedDevice& device) const {
    const Fp8Tokens on = {device.On(tokens.codes), device.On(tokens.scales)};
    QuantizeTokens(device.stream(), device.On(x), on);
    device.Download(tokens.codes);
    device.Download(tokens.scales);
    return on;
  }
  TensorView x;
  Fp8Tokens tokens;
};

// By every tile that the format has: the reference's bits, and rows of no expert as they
// were.
void RunTiles(SimulatedDevice& device, ExpertFormat format, const ItemsCase& items) {
  const ItemTokens tokens(device, items.rows);
  std::vector<ExpertWeights> experts;
  for (size_t e = 0; e + 1 < items.offsets.size(); ++e) {
    experts.push_back(MakeExpert(device, format, kInputs, kOutputs));
  }
  std::vector<TensorView> outs;
  for (size_t i = 0; i < std::size(kTiles) - (format == ExpertFormat::kFp4 ? 1 : 0);
       ++i) {
    outs.push_back(device.Random({items.rows, kOutputs}));
  }
  const TensorView offsets = device.Ints(items.offsets);
  device.Upload();
  const std::vector<ExpertWeights> on_experts = OnDevice(device, experts);
  ExpertTables tables(device.machine(), 0, &device.stream(), true);
  const auto table = tables.Of(on_experts);
  ASSERT_TRUE(table.ok()) << table.status();
  const Fp8Tokens on_tokens = tokens.MakeOn(device);
  for (size_t i = 0; i < outs.size(); ++i) {
    const absl::Status status =
        MultiplyItems(device, on_tokens, {&(*table)->parts().front(), 1},
                      {device.On(offsets), items.first}, kTiles[i], device.On(outs[i]));
    ASSERT_TRUE(status.ok()) << status;
    for (int64_t row = 0; row < items.rows; ++row) {
      const int64_t expert = ExpertOf(items, row);
      if (expert >= 0) {
        reference::Fp8Linear(tokens.x.Rows(row, 1),
                             experts[static_cast<size_t>(expert)].up, KSplit::Whole(),
                             outs[i].Rows(row, 1));
      }
    }
  }
  device.ExpectEqual("items");
}

TEST(CudaFp8Ops, ItemsHaveTheReferencesBitsInEveryTile) {
  const ItemsCase cases[] = {
      {{0, 18, 18, 21}, 0, 21},  // a tile for each place
      {{0, 1, 1, 3}, 0, 3},      // for each item
      {{0, 0, 17, 34}, 0, 40},   // rows behind the last item
      {{3, 10, 60, 90}, 8, 20},  // a chunk, which begins and ends inside of an expert's
      {{0, 130, 131, 137}, 0, 137},  // more than a tile of the widest
  };
  uint64_t seed = 0;
  for (const ItemsCase& items : cases) {
    for (const ExpertFormat format : {ExpertFormat::kFp4, ExpertFormat::kFp8}) {
      SCOPED_TRACE(seed);
      SimulatedDevice device(++seed);
      RunTiles(device, format, items);
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
