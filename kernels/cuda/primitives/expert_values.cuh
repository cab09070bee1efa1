// ExpertValues: what a list says of the experts of a router's slots, and the note that an
// id can be no expert's (ExpertItemsArgs).
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_EXPERT_VALUES_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_EXPERT_VALUES_CUH_

#include <cstdint>
#include <limits>

#include "common/check.h"
#include "kernels/cuda/primitives/device_tensor.cuh"

namespace tessera::kernels::cuda {

struct ExpertValues {
  DeviceRows<const int32_t> expert_ids;  // [t, j]
  DeviceRows<const int32_t> values;      // [e], one column
  DeviceRows<int32_t> fault;             // one value

  TESSERA_DEVICE int64_t num_slots() const { return expert_ids.rows * expert_ids.cols; }

  TESSERA_DEVICE int32_t IdOf(Thread& thread, int64_t slot) const {
    return thread.Load(expert_ids.span,
                       expert_ids.Begin(slot / expert_ids.cols) + slot % expert_ids.cols);
  }
  TESSERA_DEVICE bool IsExpert(int32_t id) const { return id >= 0 && id < values.rows; }

  // Of a slot, counted through all rows: -1 where its id is no expert's.
  TESSERA_DEVICE int32_t Of(Thread& thread, int64_t slot) const {
    const int32_t id = IdOf(thread, slot);
    return IsExpert(id) ? thread.Load(values.span, values.Begin(id)) : -1;
  }
  TESSERA_DEVICE void Note(Thread& thread, int64_t slot) const {
    thread.AtomicMax(fault.span, 0, static_cast<int32_t>(slot + 1));
  }
  // Notes an id that is neither an expert's nor -1.
  TESSERA_DEVICE void CheckId(Thread& thread, int64_t slot) const {
    const int32_t id = IdOf(thread, slot);
    if (id != -1 && !IsExpert(id)) {
      Note(thread, slot);
    }
  }
};

inline ExpertValues ExpertValuesOf(const TensorView& expert_ids, const TensorView& values,
                                   const TensorView& fault) {
  TESSERA_CHECK_LT(expert_ids.num_elements(), std::numeric_limits<int32_t>::max());
  TESSERA_CHECK_EQ(fault.dim(0), 1);
  return {RowsOf<const int32_t>(expert_ids), ColumnOf<const int32_t>(values),
          ColumnOf<int32_t>(fault)};
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_EXPERT_VALUES_CUH_
