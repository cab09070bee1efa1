// Weights against many rows of x, written once for all instruction sets: decode a panel
// of weight rows into scratch, then run every row of x over it. Few rows:
// simd_few_rows.h. Included through simd_table.h only.
//
// Bits do not depend on the blocking: each output element is its own chain of fused
// multiply-adds.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_LINEAR_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_LINEAR_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

constexpr int kWRows = 4;  // weight rows of one register block

// ---- dot products ----

// out[x row][weight row], the sums of the lanes.
template <int kX>
TESSERA_INLINE void ReduceBlock(const V16 (*sums)[kWRows], float (*out)[kWRows]) {
  if constexpr (kX == 4) {
    Reduce16(sums, out);
  } else {
#pragma GCC unroll 4
    for (int j = 0; j < kX; ++j) {
      Reduce4(sums[j][0], sums[j][1], sums[j][2], sums[j][3], out[j]);
    }
  }
}

// out[x row][weight row] of kX rows of x against four weight rows that are padded to 16
// with zeros.
template <int kX>
TESSERA_INLINE void DotBlock(const float* const* w, const float* const* x, int64_t n,
                             float (*out)[kWRows]) {
  V16 sums[kX][kWRows];
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      sums[j][o] = Zero();
    }
  }
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const V16 weights[kWRows] = {Load(w[0] + i), Load(w[1] + i), Load(w[2] + i),
                                 Load(w[3] + i)};
#pragma GCC unroll 4
    for (int j = 0; j < kX; ++j) {
      const V16 values = Load(x[j] + i);
#pragma GCC unroll 4
      for (int o = 0; o < kWRows; ++o) {
        sums[j][o] = Fma(values, weights[o], sums[j][o]);
      }
    }
  }
  if (i < n) {
#pragma GCC unroll 4
    for (int j = 0; j < kX; ++j) {
      const V16 values = LoadFirst(x[j] + i, n - i);
#pragma GCC unroll 4
      for (int o = 0; o < kWRows; ++o) {
        sums[j][o] = Fma(values, Load(w[o] + i), sums[j][o]);
      }
    }
  }
  ReduceBlock<kX>(sums, out);
}

// Rows of x from `t` on. Two loops, since of one the compiler makes a masked load from
// x_rows, which takes hundreds of cycles where that is null.
template <int kX>
TESSERA_INLINE void PointAtX(const LinearTask& task, int64_t t, const float** x) {
  if (task.x_rows == nullptr) {
    for (int j = 0; j < kX; ++j) {
      x[j] = task.x + (t + j) * task.x_stride;
    }
    return;
  }
  for (int j = 0; j < kX; ++j) {
    x[j] = task.x + task.x_rows[t + j] * task.x_stride;
  }
}

// Calls visit.operator()<kX>(item) for `items` rows of x, as many at a time as registers
// hold.
template <typename Visit>
TESSERA_INLINE void ForEachItems(int64_t items, const Visit& visit) {
  int64_t item = 0;
  if constexpr (kXRows == 4) {
    for (; item + 4 <= items; item += 4) {
      visit.template operator()<4>(item);
    }
    if (item + 2 <= items) {
      visit.template operator()<2>(item);
      item += 2;
    }
  }
  for (; item < items; ++item) {
    visit.template operator()<1>(item);
  }
}

// Adds the leaves as a tree, and stores the `count` results that exist of each of kX
// rows from `t` on.
template <int kX>
void StoreTree(const LinearTask& task, float (*sums)[kX][kWRows], int64_t t, int64_t row,
               int64_t count) {
  for (int32_t distance = 1; distance < task.num_leaves; distance *= 2) {
    for (int32_t leaf = 0; leaf < task.num_leaves; leaf += 2 * distance) {
      for (int j = 0; j < kX; ++j) {
        for (int o = 0; o < kWRows; ++o) {
          sums[leaf][j][o] += sums[leaf + distance][j][o];
        }
      }
    }
  }
  for (int j = 0; j < kX; ++j) {
    float* out = task.out + (t + j) * task.out_stride + row;
    for (int64_t o = 0; o < count; ++o) {
      out[o] = sums[0][j][o];
    }
  }
}

// ---- contraction over the rows of a weight ----

// kC vectors of columns of kX rows of x; `panel` holds the decoded rows, `stride` apart.
template <int kX, int kC>
TESSERA_INLINE void TransposedBlock(const TransposedTask& task, int64_t t,
                                    const float* panel, int64_t stride, float* out,
                                    int64_t columns) {
  const float* x = task.x + t * task.x_stride;
  V16 sums[kX][kC];
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      sums[j][c] = Zero();
    }
  }
  for (int64_t i = 0; i < task.rows; ++i) {
    V16 weights[kC];
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      weights[c] = Load(panel + i * stride + 16 * c);
    }
#pragma GCC unroll 4
    for (int j = 0; j < kX; ++j) {
      const V16 factor = Set(x[j * task.x_stride + i]);
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) {
        sums[j][c] = Fma(factor, weights[c], sums[j][c]);
      }
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      const int64_t rest = columns - 16 * c;
      StoreFirst(sums[j][c], out + j * task.out_stride + 16 * c, Smaller(rest, 16));
    }
  }
}

