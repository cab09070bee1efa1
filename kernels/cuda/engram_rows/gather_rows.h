// Rows of an Engram table that the device reads itself, from host memory that is
// registered for it (registered_table.h): no copy by the host, none in between. They land
// packed, as DecodeEngramRows reads them.
#ifndef TESSERA_KERNELS_CUDA_ENGRAM_ROWS_GATHER_ROWS_H_
#define TESSERA_KERNELS_CUDA_ENGRAM_ROWS_GATHER_ROWS_H_

#include <cstdint>

#include "kernels/cuda/primitives/device.cuh"

namespace tessera::kernels::cuda {

// EngramColumn (kernels/engram_table_view.h) as a kernel reads it, in one access.
struct alignas(16) DeviceEngramColumn {
  uint32_t first_row = 0;
  uint32_t num_rows = 0;
  uint32_t shard_rows = 0;
  uint32_t unused = 0;
};

// An EngramTableView that was checked, at the device's addresses. C columns, S shards.
struct DeviceEngramTable {
  GlobalSpan<const GlobalSpan<const uint8_t>> shards;  // [S], packed rows
  GlobalSpan<const DeviceEngramColumn> columns;        // [C]
  GlobalSpan<const uint32_t> first_local;              // [C, S]
  int64_t row_bytes = 0;
  int64_t alignment = 1;  // of every row: a power of two
};

// What a kernel writes of ids that no row has: 0, or the complement of the first place of
// such an id. The caller clears it before and reads it after.
using BadRowWord = uint32_t;
// The place; 2^32 - 1 if there is none.
constexpr uint32_t FirstBadPlace(BadRowWord word) { return ~word; }
inline constexpr uint32_t kNoBadPlace = 0xffffffffU;

// out row i = the table's row ids[i], byte for byte. ids [T * C] of the whole table, i of
// column i mod C, at most 2^31; out [T * C * row_bytes]. A row whose id is not one of its
// column's is all ones, which is NaN in every row format, and `bad` [1] says so: nothing
// is read for it, and the step must fail. ids may lie in host memory.
void GatherEngramRows(GpuStream& stream, const DeviceEngramTable& table,
                      GlobalSpan<const uint32_t> ids, GlobalSpan<uint8_t> out,
                      GlobalSpan<BadRowWord> bad);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_ENGRAM_ROWS_GATHER_ROWS_H_
