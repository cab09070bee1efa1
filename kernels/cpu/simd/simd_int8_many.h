// Packed e2m1 weights against many rows of activations in 8 bits, written once for all
// instruction sets: four weight rows are unpacked once, into L1, and meet every row of x.
// The sums are those of simd_int8.h. Included through simd_table.h only.
//
// Per 512 weights of four rows and two rows of x on AVX-512 with VNNI: 48 loads (2 a
// cycle), 64 dot products, 8 products of scales and 8 multiply-adds (2 a cycle on the
// same ports), 8 conversions: 40 cycles for 4096 products, 102 a cycle of the 128 that
// dot products alone would be. x comes from L2 at 32 bytes a cycle. Unpacking four rows
// takes about 60 cycles, an eighth of the time at 16 rows of x.
//
// On AVX2 the same is 128 products of bytes and 16 of words (2 a cycle), 128 sums (4 a
// cycle with all else), 16 conversions and 32 of scales: 80 cycles. A sum of words holds
// a whole group, so that it becomes a sum of 32 bits once, not for every product: 51
// products a cycle, where the usual chain of three instructions has 32.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_INT8_MANY_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_INT8_MANY_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// A block of a weight row in scratch: its runs of bytes, then its scales.
constexpr int64_t kInt8UnpackedBytes = (kInt8Runs + 1) * 64;
// Blocks that are unpacked at a time: 18 KiB for four weight rows.
constexpr int64_t kInt8PanelBlocks = 8;
// Rows of x whose sums wait, as 16 lanes, between two panels of a weight row.
constexpr int64_t kInt8PassItems = 64;
// From how many rows of x on unpacking first is the faster way: where registers hold one
// row of x, a second would unpack the weights again.
constexpr int64_t kInt8ManyRows = kXRows == 4 ? 4 : 2;
static_assert(kWRows *
                  (kInt8PanelBlocks * kInt8UnpackedBytes / 4 + kInt8PassItems * 16) <=
              kLinearScratchFloats);

struct Int8Panel {
  uint8_t* unpacked;  // [kInt8PanelBlocks, kWRows, kInt8UnpackedBytes]
  float* sums;        // [kInt8PassItems, kWRows, 16]
  int64_t block;      // the first one
  int64_t blocks;
  int64_t row;    // of the weights
  int64_t count;  // rows that exist; the last one stands in for missing ones
};

void UnpackPanel(const Int8Task& task, const Int8Panel& panel) {
  const WeightRows& w = task.weights;
  for (int64_t o = 0; o < kWRows; ++o) {
    const int64_t row = panel.row + Smaller(o, panel.count - 1);
    const uint8_t* codes = w.data + row * w.row_bytes;
    const uint8_t* scales = w.scales + (w.row_offset + row) * w.scale_stride +
                            w.col_offset / kInt8GroupValues;
    for (int64_t i = 0; i < panel.blocks; ++i) {
      const int64_t block = panel.block + i;
      const uint8_t* at = codes + block * kInt8BlockBytes;
      for (int64_t line = 0; line < kInt8BlockBytes; line += 64) {
        __builtin_prefetch(at + kWRows * w.row_bytes + line, 0, 2);
      }
      const int64_t bytes = task.inputs / 2 - block * kInt8BlockBytes;
      Int8Block unpacked;
      if (bytes >= kInt8BlockBytes) {
        UnpackBlock<true>(at, scales + block * 16, kInt8BlockBytes, &unpacked);
      } else {
        UnpackBlock<false>(at, scales + block * 16, bytes, &unpacked);
      }
      uint8_t* to = panel.unpacked + (i * kWRows + o) * kInt8UnpackedBytes;
#pragma GCC unroll 8
      for (int run = 0; run < kInt8Runs; ++run) {
        StoreBytes(unpacked.runs[run], to + 64 * run);
      }
      Store(unpacked.scales, reinterpret_cast<float*>(to + 64 * kInt8Runs));
    }
  }
}

