#include "common/status_macros.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/runtime/host_runtime.h"

namespace tessera::kernels::cpu {

absl::StatusOr<std::unique_ptr<CpuContext>> CpuContext::Create(
    const SimdOps& simd, const BackendOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<ThreadPool> pool,
                           ThreadPool::Create({.num_threads = options.num_threads,
                                               .pin_threads = options.pin_threads}));
  const auto threads = static_cast<size_t>(pool->num_threads());
  std::unique_ptr<CpuContext> context(new CpuContext(simd, std::move(pool), options));
  constexpr size_t kArrayBytes = kScratchFloats * sizeof(float);
  constexpr size_t kOffsetBytes = 4 * kMaxTopk * sizeof(int64_t);
  constexpr size_t kUnpackedBytes = kUnpackedFloats * sizeof(float);
  constexpr size_t kExpertBytes = kExpertFloats * sizeof(float);
  constexpr size_t kThreadBytes = 2 * kArrayBytes + kOffsetBytes + kUnpackedBytes;
  TESSERA_ASSIGN_OR_RETURN(context->memory_, AllocateHost(threads * kThreadBytes +
                                                          kArrayBytes + kExpertBytes));
  auto* at = static_cast<std::byte*>(context->memory_.data());
  context->shared_ = reinterpret_cast<float*>(at);
  at += kArrayBytes;
  context->expert_items_ = reinterpret_cast<float*>(at);
  at += kExpertBytes;
  for (size_t thread = 0; thread < threads; ++thread, at += kThreadBytes) {
    context->scratch_.push_back(
        {reinterpret_cast<float*>(at), reinterpret_cast<float*>(at + kArrayBytes),
         reinterpret_cast<int64_t*>(at + 2 * kArrayBytes),
         reinterpret_cast<float*>(at + 2 * kArrayBytes + kOffsetBytes)});
  }
  return context;
}

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

WeightRows ToWeightRows(const WeightView& w) {
  TESSERA_CHECK(CanRun(w.dtype, w.scale_dtype));
  WeightFormat format = WeightFormat::kF32;
  if (w.dtype == DType::kBF16) {
    format = WeightFormat::kBf16;
  } else if (w.dtype == DType::kF8E4M3) {
    format = WeightFormat::kF8E4M3;
  } else if (w.dtype == DType::kFp4) {
    format = WeightFormat::kFp4;
  }
  ScaleFormat scale_format = ScaleFormat::kNone;
  if (w.has_scales()) {
    scale_format =
        w.scale_dtype == DType::kF8E8M0 ? ScaleFormat::kE8M0 : ScaleFormat::kF32;
  }
  return {reinterpret_cast<const uint8_t*>(w.data),
          w.row_bytes,
          format,
          scale_format,
          reinterpret_cast<const uint8_t*>(w.scales),
          w.scale_stride,
          w.block_rows,
          w.block_cols,
          w.row_offset,
          w.col_offset};
}

void UnpackRow(const SimdOps& simd, const RowFormat& format, const uint8_t* row,
               float* values) {
  WeightRows codes = {};
  codes.data = row;
  codes.format =
      format.code == RowCode::kFp4 ? WeightFormat::kFp4 : WeightFormat::kF8E4M3;
  switch (format.scale) {
    case RowScale::kF32:
      codes.scale_format = ScaleFormat::kF32;
      break;
    case RowScale::kE8M0:
      codes.scale_format = ScaleFormat::kE8M0;
      break;
    case RowScale::kE4M3:
      codes.scale_format = ScaleFormat::kE4M3;
      break;
  }
  codes.scales = row + format.scales_begin();
  codes.block_rows = 1;
  codes.block_cols = format.group;
  simd.decode_row(codes, 0, 0, format.coded, values);
  WeightRows rest = {};
  rest.data = row + format.rest_begin();
  rest.format = WeightFormat::kBf16;
  rest.scale_format = ScaleFormat::kNone;
  simd.decode_row(rest, 0, 0, format.width - format.coded, values + format.coded);
}

void DecodeSmall(const SimdOps& simd, const WeightView& w, float* out) {
  TESSERA_CHECK_LE(w.rows * w.cols, kScratchFloats);
  const WeightRows rows = ToWeightRows(w);
  for (int64_t row = 0; row < w.rows; ++row) {
    simd.decode_row(rows, row, 0, w.cols, out + row * w.cols);
  }
}

}  // namespace tessera::kernels::cpu
