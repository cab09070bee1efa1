// The ops of numerics fp8-g128 under the simulator, all checks on: the reference's bits
// at every shape, cut, form, tile, chunk and schedule, and nothing else written.
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

ExpertWeights MakeExpert(SimulatedDevice& device, const ExpertCase& size) {
  const auto matrix = [&](bool is_fp4, int64_t rows, int64_t cols) {
    return is_fp4 ? Fp4Weight(device, rows, cols)
                  : Fp8Weight(device, rows, cols, DType::kF8E8M0);
  };
  const bool wide_fp4 = size.format != ExpertFormat::kFp8;
  return {matrix(wide_fp4, size.width, size.hidden),
          matrix(wide_fp4, size.width, size.hidden),
          matrix(size.format == ExpertFormat::kFp4, size.hidden, size.width)};
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
    experts.push_back(MakeExpert(device, size));
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
  std::vector<ExpertWeights> on_experts;
  for (const ExpertWeights& expert : experts) {
    on_experts.push_back(
        {device.On(expert.gate), device.On(expert.up), device.On(expert.down)});
  }
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

// ---- FP4: forms and tiles ----

constexpr int64_t kGroups = 3;
constexpr int64_t kGroupRows = 256;
constexpr int64_t kInputs = 1312;  // more blocks than stages; the last is not whole

// Few stages, so that they are used again.
std::vector<Fp4GemmConfig> Fp4Configs() {
  std::vector<Fp4GemmConfig> configs;
  for (const auto& [consumers, tokens, stages] :
       {std::array<uint32_t, 3>{1, 16, 3}, {2, 16, 2}, {2, 64, 4}}) {
    configs.push_back({.consumers = consumers,
                       .tile_tokens = tokens,
                       .stages = stages,
                       .shared_bytes = stages * Fp4StageBytes(consumers, tokens) +
                                       Fp4FixedBytes(consumers, kInputs, stages)});
  }
  return configs;
}

// Tokens of groups, one of them damaged; `group_of` says whose a row is, -1: nobody's.
struct Fp4Problem {
  Fp4Problem(uint64_t seed, std::vector<int32_t> group_of)
      : device(seed), groups_of_rows(std::move(group_of)) {
    const auto rows = std::ssize(groups_of_rows);
    x = Inputs(device, rows, kInputs);
    x.row<float>(1)[700] = std::numeric_limits<float>::infinity();
    tokens.codes =
        TensorView(device.Bytes(rows, kInputs).data, DType::kU8, {rows, kInputs});
    const int64_t blocks = RoundUp(kInputs, kFp8Group) / kFp8Group;
    std::vector<float> zeros(static_cast<size_t>(blocks * RoundUp(rows, 4)));
    tokens.scales =
        TensorView(device.Floats(zeros).data, DType::kF32, {blocks, RoundUp(rows, 4)});
    tokens.scales.shape[1] = rows;
    w = Fp4Weight(device, kGroups * kGroupRows, kInputs);
    out = device.Random({rows, kGroupRows});
    before.assign(out.as<float>(), out.as<float>() + rows * out.stride(0));
  }

  void Check(const Fp8Groups& groups) {
    QuantizeTokens(device.stream(), device.On(x), OnDevice());
    GroupWeights weights;
    weights.rows = device.On(w);
    weights.group_rows = kGroupRows;
    for (const Fp4GemmConfig& config : Fp4Configs()) {
      const absl::Status status = Fp4GroupedLinear(device.stream(), OnDevice(), weights,
                                                   groups, config, device.On(out));
      ASSERT_TRUE(status.ok()) << status;
      device.Download(out);
      for (size_t t = 0; t < groups_of_rows.size(); ++t) {
        ASSERT_EQ(std::memcmp(out.row<float>(static_cast<int64_t>(t)),
                              Expected(static_cast<int64_t>(t)).data(),
                              kGroupRows * sizeof(float)),
                  0)
            << config.ToString() << ", row " << t;
      }
    }
  }

  Fp8Tokens OnDevice() const {
    return {device.On(tokens.codes), device.On(tokens.scales)};
  }
  std::vector<float> Expected(int64_t t) const {
    const int32_t group = groups_of_rows[static_cast<size_t>(t)];
    std::vector<float> row(before.begin() + t * out.stride(0),
                           before.begin() + t * out.stride(0) + kGroupRows);
    if (group >= 0) {
      reference::Fp8Linear(x.Rows(t, 1), w.RowSlice(group * kGroupRows, kGroupRows),
                           KSplit::Whole(),
                           TensorView(row.data(), DType::kF32, {1, kGroupRows}));
    }
    return row;
  }

  SimulatedDevice device;
  std::vector<int32_t> groups_of_rows;
  TensorView x;
  Fp8Tokens tokens;
  WeightView w;
  TensorView out;
  std::vector<float> before;
};

TEST(CudaFp4Gemm, ContiguousGroupsHaveTheReferencesBitsInEveryTile) {
  std::vector<int32_t> group_of(140, -1);
  std::fill_n(group_of.begin(), 18, 2);
  std::fill_n(group_of.begin() + 128, 3, 0);
  Fp4Problem problem(1, group_of);
  Fp8Groups groups;
  groups.group_of_row = problem.device.Ints(group_of);
  problem.device.Upload();
  groups.group_of_row = problem.device.On(groups.group_of_row);
  problem.Check(groups);
}

TEST(CudaFp4Gemm, MaskedGroupsHaveTheReferencesBitsInEveryTile) {
  constexpr int64_t kMaxRows = 18;
  const std::vector<int32_t> counts = {3, 0, 18};
  std::vector<int32_t> group_of(kGroups * kMaxRows, -1);
  for (int64_t g = 0; g < kGroups; ++g) {
    std::fill_n(group_of.begin() + g * kMaxRows, counts[static_cast<size_t>(g)],
                static_cast<int32_t>(g));
  }
  Fp4Problem problem(2, group_of);
  Fp8Groups groups;
  groups.counts = problem.device.Ints(counts);
  groups.max_rows = kMaxRows;
  problem.device.Upload();
  groups.counts = problem.device.On(groups.counts);
  problem.Check(groups);
}

}  // namespace
}  // namespace tessera::kernels::cuda
