// CacheView: a paged cache together with the format of its rows. Ops take it where a row
// may be packed; a view of activations converts by itself.
#ifndef TESSERA_KERNELS_CACHE_VIEW_H_
#define TESSERA_KERNELS_CACHE_VIEW_H_

#include <cstdint>

#include "common/check.h"
#include "kernels/row_format.h"
#include "kernels/tensor_view.h"

namespace tessera::kernels {

struct CacheView {
  // [num_blocks, block_size, width] activations, or [num_blocks, block_size,
  // packed_bytes] u8 of packed rows; rank 0: no cache.
  TensorView rows;
  RowFormat format;

  CacheView() = default;
  // Implicit on purpose: rows of activations need no other description.
  CacheView(const TensorView& view)  // NOLINT(google-explicit-constructor)
      : rows(view),
        format(RowFormat::Plain(view.rank > 0 ? view.dim(view.rank - 1) : 0)) {}
  CacheView(const TensorView& view, const RowFormat& row_format)
      : rows(view), format(row_format) {
    TESSERA_CHECK_EQ(view.dim(view.rank - 1),
                     format.is_packed() ? format.packed_bytes() : format.width);
    TESSERA_CHECK(!format.is_packed() || view.dtype == DType::kU8);
  }

  bool is_present() const { return rows.rank > 0; }
  int64_t width() const { return format.width; }
  int64_t num_blocks() const { return rows.dim(0); }
  int64_t block_size() const { return rows.dim(1); }
};

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_CACHE_VIEW_H_
