#include "cli/bench/kernels_bench.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "model/formats/dtype.h"

namespace tessera::cli {
namespace {

using kernels::DType;
using kernels::TensorView;
using kernels::WeightView;

// V4-Flash: hidden 4096, experts of 2048, six a token. 16 experts of 13 MB, like the
// matrices together, are more than the caches of the machines in use.
constexpr int64_t kHidden = 4096;
constexpr int64_t kExpertWidth = 2048;
constexpr int64_t kExperts = 16;
constexpr int64_t kPicks = 6;
constexpr int64_t kMatrixBytes = int64_t{128} << 20;  // of all matrices, at least

constexpr int64_t kScaleBlock = 128;  // of FP8, both ways
constexpr int64_t kSmallBlock = 32;   // of MXFP4, along a row
constexpr std::byte kScale{120};      // 2^-7

int64_t Bytes(const WeightView& w) {
  const int64_t blocks =
      w.has_scales() ? (w.rows + w.block_rows - 1) / w.block_rows * w.scale_stride : 0;
  return w.rows * w.row_bytes + blocks;
}

}  // namespace

const std::vector<KernelKind>& KernelKinds() {
  static const auto& kinds = *new std::vector<KernelKind>{
      {.name = "bf16", .weights = DType::kBF16},
      {.name = "fp8", .weights = DType::kF8E4M3},
      {.name = "mxfp4", .weights = DType::kFp4},
      {.name = "experts", .weights = DType::kFp4, .experts = true},
      {.name = "experts-int8",
       .weights = DType::kFp4,
       .experts = true,
       .numerics = "int8-g32"}};
  return kinds;
}

absl::StatusOr<std::unique_ptr<KernelsBench>> KernelsBench::Create(const KernelKind& kind,
                                                                   int num_threads,
                                                                   Clock* clock) {
  auto bench = std::unique_ptr<KernelsBench>(new KernelsBench(kind, clock));
  TESSERA_ASSIGN_OR_RETURN(
      bench->backend_,
      kernels::CreateBackend({.numerics = kind.numerics, .num_threads = num_threads}));
  TESSERA_ASSIGN_OR_RETURN(bench->stream_, bench->backend_->CreateStream());
  if (kind.experts) {
    for (int64_t i = 0; i < kExperts; ++i) {
      kernels::ExpertWeights expert;
      TESSERA_ASSIGN_OR_RETURN(expert.gate, bench->Weight(kExpertWidth, kHidden));
      TESSERA_ASSIGN_OR_RETURN(expert.up, bench->Weight(kExpertWidth, kHidden));
      TESSERA_ASSIGN_OR_RETURN(expert.down, bench->Weight(kHidden, kExpertWidth));
      bench->experts_.push_back(expert);
    }
    return bench;
  }
  for (int64_t bytes = 0; bytes < kMatrixBytes; bytes += Bytes(bench->matrices_.back())) {
    TESSERA_ASSIGN_OR_RETURN(const WeightView matrix, bench->Weight(kHidden, kHidden));
    bench->matrices_.push_back(matrix);
  }
  return bench;
}

absl::StatusOr<std::byte*> KernelsBench::Memory(int64_t bytes) {
  TESSERA_ASSIGN_OR_RETURN(kernels::DeviceBuffer buffer,
                           backend_->Allocate(static_cast<size_t>(bytes)));
  buffers_.push_back(std::move(buffer));
  return static_cast<std::byte*>(buffers_.back().data());
}

absl::StatusOr<TensorView> KernelsBench::Floats(int64_t rows, int64_t columns) {
  TESSERA_ASSIGN_OR_RETURN(std::byte* const data,
                           Memory(rows * columns * static_cast<int64_t>(sizeof(float))));
  auto* const values = reinterpret_cast<float*>(data);
  for (int64_t i = 0; i < rows * columns; ++i) {
    values[i] = static_cast<float>(i * 37 % 255 - 127) / 128.0F;
  }
  return TensorView(data, DType::kF32, {rows, columns});
}

absl::StatusOr<WeightView> KernelsBench::Weight(int64_t rows, int64_t columns) {
  WeightView w;
  w.dtype = kind_.weights;
  w.rows = rows;
  w.cols = columns;
  w.row_bytes =
      static_cast<int64_t>(model::DTypeBytes(w.dtype, static_cast<size_t>(columns)));
  TESSERA_ASSIGN_OR_RETURN(std::byte* const data, Memory(rows * w.row_bytes));
  for (int64_t i = 0; i < rows * w.row_bytes; ++i) {
    data[i] = static_cast<std::byte>(i * 7 % 64);  // finite in every format
  }
  w.data = data;
  if (w.dtype == DType::kBF16) {
    return w;
  }
  w.block_rows = w.dtype == DType::kFp4 ? 1 : kScaleBlock;
  w.block_cols = w.dtype == DType::kFp4 ? kSmallBlock : kScaleBlock;
  w.scale_dtype = DType::kF8E8M0;
  w.scale_stride = columns / w.block_cols;
  const int64_t count = rows / w.block_rows * w.scale_stride;
  TESSERA_ASSIGN_OR_RETURN(std::byte* const scales, Memory(count));
  std::fill_n(scales, count, kScale);
  w.scales = scales;
  return w;
}

absl::StatusOr<KernelTime> KernelsBench::Run(int64_t rows) {
  const size_t kept = buffers_.size();
  absl::StatusOr<KernelTime> time = kind_.experts ? RunExperts(rows) : RunMatrices(rows);
  // Rows of x and of the outputs are those of one run.
  while (buffers_.size() > kept) {
    buffers_.pop_back();
  }
  return time;
}

absl::StatusOr<KernelTime> KernelsBench::RunMatrices(int64_t rows) {
  TESSERA_ASSIGN_OR_RETURN(const TensorView x, Floats(rows, kHidden));
  TESSERA_ASSIGN_OR_RETURN(const TensorView out, Floats(rows, kHidden));
  const absl::Time begin = clock_->Now();
  for (const WeightView& matrix : matrices_) {
    backend_->Linear(*stream_, x, matrix, kernels::KSplit::Whole(), out);
  }
  TESSERA_RETURN_IF_ERROR(stream_->Synchronize());
  const double seconds = absl::ToDoubleSeconds(clock_->Now() - begin);
  return KernelTime{.seconds = seconds / static_cast<double>(matrices_.size()),
                    .bytes = static_cast<double>(Bytes(matrices_.front())),
                    .multiply_adds = static_cast<double>(rows * kHidden * kHidden)};
}

absl::StatusOr<KernelTime> KernelsBench::RunExperts(int64_t tokens) {
  const int64_t items = tokens * kPicks;
  KernelTime time;
  time.multiply_adds = static_cast<double>(3 * items * kHidden * kExpertWidth);
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < items; ++i) {
    rows.push_back(static_cast<int32_t>(i % tokens));
  }
  // Items spread evenly; with fewer items than experts, some experts have none.
  std::vector<int32_t> offsets = {0};
  for (int64_t expert = 0; expert < kExperts; ++expert) {
    offsets.push_back(static_cast<int32_t>(items * (expert + 1) / kExperts));
    if (offsets.back() > offsets[offsets.size() - 2]) {
      const kernels::ExpertWeights& weights = experts_[static_cast<size_t>(expert)];
      time.bytes += static_cast<double>(Bytes(weights.gate) + Bytes(weights.up) +
                                        Bytes(weights.down));
    }
  }
  kernels::GroupedExpertsArgs args;
  TESSERA_ASSIGN_OR_RETURN(args.x, Floats(tokens, kHidden));
  TESSERA_ASSIGN_OR_RETURN(args.out, Floats(items, kHidden));
  args.row_of_item = TensorView(rows.data(), DType::kI32, {items});
  args.item_offsets = TensorView(offsets.data(), DType::kI32, {kExperts + 1});
  args.experts = experts_;
  const absl::Time begin = clock_->Now();
  backend_->GroupedExperts(*stream_, args);
  TESSERA_RETURN_IF_ERROR(stream_->Synchronize());
  time.seconds = absl::ToDoubleSeconds(clock_->Now() - begin);
  return time;
}

}  // namespace tessera::cli
