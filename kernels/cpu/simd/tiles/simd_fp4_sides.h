// The two sides of the products of simd_tiles_fp4.h: words of 16 weight rows are
// transposed (64 shuffles for four groups) and become values (5 instructions a vector);
// words of a group of x are brought together (32 shuffles for a row of 16 groups).
#ifndef TESSERA_KERNELS_CPU_SIMD_TILES_SIMD_FP4_SIDES_H_
#define TESSERA_KERNELS_CPU_SIMD_TILES_SIMD_FP4_SIDES_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

constexpr int64_t kFp4BlockBytes = 256;  // of weights of 16 groups
constexpr int64_t kFp4Runs = 8;          // of 64 bytes in a block of x
static_assert(kInt8GroupValues == kRoundedGroup);

// Word w of vector r becomes word r of vector w.
TESSERA_INLINE void TransposeRows(I16* v) {
#pragma GCC unroll 4
  for (int a = 0; a < 4; ++a) {
    TransposeWords(v + 4 * a);
  }
  I16 out[16];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    I16 pieces[4] = {v[j], v[4 + j], v[8 + j], v[12 + j]};
    TransposePieces(pieces);
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      out[4 * p + j] = pieces[p];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    v[i] = out[i];
  }
}

// Two tiles of weights as right sides, by block and lane.
struct Fp4Panel {
  uint8_t* codes;  // [tiles, blocks, 16, 8 words, 16 rows, 4]
  float* scales;   // [tiles, blocks, 16, 16 rows]
  int64_t blocks;
  int64_t row;   // of the weights
  int64_t rows;  // that exist; the last one stands in for missing ones
};

TESSERA_APART void UnpackFp4Codes(const Int8Task& task, const int64_t* rows,
                                  int64_t block, uint8_t* codes) {
  const int64_t bytes = task.inputs / 2 - block * kFp4BlockBytes;
  for (int64_t r = 0; r < 4; ++r) {
    I16 words[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const uint8_t* at = task.weights.data + rows[i] * task.weights.row_bytes +
                          block * kFp4BlockBytes + 64 * r;
      words[i] = 64 * r < bytes ? LoadFirstBytes(at, bytes - 64 * r) : ZeroInts();
    }
    TransposeRows(words);
#pragma GCC unroll 16
    for (int w = 0; w < 16; ++w) {  // word w % 4 of group 4 r + w / 4
      uint8_t* to = codes + (w / 4 * 4 + r) * kRoundedGroupBytes + w % 4 * 128;
      StoreBytes(Fp4Steps(LowNibbles(words[w])), to);
      StoreBytes(Fp4Steps(HighNibbles(words[w])), to + 64);
    }
  }
}

TESSERA_APART void UnpackFp4Scales(const Int8Task& task, const int64_t* rows,
                                   int64_t block, float* scales) {
  const WeightRows& w = task.weights;
  const int64_t groups = task.inputs / kInt8GroupValues - block * 16;
  float by_row[16 * 16];
  for (int64_t i = 0; i < 16; ++i) {
    const uint8_t* at = w.scales + (w.row_offset + rows[i]) * w.scale_stride +
                        w.col_offset / kInt8GroupValues + block * 16;
    Store(DecodeLaneE8M0(at, Smaller(groups, 16)), by_row + 16 * i);
  }
  I16 words[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    words[i] = LoadBytes(by_row + 16 * i);
  }
  TransposeRows(words);
#pragma GCC unroll 16
  for (int lane = 0; lane < 16; ++lane) {
    StoreBytes(words[lane], reinterpret_cast<uint8_t*>(scales + 16 * lane));
  }
}

void UnpackFp4(const Int8Task& task, const Fp4Panel& panel, int64_t tiles) {
  for (int64_t t = 0; t < tiles; ++t) {
    int64_t rows[16];
    for (int64_t i = 0; i < 16; ++i) {
      rows[i] = panel.row + Smaller(16 * t + i, panel.rows - 1);
    }
    for (int64_t b = 0; b < panel.blocks; ++b) {
      const int64_t at = (t * panel.blocks + b) * 16;
      UnpackFp4Codes(task, rows, b, panel.codes + at * kRoundedGroupBytes);
      UnpackFp4Scales(task, rows, b, panel.scales + at * 16);
    }
  }
}

// Rows of x as left sides: of each block eight pairs of lanes, in them rows, each with
// the 32 bytes of either lane.
constexpr int64_t kFp4RowBytes = 64;
constexpr int64_t kFp4PairBytes = kRoundedBlockRows * kFp4RowBytes;
constexpr int64_t kFp4XBytes = 8 * kFp4PairBytes;  // of a block

TESSERA_INLINE int64_t Fp4LaneOffset(int64_t lane) {
  const int64_t j = lane % 4;
  return (j / 2 * 4 + lane / 4) * kFp4PairBytes + j % 2 * kRoundedGroup;
}

TESSERA_APART void GatherFp4Inputs(const Int8Rows& x, int64_t first, int64_t count,
                                   int8_t* out) {
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t b = 0; b < x.blocks; ++b) {
      const int8_t* codes = x.codes + ((first + row) * x.blocks + b) * kInt8BlockValues;
      I16 runs[kFp4Runs];
#pragma GCC unroll 8
      for (int r = 0; r < kFp4Runs; ++r) {
        runs[r] = LoadBytes(codes + 64 * r);
      }
      // Piece p of vector j: the words of runs 0 to 3, or 4 to 7, of lane 4 p + j.
      TransposeWords(runs);
      TransposeWords(runs + 4);
      int8_t* to = out + b * kFp4XBytes + row * kFp4RowBytes;
#pragma GCC unroll 2
      for (int pair = 0; pair < 2; ++pair) {
        const int j = 2 * pair;
        I16 pieces[4] = {runs[j], runs[4 + j], runs[j + 1], runs[5 + j]};
        TransposePieces(pieces);
#pragma GCC unroll 4
        for (int p = 0; p < 4; ++p) {
          StoreBytes(pieces[p],
                     reinterpret_cast<uint8_t*>(to + (4 * pair + p) * kFp4PairBytes));
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_TILES_SIMD_FP4_SIDES_H_