// One block of kX rows of x, from block `first` of x on, against four weight rows at `w`.
template <int kX>
TESSERA_INLINE void AddUnpacked(const Int8Rows& x, int64_t first, const uint8_t* w,
                                V16 (*sums)[kWRows]) {
#pragma GCC unroll 2
  for (int part = 0; part < kDotParts; ++part) {
    DotPart dots[kX][kWRows];
#pragma GCC unroll 4
    for (int j = 0; j < kX; ++j) {
      const DotPart offsets = LoadPart(x.offsets + (first + j * x.blocks) * 16, part);
#pragma GCC unroll 4
      for (int o = 0; o < kWRows; ++o) {
        dots[j][o] = offsets;
      }
    }
#pragma GCC unroll 8
    for (int run = 0; run < kInt8Runs; ++run) {
      DotPart codes[kX];
#pragma GCC unroll 4
      for (int j = 0; j < kX; ++j) {
        codes[j] = LoadPart(
            x.codes + (first + j * x.blocks) * kInt8BlockValues + 64 * run, part);
      }
#pragma GCC unroll 4
      for (int o = 0; o < kWRows; ++o) {
        const DotPart weights = LoadPart(w + o * kInt8UnpackedBytes + 64 * run, part);
#pragma GCC unroll 4
        for (int j = 0; j < kX; ++j) {
          dots[j][o] = AddDots(dots[j][o], weights, codes[j]);
        }
      }
    }
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      const auto* at =
          reinterpret_cast<const float*>(w + o * kInt8UnpackedBytes + 64 * kInt8Runs);
      const FloatPart scales = LoadFloatPart(at, part);
#pragma GCC unroll 4
      for (int j = 0; j < kX; ++j) {
        const FloatPart factor =
            MulPart(scales, LoadFloatPart(x.scales + (first + j * x.blocks) * 16, part));
        SetPart(&sums[j][o], part,
                FmaPart(FloatsOf(dots[j][o]), factor, PartOf(sums[j][o], part)));
      }
    }
  }
}

// kX rows of x from `item` of the pass on, which begins at row `first_item`.
template <int kX>
TESSERA_APART void Int8Unpacked(const Int8Task& task, const Int8Panel& panel,
                                int64_t first_item, int64_t item) {
  float* carried = panel.sums + item * kWRows * 16;
  V16 sums[kX][kWRows];
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      sums[j][o] = panel.block == 0 ? Zero() : Load(carried + (j * kWRows + o) * 16);
    }
  }
  const int64_t t = first_item + item;
  for (int64_t i = 0; i < panel.blocks; ++i) {
    AddUnpacked<kX>(task.x, t * task.x.blocks + panel.block + i,
                    panel.unpacked + i * kWRows * kInt8UnpackedBytes, sums);
  }
  const bool last = panel.block + panel.blocks == task.x.blocks;
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
    if (last) {
      float results[kWRows];
      Reduce4(sums[j][0], sums[j][1], sums[j][2], sums[j][3], results);
      for (int64_t o = 0; o < panel.count; ++o) {
        task.out[(t + j) * task.out_stride + panel.row + o] = results[o];
      }
      continue;
    }
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      Store(sums[j][o], carried + (j * kWRows + o) * 16);
    }
  }
}

void Int8Pass(const Int8Task& task, int64_t first_item, int64_t items, Int8Panel panel) {
  for (panel.block = 0; panel.block < task.x.blocks; panel.block += kInt8PanelBlocks) {
    panel.blocks = Smaller(kInt8PanelBlocks, task.x.blocks - panel.block);
    UnpackPanel(task, panel);
    int64_t item = 0;
    for (; item + kInt8XRows <= items; item += kInt8XRows) {
      Int8Unpacked<kInt8XRows>(task, panel, first_item, item);
    }
    for (; item < items; ++item) {
      Int8Unpacked<1>(task, panel, first_item, item);
    }
  }
}

void Int8Linear(const Int8Task& task) {
  if (task.count < kInt8ManyRows) {
    Int8LinearOfFew(task);
    return;
  }
  Int8Panel panel = {};
  panel.sums = task.scratch;
  panel.unpacked =
      reinterpret_cast<uint8_t*>(task.scratch + kInt8PassItems * kWRows * 16);
  for (int64_t item = 0; item < task.count; item += kInt8PassItems) {
    const int64_t items = Smaller(kInt8PassItems, task.count - item);
    for (panel.row = task.row_begin; panel.row < task.row_end; panel.row += kWRows) {
      panel.count = Smaller(kWRows, task.row_end - panel.row);
      Int8Pass(task, item, items, panel);
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_INT8_MANY_H_
