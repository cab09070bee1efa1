#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

#include "common/status_macros.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/packed_weight.h"

namespace tessera::kernels::cpu {
namespace {

constexpr int64_t kTileRows = 16;
constexpr size_t kAlignment = 64;

LeafGroups GroupsOf(const KSplit& split, int64_t inputs) {
  LeafGroups out = {};
  out.count = split.num_leaves == 0 ? 1 : split.num_leaves;
  const int64_t origin =
      split.num_leaves == 0 ? 0 : KSplit::LeafBegin(split.total, split.first_leaf);
  for (int leaf = 0; leaf < out.count; ++leaf) {
    out.input[leaf + 1] =
        split.num_leaves == 0
            ? inputs
            : KSplit::LeafBegin(split.total, split.first_leaf + leaf + 1) - origin;
    const int64_t length = out.input[leaf + 1] - out.input[leaf];
    out.begin[leaf + 1] = out.begin[leaf] + (length + kRoundedGroup - 1) / kRoundedGroup;
  }
  TESSERA_CHECK_EQ(out.input[out.count], inputs);
  return out;
}

// `rows` as whole blocks.
int64_t InBlocks(int64_t rows) {
  return (rows + kRoundedBlockRows - 1) / kRoundedBlockRows * kRoundedBlockRows;
}

// Rows of x in the room for what passes between the loops of an op.
class RoundedInputs {
 public:
  RoundedInputs(CpuContext& context, const LeafGroups& leaves)
      : context_(context), leaves_(leaves) {
    floats_per_block_ =
        NumGroups(leaves) * kRoundedBlockRows * RoundedGroupFloats(context.simd());
    most_rows_ =
        kExpertFloats / std::max<int64_t>(floats_per_block_, 1) * kRoundedBlockRows;
    TESSERA_CHECK(most_rows_ > 0);
  }

  int64_t most_rows() const { return most_rows_; }

  // Rounds `count` rows; row(i) is the address of row i. Each `run` of them begin a
  // block.
  template <typename Row>
  void Round(int64_t count, int64_t run, const Row& row) {
    const int64_t stride = InBlocks(run);
    rows_ = RoundedRowsAt(context_.simd(), context_.expert_items(),
                          (count + run - 1) / run * stride, leaves_);
    context_.ParallelFor(count, count * leaves_.input[leaves_.count] * kRoundingWork,
                         [&](int64_t begin, int64_t end, int) {
                           for (int64_t i = begin; i < end; ++i) {
                             context_.simd().round_row(row(i), leaves_, rows_,
                                                       i / run * stride + i % run);
                           }
                         });
  }

  const RoundedRows& rows() const { return rows_; }

 private:
  // Of a value, in multiply-adds.
  static constexpr int64_t kRoundingWork = 16;

