// Which way a step's rows of an Engram table take to a device. A pure function of how
// many they are and of where the table lies: no call of a device, no clock. The bits are
// the same either way. docs/design/0007-engram-and-host-path.md has the figures.
#ifndef TESSERA_KERNELS_CUDA_ENGRAM_ROWS_ROW_PATH_H_
#define TESSERA_KERNELS_CUDA_ENGRAM_ROWS_ROW_PATH_H_

#include <cstdint>

namespace tessera::kernels::cuda {

enum class TablePlace {
  kRegistered,  // in memory of this host that the device reads
  kHost,        // in memory of this host that could not be registered
  kElsewhere,   // another host, a disk, a cache in front of either
};

enum class RowPath {
  kDeviceReads,  // a kernel reads the rows where they lie (gather_rows.h)
  kHostGathers,  // the EngramSource gathers them, a copy follows (staged_rows.h)
};

struct RowPathLimits {
  // Warps of sm_90 that half of the 132 SMs hold, 64 each, a row a warp: one wave that
  // leaves the other half to the step. Beyond it rows wait for rows, while cores of the
  // host gather 20 to 50 million a second and take none of the device's time. 4,224 rows
  // are a layer's of 176 tokens of V4.1: decode, not prefill.
  int64_t max_device_rows = 66 * 64;
};

RowPath ChooseRowPath(TablePlace place, int64_t num_rows, const RowPathLimits& limits);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_ENGRAM_ROWS_ROW_PATH_H_
