// Weights against many rows of x, written once for all instruction sets. Few rows:
// simd_few_rows.h. Included through simd_table.h only.
//
// A panel of kPanelRows weight rows and kPanelColumns columns, 32 KiB, is decoded and
// meets a pass of kPassItems rows of x, four by four: 16 multiply-adds for 8 loads, hence
// 32 of the 32 that a core with two 512-bit multipliers does in a cycle, as long as the
// loads come from a cache near. Sums of a block lie in L2 between two panels of a row, as
// 16 lanes, so that each output stays one chain of fused multiply-adds whatever the
// blocking: a load and a store for 32 multiply-adds. x comes at 128 / kPanelRows = 8
// bytes a cycle. Decoding a vector of 16 FP8 codes is about 2 cycles, as much as the
// multiply-adds of 4 rows of x: a sixteenth of the time at 64 rows, a fifth at 16.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_MANY_ROWS_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_MANY_ROWS_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

constexpr int64_t kPanelRows = 16;
constexpr int64_t kPanelColumns = 512;
constexpr int64_t kPassItems = 64;

// The parts of a task's scratch.
struct ManyScratch {
  float* panel;   // [kPanelRows, kPanelColumns]
  float* sums;    // [kPassItems, kPanelRows, 16], by block
  float* leaves;  // [kPassItems, kPanelRows, kMaxLeaves], by block
};
static_assert(kPanelRows * (kPanelColumns + kPassItems * (16 + kMaxLeaves)) <=
              kLinearScratchFloats);

struct Place {
  int64_t item;  // row of x, from the first of a pass on
  int64_t row;   // weight row, from the first of a panel on
};

// Columns of one leaf, and whether they begin or end it.
struct LeafPart {
  int32_t leaf;
  int64_t begin;
  int64_t count;
  bool first;
  bool last;
};

// Rows of x from `place` on against four rows of the panel.
template <int kX>
TESSERA_INLINE void AddPanelBlock(const LinearTask& task, const ManyScratch& scratch,
                                  const float* const* x, Place place, LeafPart part) {
  float* carried = scratch.sums + (place.item * kPanelRows + place.row * kX) * 16;
  V16 sums[kX][kWRows];
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      sums[j][o] = part.first ? Zero() : Load(carried + (j * kWRows + o) * 16);
    }
  }
  const float* w = scratch.panel + place.row * kPanelColumns;
  int64_t i = 0;
  for (; i + 16 <= part.count; i += 16) {
    V16 weights[kWRows];
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      weights[o] = Load(w + o * kPanelColumns + i);
    }
#pragma GCC unroll 4
    for (int j = 0; j < kX; ++j) {
      const V16 values = Load(x[j] + i);
#pragma GCC unroll 4
      for (int o = 0; o < kWRows; ++o) {
        sums[j][o] = Fma(values, weights[o], sums[j][o]);
      }
    }
  }
  if (i < part.count) {
#pragma GCC unroll 4
    for (int j = 0; j < kX; ++j) {
      const V16 values = LoadFirst(x[j] + i, part.count - i);
#pragma GCC unroll 4
      for (int o = 0; o < kWRows; ++o) {
        sums[j][o] = Fma(values, Load(w + o * kPanelColumns + i), sums[j][o]);
      }
    }
  }
  if (part.last) {
    float* leaves =
        scratch.leaves + (place.item * kPanelRows + place.row * kX) * task.num_leaves;
    ReduceBlock<kX>(sums, reinterpret_cast<float(*)[kWRows]>(leaves) + part.leaf * kX);
    return;
  }
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      Store(sums[j][o], carried + (j * kWRows + o) * 16);
    }
  }
}

// kX rows of x, `item` of the pass from `first_item` on, against `rows` rows of the
// panel, a multiple of four.
template <int kX>
TESSERA_APART void AddPanel(const LinearTask& task, const ManyScratch& scratch,
                            int64_t first_item, int64_t item, LeafPart part,
                            int64_t rows) {
  const float* x[kX];
  PointAtX<kX>(task, first_item + item, x);
  for (int j = 0; j < kX; ++j) {
    x[j] += part.begin;
  }
  for (int64_t row = 0; row < rows; row += kWRows) {
    AddPanelBlock<kX>(task, scratch, x, {item, row}, part);
  }
}

// A part of a leaf: decodes it and adds it to the sums of a pass.
void AddLeafPart(const LinearTask& task, const ManyScratch& scratch, Place from,
                 LeafPart part, int64_t items, int64_t rows) {
  const int64_t padded = (rows + kWRows - 1) / kWRows * kWRows;
  // Columns that come next, of these rows or of those of the next panel: rows lie apart,
  // which the processor does not follow.
  const WeightRows& w = task.weights;
  const bool ends = part.begin + part.count == task.leaf_begin[task.num_leaves];
  const uint8_t* next = ends ? w.data + (from.row + kPanelRows) * w.row_bytes
                             : w.data + from.row * w.row_bytes +
                                   CodeBytes(w.format, part.begin + part.count);
  const int64_t bytes = CodeBytes(w.format, kPanelColumns);
  for (int64_t i = 0; i < padded; ++i) {  // the last row stands in for missing ones
    for (int64_t at = 0; at < bytes; at += 64) {
      __builtin_prefetch(next + i * w.row_bytes + at, 0, 2);
    }
    DecodePadded(task.weights, from.row + Smaller(i, rows - 1), part.begin, part.count,
                 scratch.panel + i * kPanelColumns);
  }
  ForEachItems(items, [&]<int kX>(int64_t item) {
    AddPanel<kX>(task, scratch, from.item, item, part, padded);
  });
}

// `rows` weight rows from from.row on against `items` rows of x from from.item on.
void LinearOfPass(const LinearTask& task, const ManyScratch& scratch, Place from,
                  int64_t items, int64_t rows) {
  for (int32_t leaf = 0; leaf < task.num_leaves; ++leaf) {
    const int64_t end = task.leaf_begin[leaf + 1];
    int64_t begin = task.leaf_begin[leaf];
    do {  // a leaf without columns has sums of zero
      const int64_t count = Smaller(kPanelColumns, end - begin);
      AddLeafPart(
          task, scratch, from,
          {leaf, begin, count, begin == task.leaf_begin[leaf], begin + count == end},
          items, rows);
      begin += count;
    } while (begin < end);
  }
  ForEachItems(items, [&]<int kX>(int64_t item) {
    for (int64_t row = 0; row < rows; row += kWRows) {
      float* leaves = scratch.leaves + (item * kPanelRows + row * kX) * task.num_leaves;
      StoreTree<kX>(task, reinterpret_cast<float(*)[kX][kWRows]>(leaves),
                    from.item + item, from.row + row, Smaller(kWRows, rows - row));
    }
  });
}

// Any task.
void LinearOfMany(const LinearTask& task) {
  ManyScratch scratch;
  scratch.panel = task.scratch;
  scratch.sums = scratch.panel + kPanelRows * kPanelColumns;
  scratch.leaves = scratch.sums + kPassItems * kPanelRows * 16;
  for (int64_t item = 0; item < task.count; item += kPassItems) {
    const int64_t items = Smaller(kPassItems, task.count - item);
    for (int64_t row = task.row_begin; row < task.row_end; row += kPanelRows) {
      LinearOfPass(task, scratch, {item, row}, items,
                   Smaller(kPanelRows, task.row_end - row));
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_MANY_ROWS_H_
