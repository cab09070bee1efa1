#include <string_view>

#include "absl/status/status.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_ops.h"

namespace tessera::kernels::cuda {
namespace {

// `needed` of something that the ops take `available` of.
absl::Status CheckFits(std::string_view what, int64_t needed, int64_t available) {
  if (needed <= available) {
    return absl::OkStatus();
  }
  return InvalidArgumentF("cuda backend: the model needs {} {}, expected at most {}",
                          needed, what, available);
}

}  // namespace

bool CanRun(DType weight, DType scale) {
  switch (weight) {
    case DType::kF32:
    case DType::kBF16:
      return true;
    case DType::kF8E4M3:
      return scale == DType::kF32 || scale == DType::kF8E8M0;
    case DType::kFp4:
      return scale == DType::kF8E8M0;
    default:
      return false;
  }
}

absl::Status CheckShapes(const ModelShapes& shapes) {
  TESSERA_RETURN_IF_ERROR(CheckFits("entries selected by index_topk", shapes.index_topk,
                                    kMaxSelectedEntries));
  TESSERA_RETURN_IF_ERROR(
      CheckFits("candidate blocks", shapes.candidate_blocks, kMaxSelectedEntries));
  TESSERA_RETURN_IF_ERROR(CheckFits("entries in a candidate block",
                                    shapes.candidate_block_size, kEntriesAtOnce));
  TESSERA_RETURN_IF_ERROR(
      CheckFits("rotated values", shapes.rope_dim, 2 * kMaxRopePairs));
  // No expert is wider than that.
  TESSERA_RETURN_IF_ERROR(
      CheckFits("values in the longest row", shapes.row, kMaxExpertWidth));
  return CheckFits("experts", shapes.num_experts, kMaxRoutedExperts);
}

}  // namespace tessera::kernels::cuda
