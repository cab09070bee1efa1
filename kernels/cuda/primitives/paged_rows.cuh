// Paged caches on the device: where the row of a position lies, and its values as
// float32, whatever the format of the rows (row_format.h).
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_PAGED_ROWS_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_PAGED_ROWS_CUH_

#include <cstdint>

#include "kernels/cache_view.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"
#include "kernels/op_args.h"

namespace tessera::kernels::cuda {

struct DevicePages {
  DeviceRows<const int32_t> block_tables;
  DeviceRows<const int32_t> sequence_of_row;
  DeviceRows<const int32_t> positions;
  int64_t block_size = 1;

  // Row of the cache, counted through all blocks, of a position of query t's sequence.
  TESSERA_DEVICE int64_t RowOf(Thread& thread, int64_t t, int64_t position) const {
    const int64_t sequence = thread.Load(sequence_of_row.span, sequence_of_row.Begin(t));
    const int64_t block = thread.Load(
        block_tables.span, block_tables.Begin(sequence) + position / block_size);
    return block * block_size + position % block_size;
  }
};

inline DevicePages PagesOf(const PagedIndex& index) {
  return {RowsOf<const int32_t>(index.block_tables),
          ColumnOf<const int32_t>(index.sequence_of_row),
          ColumnOf<const int32_t>(index.positions), index.block_size};
}

struct DeviceCache {
  DeviceRows<const float> plain;     // of rows of activations
  DeviceRows<const uint8_t> packed;  // of packed ones
  RowCode code = RowCode::kPlain;
  RowScale scale = RowScale::kE8M0;
  int64_t coded = 0;
  int64_t group = 1;
  int64_t scales_begin = 0;
  int64_t rest_begin = 0;

  TESSERA_DEVICE float ScaleOf(Thread& thread, int64_t begin, int64_t group_idx) const {
    if (scale == RowScale::kF32) {
      uint32_t bits = 0;  // rows may begin anywhere
      for (int64_t byte = 0; byte < 4; ++byte) {
        bits |= uint32_t{thread.Load(packed.span,
                                     begin + scales_begin + 4 * group_idx + byte)}
                << (8 * byte);
      }
      return FloatOfBits(bits);
    }
    const uint32_t stored = thread.Load(packed.span, begin + scales_begin + group_idx);
    return scale == RowScale::kE8M0 ? DecodeE8M0(stored) : DecodeE4M3(stored);
  }

  // Value i of a row.
  TESSERA_DEVICE float Value(Thread& thread, int64_t row, int64_t i) const {
    if (code == RowCode::kPlain) {
      return thread.Load(plain.span, plain.Begin(row) + i);
    }
    const int64_t begin = packed.Begin(row);
    if (i >= coded) {
      const int64_t at = begin + rest_begin + 2 * (i - coded);
      const uint32_t low = thread.Load(packed.span, at);
      const uint32_t high = thread.Load(packed.span, at + 1);
      return FloatOfBits(low << 16 | high << 24);
    }
    const float factor = ScaleOf(thread, begin, i / group);
    if (code == RowCode::kE4M3) {
      return DecodeE4M3(thread.Load(packed.span, begin + i)) * factor;
    }
    const uint32_t pair = thread.Load(packed.span, begin + i / 2);
    return DecodeE2M1(i % 2 == 0 ? pair & 15U : pair >> 4) * factor;
  }
};

inline DeviceCache CacheOf(const CacheView& cache) {
  DeviceCache out;
  if (!cache.format.is_packed()) {
    out.plain = RowsOf<const float>(cache.rows);
    return out;
  }
  out.packed = RowsOf<const uint8_t>(cache.rows);
  out.code = cache.format.code;
  out.scale = cache.format.scale;
  out.coded = cache.format.coded;
  out.group = cache.format.group;
  out.scales_begin = cache.format.scales_begin();
  out.rest_begin = cache.format.rest_begin();
  return out;
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_PAGED_ROWS_CUH_
