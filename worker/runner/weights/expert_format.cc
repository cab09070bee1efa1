#include "worker/runner/weights/expert_format.h"

#include <cstddef>
#include <cstdint>

#include "kernels/fp8_products.h"
#include "kernels/op_args.h"
#include "kernels/weight_view.h"
#include "model/formats/dtype.h"

namespace tessera::worker {
namespace {

using kernels::WeightView;
using model::DType;

// Stands for scales that are there: the formats alone are looked at.
constexpr std::byte kSomeScales[1] = {};

// As WeightReader::Expert reads it, without values.
WeightView MatrixOf(const model::ModelConfig& config, DType dtype, int64_t rows,
                    int64_t cols) {
  WeightView view;
  view.rows = rows;
  view.cols = cols;
  if (dtype == DType::kBF16 || (dtype != DType::kFp4 && !config.fp8_linears)) {
    view.dtype = DType::kBF16;
    return view;
  }
  view.scales = kSomeScales;
  if (dtype == DType::kFp4) {
    view.dtype = DType::kFp4;
    view.scale_dtype = DType::kF8E8M0;
    view.block_rows = 1;
    view.block_cols = kernels::kFp4Group;
    return view;
  }
  view.dtype = DType::kF8E4M3;
  view.scale_dtype = config.scales_are_e8m0 ? DType::kF8E8M0 : DType::kF32;
  view.block_rows = config.weight_block;
  view.block_cols = config.weight_block;
  return view;
}

}  // namespace

bool AreFp8Experts(const model::ModelConfig& config, const model::MoeConfig& moe) {
  const auto matrix = [&](int64_t rows, int64_t cols) {
    return MatrixOf(config, moe.expert_dtype, rows, cols);
  };
  const WeightView wide = matrix(moe.expert_width, config.hidden_size);
  return kernels::IsFp8Expert({wide, wide, matrix(config.hidden_size, moe.expert_width)});
}

}  // namespace tessera::worker
