// Packed e2m1 weights against rows of activations in 8 bits, written once for all
// instruction sets. Included through simd_table.h only. Layout and sums: Int8Rows and
// Int8Task in simd_ops.h.
//
// Per 512 weights of a row (256 bytes): 4 loads, 8 shuffles that bring the words of a
// group into one lane, 12 instructions that split nibbles, 8 lookups; per row of x on
// them 8 dot products (VNNI) and 4 instructions of scales. About 44 instructions of one
// row of x for 256 bytes: at two to three a cycle, 12 to 17 bytes, which is more than a
// core reads from memory.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_INT8_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_INT8_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

constexpr int kInt8Runs = 8;              // of 64 bytes in a block of activations
constexpr int64_t kInt8BlockBytes = 256;  // of weights
constexpr int64_t kInt8GroupBytes = 16;

// ---- activations ----

// The largest magnitude of a group; NaN if a value is not finite.
TESSERA_INLINE float LargestOfGroup(const float* x) {
  const uint32_t bits = LargestBits(Load(x), Load(x + 16));
  float largest;
  __builtin_memcpy(&largest, &bits, sizeof(largest));
  return bits < 0x7f800000U ? largest : __builtin_nanf("");
}

// One group of 32 values at lane `lane` of a block.
TESSERA_INLINE void QuantizeGroup(const float* x, int64_t lane, int8_t* codes,
                                  float* scale, int32_t* offset) {
  const float largest = LargestOfGroup(x);
  const bool zero = largest < 0x1p-100F;
  const V16 inverse = Set(zero ? 0.0F : 127.0F / largest);
  // A small number plus 1.5 * 2^23 is rounded to a whole one, which is then in the low
  // bits, as two's complement. Of a group that is not finite nothing but the scale
  // counts.
  const V16 anchor = Set(0x1.8p23F);
  GroupWords group;
  PackGroup(Add(Mul(Load(x), inverse), anchor), Add(Mul(Load(x + 16), inverse), anchor),
            &group);
#pragma GCC unroll 8
  for (int64_t run = 0; run < kInt8Runs; ++run) {
    __builtin_memcpy(codes + run * 64 + lane * 4, &group.words[run],
                     sizeof(group.words[run]));
  }
  *scale = zero ? 0.0F : 0.5F * (largest / 127.0F);
  *offset = DotOffset(group.first, group.second);
}

void QuantizeInt8(const float* x, int64_t n, const Int8Rows& out, int64_t row) {
  const int64_t groups = n / kInt8GroupValues;
  for (int64_t block = 0; block < out.blocks; ++block) {
    int8_t* codes = out.codes + (row * out.blocks + block) * kInt8BlockValues;
    float* scales = out.scales + (row * out.blocks + block) * 16;
    int32_t* offsets = out.offsets + (row * out.blocks + block) * 16;
    if ((block + 1) * 16 > groups) {
      __builtin_memset(codes, 0, kInt8BlockValues);
      __builtin_memset(scales, 0, 16 * sizeof(float));
      __builtin_memset(offsets, 0, 16 * sizeof(int32_t));
    }
    for (int64_t lane = 0; lane < 16; ++lane) {
      const int64_t group = block * 16 + Int8GroupOfLane(lane);
      if (group < groups) {
        QuantizeGroup(x + group * kInt8GroupValues, lane, codes, scales + lane,
                      offsets + lane);
      }
    }
  }
}

// ---- products ----

// A block of a weight row: values 2 w + 12 as unsigned bytes in the layout of Int8Rows,
// and the scales by lane.
struct Int8Block {
  I16 runs[kInt8Runs];
  V16 scales;
};

// `bytes` of the block exist, a multiple of those of a group, or all; nothing beyond is
// read.
template <bool kWhole>
TESSERA_INLINE void UnpackBlock(const uint8_t* codes, const uint8_t* scales,
                                int64_t bytes, Int8Block* out) {
  I16 words[4];  // groups 4 r..4 r + 3, four words each
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    if constexpr (kWhole) {
      words[r] = LoadBytes(codes + 64 * r);
    } else {
      words[r] =
          64 * r < bytes ? LoadFirstBytes(codes + 64 * r, bytes - 64 * r) : ZeroInts();
    }
  }
  TransposeWords(words);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    out->runs[2 * j] = Fp4Steps(LowNibbles(words[j]));
    out->runs[2 * j + 1] = Fp4Steps(HighNibbles(words[j]));
  }
  out->scales = DecodeLaneE8M0(scales, kWhole ? 16 : bytes / kInt8GroupBytes);
}

