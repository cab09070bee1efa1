// Where a paged cache holds a position. Included by the files of kernels/reference alone.
#ifndef TESSERA_KERNELS_REFERENCE_PAGED_ROWS_H_
#define TESSERA_KERNELS_REFERENCE_PAGED_ROWS_H_

#include <cstdint>

#include "common/check.h"
#include "kernels/op_args.h"

namespace tessera::kernels::reference {

// Row of a paged cache that holds `position` of the sequence of query row t.
template <typename T>
const T* CachedRow(const TensorView& cache, const PagedIndex& index, int64_t t,
                   int64_t position) {
  const int64_t sequence = *index.sequence_of_row.row<int32_t>(t);
  const int64_t block =
      index.block_tables.row<int32_t>(sequence)[position / index.block_size];
  TESSERA_CHECK(block >= 0 && block < cache.dim(0));
  return cache.row<T>(block, position % index.block_size);
}

}  // namespace tessera::kernels::reference

#endif  // TESSERA_KERNELS_REFERENCE_PAGED_ROWS_H_
