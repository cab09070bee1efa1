#include "kernels/cuda/engram_rows/row_path.h"

namespace tessera::kernels::cuda {

RowPath ChooseRowPath(TablePlace place, int64_t num_rows, const RowPathLimits& limits) {
  const bool few = num_rows <= limits.max_device_rows;
  return place == TablePlace::kRegistered && few ? RowPath::kDeviceReads
                                                 : RowPath::kHostGathers;
}

}  // namespace tessera::kernels::cuda
