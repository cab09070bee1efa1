// PackedWeight: what WeightView::packed of a rounded weight points to on this backend,
// and where rows of inputs in 8 bits lie that meet it.
#ifndef TESSERA_KERNELS_CPU_PACKED_WEIGHT_H_
#define TESSERA_KERNELS_CPU_PACKED_WEIGHT_H_

#include <cstdint>

#include "common/check.h"
#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/weight_view.h"

namespace tessera::kernels::cpu {

// Codes and steps follow in the same memory.
struct PackedWeight {
  const uint8_t* codes;
  const uint8_t* steps;
  LeafGroups leaves;
};

inline const PackedWeight& PackedOf(const WeightView& w) {
  TESSERA_CHECK(w.packed != nullptr);
  return *static_cast<const PackedWeight*>(w.packed);
}

inline int64_t NumGroups(const LeafGroups& leaves) { return leaves.begin[leaves.count]; }

// What the codes of a group take, in floats.
inline int64_t RoundedCodeFloats(const SimdOps& simd) {
  return kRoundedGroup * simd.rounded_value_bytes / static_cast<int64_t>(sizeof(float));
}

// Codes, scale and offset of a group.
inline int64_t RoundedGroupFloats(const SimdOps& simd) {
  return RoundedCodeFloats(simd) + 2;
}

// Room for `rows` rows, whole blocks of them, at `memory`.
inline RoundedRows RoundedRowsAt(const SimdOps& simd, float* memory, int64_t rows,
                                 const LeafGroups& leaves) {
  const int64_t places = rows * NumGroups(leaves);
  float* const scales = memory + places * RoundedCodeFloats(simd);
  return {reinterpret_cast<int8_t*>(memory), scales,
          reinterpret_cast<int32_t*>(scales + places)};
}

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_PACKED_WEIGHT_H_