  CpuContext& context_;
  const LeafGroups& leaves_;
  int64_t floats_per_block_ = 0;
  int64_t most_rows_ = 0;
  RoundedRows rows_ = {};
};

// Weight rows [begin, end) of a task, those of some of its tiles.
void RunTiles(CpuContext& context, RoundedTask task, int64_t begin_tile,
              int64_t end_tile) {
  const int64_t first = task.row_begin;
  task.row_begin = std::max(first, begin_tile * kTileRows);
  task.row_end = std::min(task.row_end, end_tile * kTileRows);
  task.out += task.row_begin - first;
  context.simd().rounded_linear(task);
}

// In the multiply-adds that ParallelFor counts: a byte of weights takes a core as long to
// read as three of them, and four products of bytes as long as one.
int64_t WorkOf(int64_t items, int64_t rows, int64_t inputs) {
  return (items + 12) * rows * inputs / 4;
}

}  // namespace

absl::StatusOr<WeightView> RoundWeight(CpuContext& context, const WeightView& w,
                                       const KSplit& split, DeviceBuffer* memory) {
  TESSERA_CHECK(!w.rounded);
  TESSERA_CHECK_LE(w.cols, kScratchFloats);
  const LeafGroups leaves = GroupsOf(split, w.cols);
  const int64_t groups = NumGroups(leaves);
  const int64_t tiles = (w.rows + kTileRows - 1) / kTileRows;
  const int64_t code_bytes = groups * kRoundedGroupBytes;
  const int64_t step_bytes = groups * kTileRows;
  constexpr size_t kHeader =
      (sizeof(PackedWeight) + kAlignment - 1) / kAlignment * kAlignment;
  TESSERA_ASSIGN_OR_RETURN(
      *memory, context.weights().Allocate(
                   kHeader + static_cast<size_t>(tiles * (code_bytes + step_bytes))));
  auto* const codes = static_cast<uint8_t*>(memory->data()) + kHeader;
  uint8_t* const steps = codes + tiles * code_bytes;
  const WeightRows rows = ToWeightRows(w);
  context.ParallelFor(tiles, tiles * kTileRows * w.cols * 16,
                      [&](int64_t begin, int64_t end, int thread) {
                        for (int64_t tile = begin; tile < end; ++tile) {
                          const int64_t row = tile * kTileRows;
                          context.simd().round_tile(
                              rows, row, std::min(kTileRows, w.rows - row), leaves,
                              {.codes = codes + tile * code_bytes,
                               .steps = steps + tile * step_bytes,
                               .scratch = context.scratch(thread).rows});
                        }
                      });
  auto* const packed = static_cast<PackedWeight*>(memory->data());
  *packed = {codes, steps, leaves};
  WeightView out = w;
  out.rounded = true;
  out.packed = packed;
  out.packed_row = 0;  // the copy is of this slice
  return out;
}

void RoundedLinear(CpuContext& context, TensorView x, const WeightView& w,
                   const KSplit& split, TensorView out) {
  const PackedWeight& packed = PackedOf(w);
  TESSERA_CHECK_EQ(packed.leaves.count, split.num_leaves == 0 ? 1 : split.num_leaves);
  RoundedInputs inputs(context, packed.leaves);
  const int64_t row_end = w.packed_row + w.rows;
  const int64_t first_tile = w.packed_row / kTileRows;
  const int64_t tiles = (row_end + kTileRows - 1) / kTileRows - first_tile;
  for (int64_t first = 0; first < x.dim(0); first += inputs.most_rows()) {
    const int64_t count = std::min(inputs.most_rows(), x.dim(0) - first);
    inputs.Round(count, count, [&](int64_t i) { return x.row<float>(first + i); });
    const RoundedTask task = {.codes = packed.codes,
                              .steps = packed.steps,
                              .leaves = packed.leaves,
                              .row_begin = w.packed_row,
                              .row_end = row_end,
                              .x = inputs.rows(),
                              .x_row = 0,
                              .count = count,
                              .out = out.row<float>(first),
                              .out_stride = out.stride(0)};
    context.ParallelForShared(
        tiles, WorkOf(count, w.rows, w.cols), [&](int64_t begin, int64_t end, int) {
          RunTiles(context, task, first_tile + begin, first_tile + end);
        });
  }
}

void RoundedHeadLinear(CpuContext& context, TensorView x, const WeightView& w,
                       int64_t head_rows, int64_t row_begin, TensorView out) {
  const PackedWeight& packed = PackedOf(w);
  TESSERA_CHECK_EQ(packed.leaves.count, 1);
  const int64_t heads = x.dim(1);
  const int64_t rows = out.dim(2);
  RoundedInputs inputs(context, packed.leaves);
  // Rows of a head begin a block.
  const int64_t most = inputs.most_rows() / kRoundedBlockRows / heads * kRoundedBlockRows;
  TESSERA_CHECK(most > 0);
  // A head may begin inside of a tile, which then two of them read.
  const int64_t units = (rows + 2 * kTileRows - 2) / kTileRows;
  for (int64_t first = 0; first < x.dim(0); first += most) {
    const int64_t count = std::min(most, x.dim(0) - first);
    const int64_t stride = InBlocks(count);
    inputs.Round(heads * count, count,
                 [&](int64_t i) { return x.row<float>(first + i % count, i / count); });
    context.ParallelForShared(heads * units, WorkOf(count, heads * rows, w.cols),
                              [&](int64_t begin, int64_t end, int) {
                                for (; begin < end; ++begin) {
                                  const int64_t head = begin / units;
                                  const int64_t row =
                                      w.packed_row + head * head_rows + row_begin;
                                  const int64_t tile = row / kTileRows + begin % units;
                                  if (tile * kTileRows >= row + rows) {
                                    continue;
                                  }
                                  RunTiles(context,
                                           {.codes = packed.codes,
                                            .steps = packed.steps,
                                            .leaves = packed.leaves,
                                            .row_begin = row,
                                            .row_end = row + rows,
                                            .x = inputs.rows(),
                                            .x_row = head * stride,
                                            .count = count,
                                            .out = out.row<float>(first, head),
                                            .out_stride = out.stride(0)},
                                           tile, tile + 1);
                                }
                              });
  }
}

}  // namespace tessera::kernels::cpu