// How far ahead of the loads weights are asked for, in rows: what memory brings to a core
// in the time that one line takes is 8 to 16 KiB.
constexpr int64_t kInt8RowsAhead = 16;

// Asks for `bytes` of codes, and every fourth time for the scales of four blocks.
TESSERA_INLINE void AskForBlock(const uint8_t* codes, const uint8_t* scales,
                                int64_t block, int64_t bytes) {
#pragma GCC unroll 4
  for (int64_t line = 0; line < bytes; line += 64) {
    __builtin_prefetch(codes + block * kInt8BlockBytes + line, 0, 2);
  }
  if (block % 4 == 0) {
    __builtin_prefetch(scales + block * 16, 0, 2);
  }
}

// Adds a block to the sums of kX rows of x.
template <int kX>
TESSERA_INLINE void AddBlock(const Int8Block& w, const Int8Rows* x, int64_t block,
                             V16 (*sums)[kWRows], int o) {
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
    const int8_t* codes = x[j].codes + block * kInt8BlockValues;
#pragma GCC unroll 2
    for (int part = 0; part < kDotParts; ++part) {
      DotPart dots = LoadPart(x[j].offsets + block * 16, part);
#pragma GCC unroll 8
      for (int run = 0; run < kInt8Runs; ++run) {
        dots = AddDots(dots, PartOf(w.runs[run], part), LoadPart(codes + 64 * run, part));
      }
      const FloatPart factor =
          MulPart(PartOf(w.scales, part), LoadFloatPart(x[j].scales + block * 16, part));
      SetPart(&sums[j][o], part,
              FmaPart(FloatsOf(dots), factor, PartOf(sums[j][o], part)));
    }
  }
}

// kX rows of x against the `count` weight rows from `row` on.
template <int kX>
void Int8Strip(const Int8Task& task, int64_t t, int64_t row, int64_t count) {
  const WeightRows& w = task.weights;
  const uint8_t* codes[kWRows];
  const uint8_t* scales[kWRows];
  for (int64_t o = 0; o < kWRows; ++o) {
    const int64_t at = row + Smaller(o, count - 1);
    codes[o] = w.data + at * w.row_bytes;
    scales[o] =
        w.scales + (w.row_offset + at) * w.scale_stride + w.col_offset / kInt8GroupValues;
  }
  Int8Rows x[kX];
  for (int j = 0; j < kX; ++j) {
    const int64_t at = (t + j) * task.x.blocks;
    x[j] = {task.x.codes + at * kInt8BlockValues, task.x.scales + at * 16,
            task.x.offsets + at * 16, task.x.blocks};
  }
  V16 sums[kX][kWRows];
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      sums[j][o] = Zero();
    }
  }
  const int64_t whole = task.inputs / kInt8BlockValues;
  // A row after the other, as they lie in memory.
  const int64_t rest = task.inputs / 2 - whole * kInt8BlockBytes;
#pragma GCC unroll 4
  for (int o = 0; o < kWRows; ++o) {
    const uint8_t* const codes_ahead = codes[o] + kInt8RowsAhead * w.row_bytes;
    const uint8_t* const scales_ahead = scales[o] + kInt8RowsAhead * w.scale_stride;
    for (int64_t block = 0; block < whole; ++block) {
      AskForBlock(codes_ahead, scales_ahead, block, kInt8BlockBytes);
      Int8Block weights;
      UnpackBlock<true>(codes[o] + block * kInt8BlockBytes, scales[o] + block * 16,
                        kInt8BlockBytes, &weights);
      AddBlock<kX>(weights, x, block, sums, o);
    }
    if (rest > 0) {
      AskForBlock(codes_ahead, scales_ahead, whole, rest);
      Int8Block weights;
      UnpackBlock<false>(codes[o] + whole * kInt8BlockBytes, scales[o] + whole * 16, rest,
                         &weights);
      AddBlock<kX>(weights, x, whole, sums, o);
    }
  }
  float results[kX][kWRows];
  ReduceBlock<kX>(sums, results);
  for (int j = 0; j < kX; ++j) {
    for (int64_t o = 0; o < count; ++o) {
      task.out[(t + j) * task.out_stride + row + o] = results[j][o];
    }
  }
}

void Int8LinearOfFew(const Int8Task& task) {
  for (int64_t row = task.row_begin; row < task.row_end; row += kWRows) {
    const int64_t count = Smaller(kWRows, task.row_end - row);
    ForEachItems(task.count,
                 [&]<int kX>(int64_t t) { Int8Strip<kX>(task, t, row, count); });
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_INT8_H_