// kX rows of x from `t` on against the columns of a panel, which begin at column `col`.
template <int kX>
TESSERA_APART void TransposedRows(const TransposedTask& task, int64_t t, int64_t col,
                                  int64_t columns) {
  const int64_t stride = RoundUp16(columns);
  float* out = task.out + t * task.out_stride + col;
  int64_t c = 0;
  for (; c + 64 <= stride; c += 64) {
    TransposedBlock<kX, 4>(task, t, task.scratch + c, stride, out + c, columns - c);
  }
  for (; c < stride; c += 16) {
    TransposedBlock<kX, 1>(task, t, task.scratch + c, stride, out + c, columns - c);
  }
}

// How far ahead codes are asked for, at least: with 2 KiB a core waited half of its time
// for rows of 512 bytes.
constexpr int64_t kBytesAhead = 4096;

// Columns of e4m3 codes that TransposedF8 takes at a time.
constexpr int64_t kF8Columns = 64;

// Adds x[i] w[i][c] of kRows weight rows, i rising, to out[c] of `columns` columns of one
// scale. `first`: out begins at zero.
template <int kRows>
TESSERA_INLINE void AddRowsF8(const uint8_t* codes, int64_t row_bytes, const float* x,
                              V16 factor, bool first, int64_t columns, float* out,
                              I16* largest) {
  for (int64_t col = 0; col < columns; col += kF8Columns) {
    V16 sums[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      sums[c] = first ? Zero() : Load(out + col + 16 * c);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      const uint8_t* const at = codes + i * row_bytes + col;
      V16 values[4];
      DecodeFiniteF8(at, values);
      DecodeFiniteF8(at + 32, values + 2);
      *largest = LargerF8(*largest, LoadBytes(at));
      __builtin_prefetch(at + kBytesAhead, 0, 2);
      const V16 row_factor = Set(x[i]);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        sums[c] = Fma(row_factor, Mul(values[c], factor), sums[c]);
      }
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      Store(sums[c], out + col + 16 * c);
    }
  }
}

// One row of x against e4m3 codes that are decoded on the way, in the order in which they
// lie: a panel is written to L2 and read again, which takes twice as long. False, and
// `out` has to be made another way, where 64 columns have more than one scale or a value
// is no number.
TESSERA_APART bool TransposedF8(const TransposedTask& task) {
  constexpr int64_t kRows = 4;
  const WeightRows& w = task.weights;
  if (task.count != 1 || w.format != WeightFormat::kF8E4M3 ||
      w.scale_format == ScaleFormat::kNone || w.block_cols % kF8Columns != 0 ||
      (w.col_offset + task.col_begin) % kF8Columns != 0 ||
      (task.col_end - task.col_begin) % kF8Columns != 0) {
    return false;
  }
  const uint8_t* const codes = w.data + task.row_begin * w.row_bytes;
  const int64_t first_row = w.row_offset + task.row_begin;
  I16 largest = ZeroInts();
  for (int64_t i = 0; i < task.rows;) {
    const int64_t scale_row = (first_row + i) / w.block_rows;
    const int64_t left =
        Smaller(task.rows, (scale_row + 1) * w.block_rows - first_row) - i;
    for (int64_t col = task.col_begin; col < task.col_end;) {
      const int64_t block = (w.col_offset + col) / w.block_cols;
      const int64_t end =
          Smaller(task.col_end, (block + 1) * w.block_cols - w.col_offset);
      const float scale = ScaleAt(w, scale_row * w.scale_stride + block) * 256.0F;
      if (scale == __builtin_inff()) {
        return false;
      }
      const uint8_t* const at = codes + i * w.row_bytes + col;
      if (left >= kRows) {
        AddRowsF8<kRows>(at, w.row_bytes, task.x + i, Set(scale), i == 0, end - col,
                         task.out + col, &largest);
      } else {
        AddRowsF8<1>(at, w.row_bytes, task.x + i, Set(scale), i == 0, end - col,
                     task.out + col, &largest);
      }
      col = end;
    }
    i += left >= kRows ? kRows : 1;
  }
  return !HoldsNanF8(largest);
}

void LinearTransposed(const TransposedTask& task) {
  if (TransposedF8(task)) {
    return;
  }
  // Many rows of x meet a panel that lies in L1, 32 KiB of 128 weight rows; its rows
  // follow each other, since those of a wide one would share few places of that cache.
  constexpr int64_t kManyRows = 8;
  constexpr int64_t kNarrow = 64;
  const int64_t most = task.scratch_floats / task.rows / 16 * 16;
  const int64_t width = task.count < kManyRows ? most : Smaller(most, kNarrow);
  for (int64_t col = task.col_begin; col < task.col_end; col += width) {
    const int64_t columns = Smaller(width, task.col_end - col);
    const int64_t stride = RoundUp16(columns);
    for (int64_t i = 0; i < task.rows; ++i) {
      DecodePadded(task.weights, task.row_begin + i, col, columns,
                   task.scratch + i * stride);
    }
    ForEachItems(task.count,
                 [&]<int kX>(int64_t t) { TransposedRows<kX>(task, t, col, columns); });
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_LINEAR_H_
