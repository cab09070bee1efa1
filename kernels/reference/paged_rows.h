// Where a paged cache holds a position, and what is in it. Included by the files of
// kernels/reference alone.
#ifndef TESSERA_KERNELS_REFERENCE_PAGED_ROWS_H_
#define TESSERA_KERNELS_REFERENCE_PAGED_ROWS_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "common/check.h"
#include "kernels/op_args.h"

namespace tessera::kernels::reference {

// Row of a cache of activations (or of bytes) that holds `position` of the sequence of
// query row t.
template <typename T>
const T* CachedRow(const TensorView& cache, const PagedIndex& index, int64_t t,
                   int64_t position) {
  const int64_t sequence = *index.sequence_of_row.row<int32_t>(t);
  const int64_t block =
      index.block_tables.row<int32_t>(sequence)[position / index.block_size];
  TESSERA_CHECK(block >= 0 && block < cache.dim(0));
  return cache.row<T>(block, position % index.block_size);
}

// Reads rows of caches of any format as activations. What it returns lies in the cache or
// in the reader, and lives as long as both.
template <typename T>
class RowReader {
 public:
  const T* Read(const CacheView& cache, const PagedIndex& index, int64_t t,
                int64_t position) {
    if (!cache.format.is_packed()) {
      return CachedRow<T>(cache.rows, index, t, position);
    }
    values_.resize(static_cast<size_t>(cache.width()));
    UnpackRow(cache.format,
              reinterpret_cast<const std::byte*>(
                  CachedRow<uint8_t>(cache.rows, index, t, position)),
              values_.data());
    return unpacked_.emplace_back(values_.begin(), values_.end()).data();
  }

 private:
  std::vector<float> values_;
  std::deque<std::vector<T>> unpacked_;
};

}  // namespace tessera::kernels::reference

#endif  // TESSERA_KERNELS_REFERENCE_PAGED_ROWS_H_
