#include "worker/comm/row_packer.h"

#include <cstddef>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/fp8_products.h"
#include "worker/comm/expert_lists.h"

namespace tessera::worker {

using kernels::TensorView;

absl::StatusOr<RowPacker> RowPacker::Create(int64_t hidden_size, int64_t max_rows,
                                            kernels::KernelBackend* backend) {
  TESSERA_CHECK(backend->activation_dtype() == kernels::DType::kF32);
  RowPacker packer;
  packer.backend_ = backend;
  packer.format_ = kernels::Fp8RowFormat(hidden_size);
  packer.max_rows_ = max_rows;
  std::vector<int32_t> places(static_cast<size_t>(max_rows));
  std::iota(places.begin(), places.end(), 0);
  TESSERA_ASSIGN_OR_RETURN(packer.places_, MakeDeviceInts(backend, places));
  return packer;
}

void RowPacker::Pack(kernels::Stream& stream, TensorView x, TensorView packed) const {
  const int64_t rows = x.dim(0);
  TESSERA_CHECK(rows <= max_rows_ && packed.dim(0) == rows);
  // A page a row.
  const kernels::CacheView pages(packed.SplitLast(packed.dim(1)), format_);
  backend_->StorePaged(stream, x,
                       TensorView(places_.data(), kernels::DType::kI32, {rows}), pages);
}

}  // namespace tessera::worker
