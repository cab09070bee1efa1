#include "kernels/fp8_products.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kMaxFp8Inputs = 128 * 1024;
constexpr int64_t kMaxFp4Inputs = 16 * 1024;
constexpr int64_t kCopiedBytes = 16;  // what rows are a multiple of

bool IsFp8Blocks(const WeightView& w) {
  return w.dtype == model::DType::kF8E4M3 && w.has_scales() &&
         w.block_rows == kFp8Group && w.block_cols == kFp8Group &&
         w.cols % kCopiedBytes == 0 && w.cols <= kMaxFp8Inputs &&
         w.col_offset % kFp8Group == 0;
}

bool IsFp4Groups(const WeightView& w) {
  return w.dtype == model::DType::kFp4 && w.has_scales() && w.block_rows == 1 &&
         w.block_cols == kFp4Group && w.cols % kFp4Group == 0 &&
         w.cols <= kMaxFp4Inputs && w.col_offset % kFp4Group == 0;
}

bool IsExpertMatrix(const WeightView& w) { return IsFp8Blocks(w) || IsFp4Groups(w); }

}  // namespace

bool IsFp8Product(const WeightView& w, const KSplit& split) {
  return IsFp8Blocks(w) &&
         (split.num_leaves == 0 || split.total % (KSplit::kLeaves * kFp8Group) == 0);
}

bool IsFp8Expert(const ExpertWeights& expert) {
  return IsExpertMatrix(expert.gate) && IsExpertMatrix(expert.up) &&
         IsExpertMatrix(expert.down);
}

bool IsFp8Numerics(std::string_view numerics_id) {
  return numerics_id.ends_with("/fp8-g128");
}

RowFormat Fp8RowFormat(int64_t inputs) {
  return {.code = RowCode::kE4M3,
          .scale = RowScale::kF32,
          .width = inputs,
          .coded = inputs,
          .group = kFp8Group};
}

}  // namespace tessera::kernels
