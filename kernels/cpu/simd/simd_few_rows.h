// Weights against a few rows of x, written once for all instruction sets: which tasks
// take this way, their scales, and the blocks of rows. With few rows decoding is most of
// the work, and a panel of four decoded rows does not fit L1 from about 3000 inputs on.
// Included through simd_table.h only.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_FEW_ROWS_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_FEW_ROWS_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// kX rows of x from `t` on against the `count` weight rows from `row` on.
template <WeightFormat kFormat, int kX>
void StoredBlock(const LinearTask& task, const StoredRows& w, int64_t t, int64_t row,
                 int64_t count) {
  float sums[kMaxLeaves][kX][kWRows];
  const float* x[kX];
  PointAtX<kX>(task, t, x);
  for (int32_t leaf = 0; leaf < task.num_leaves; ++leaf) {
    StoredDot<kFormat, kX>(w, x, {task.leaf_begin[leaf], task.leaf_begin[leaf + 1]},
                           sums[leaf]);
  }
  StoreTree<kX>(task, sums, t, row, count);
}

template <WeightFormat kFormat>
void StoredBlocks(const LinearTask& task, const StoredRows& w, int64_t row,
                  int64_t count) {
  ForEachItems(task.count, [&]<int kX>(int64_t t) {
    StoredBlock<kFormat, kX>(task, w, t, row, count);
  });
}

// Whether LinearOfFew takes a task: few rows, and no sixteen columns with two scales.
bool IsForFew(const LinearTask& task) {
  const WeightRows& w = task.weights;
  if (task.count >= 2 * kXRows ||
      IsScaled(w.format) != (w.scale_format != ScaleFormat::kNone)) {
    return false;
  }
  if (!IsScaled(w.format)) {
    return true;
  }
  bool aligned = w.block_cols % 16 == 0;
  for (int32_t leaf = 0; leaf < task.num_leaves; ++leaf) {
    aligned = aligned && (w.col_offset + task.leaf_begin[leaf]) % 16 == 0;
  }
  return aligned;
}

// Decodes rows of scales into scratch, each once for the weight rows that share it. It
// stays there for kWRows weight rows at least.
struct ScaleRows {
  static constexpr int64_t kSlots = 2 * kWRows;
  const WeightRows& w;
  int64_t first;  // block of column 0
  int64_t count;  // blocks
  float* slots;   // kSlots rows of scales
  int64_t decoded = 0;
  int64_t shared = 0;  // the last scales are those of the weight rows below this one
  const float* last = nullptr;
  bool fit = true;  // false once a scale times ScaleFactor is infinite

  explicit ScaleRows(const LinearTask& task)
      : w(task.weights),
        first(IsScaled(w.format) ? w.col_offset / w.block_cols : 0),
        count(IsScaled(w.format)
                  ? (w.col_offset + task.leaf_begin[task.num_leaves] - 1) / w.block_cols +
                        1 - first
                  : 0),
        slots(task.scratch) {}

  // Scales of a weight row; rows are asked for in rising order.
  const float* Of(int64_t row) {
    if (last == nullptr || row >= shared) {
      const int64_t scale_row = (w.row_offset + row) / w.block_rows;
      shared = (scale_row + 1) * w.block_rows - w.row_offset;
      float* slot = slots + decoded++ % kSlots * RoundUp16(count);
      Decode(scale_row * w.scale_stride + first, slot);
      last = slot;
    }
    return last;
  }

  void Decode(int64_t at, float* out) {
    const float factor = ScaleFactor(w.format);
    V16 largest = Zero();
    for (int64_t i = 0; i < count; i += 16) {
      const int64_t rest = Smaller(count - i, 16);
      V16 scales;
      if (w.scale_format == ScaleFormat::kE8M0) {
        scales = DecodeFirstE8M0(w.scales + at + i, rest);
      } else {
        float values[16] = {};
        __builtin_memcpy(values, w.scales + (at + i) * 4,
                         4 * static_cast<uint64_t>(rest));
        scales = Load(values);
      }
      scales = Mul(scales, Set(factor));
      largest = Max(largest, Abs(scales));
      Store(scales, out + i);
    }
    if (factor == 1.0F) {
      return;
    }
    float lanes[16];
    Store(largest, lanes);
    for (const float lane : lanes) {
      fit &= lane != __builtin_inff();
    }
  }
};

// Four weight rows at a time, then single ones.
template <WeightFormat kFormat>
void LinearOfFew(const LinearTask& task) {
  const WeightRows& w = task.weights;
  const int64_t bytes_ahead = BytesAhead(w.row_bytes);
  ScaleRows scales(task);
  for (int64_t row = task.row_begin; row < task.row_end;) {
    const int64_t count = row + kWRows <= task.row_end ? kWRows : 1;
    StoredRows rows = {.codes = w.data + row * w.row_bytes,
                       .row_bytes = count == kWRows ? w.row_bytes : 0,
                       .scales = {},
                       .block_cols = w.block_cols,
                       .col_offset = w.col_offset,
                       .bytes_ahead = bytes_ahead};
    if constexpr (IsScaled(kFormat)) {
      for (int64_t o = 0; o < kWRows; ++o) {
        rows.scales[o] = scales.Of(row + Smaller(o, count - 1));
      }
      if (!scales.fit) {
        LinearTask rest = task;
        rest.row_begin = row;
        LinearOfMany(rest);
        return;
      }
    }
    StoredBlocks<kFormat>(task, rows, row, count);
    row += count;
  }
}

void Linear(const LinearTask& task) {
  if (!IsForFew(task)) {
    return LinearOfMany(task);
  }
  switch (task.weights.format) {
    case WeightFormat::kF32:
      return LinearOfFew<WeightFormat::kF32>(task);
    case WeightFormat::kBf16:
      return LinearOfFew<WeightFormat::kBf16>(task);
    case WeightFormat::kF8E4M3:
      return LinearOfFew<WeightFormat::kF8E4M3>(task);
    case WeightFormat::kFp4:
      return LinearOfFew<WeightFormat::kFp4>(task);
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_FEW_ROWS_H_
