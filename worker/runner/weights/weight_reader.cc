#include "worker/runner/weights/weight_reader.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/mapped_pages.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/weight_view.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "model/formats/number_formats.h"
#include "model/tensors/checkpoint.h"

namespace tessera::worker {

using kernels::KSplit;
using model::DType;

namespace {

constexpr int64_t kFp4ScaleBlock = 32;
constexpr std::byte kE8M0Nan{255};

// The blocks of a scale grid that a view shows.
struct ScaleGrid {
  const std::byte* data = nullptr;
  int64_t rows = 0;
  int64_t row_bytes = 0;
  int64_t stride = 0;
};

ScaleGrid GridOf(const WeightView& view) {
  const auto size = static_cast<int64_t>(model::DTypeBytes(view.scale_dtype, 1));
  const int64_t first_row = view.row_offset / view.block_rows;
  const int64_t end_row = (view.row_offset + view.rows - 1) / view.block_rows + 1;
  const int64_t first_col = view.col_offset / view.block_cols;
  const int64_t end_col = (view.col_offset + view.cols - 1) / view.block_cols + 1;
  return {.data = view.scales + (first_row * view.scale_stride + first_col) * size,
          .rows = end_row - first_row,
          .row_bytes = (end_col - first_col) * size,
          .stride = view.scale_stride * size};
}

// True if every scale is a number.
bool AreScalesFinite(const ScaleGrid& grid, DType dtype) {
  for (int64_t row = 0; row < grid.rows; ++row) {
    const std::byte* const begin = grid.data + row * grid.stride;
    const std::byte* const end = begin + grid.row_bytes;
    if (dtype == DType::kF8E8M0) {
      if (std::find(begin, end, kE8M0Nan) != end) {
        return false;
      }
      continue;
    }
    for (const std::byte* at = begin; at != end; at += sizeof(float)) {
      float scale = 0;
      std::memcpy(&scale, at, sizeof(scale));
      if (!std::isfinite(scale)) {
        return false;
      }
    }
  }
  return true;
}

// kDataLoss unless a row holds different ids below the number of experts.
absl::Status CheckExpertRow(std::string_view name, int64_t row,
                            std::span<const int64_t> ids, int64_t num_experts) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= num_experts) {
      return DataLossF("tensor {}: row {} names expert {}, expected 0 to {}", name, row,
                       ids[i], num_experts - 1);
    }
    if (std::find(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(i), ids[i]) !=
        ids.begin() + static_cast<ptrdiff_t>(i)) {
      return DataLossF("tensor {}: row {} names expert {} twice", name, row, ids[i]);
    }
  }
  return absl::OkStatus();
}

}  // namespace

void WeightReader::Account(const std::byte* data, int64_t rows, int64_t bytes,
                           int64_t stride) {
  if (rows <= 0 || bytes <= 0) {
    return;
  }
  // Whole rows side by side are one stretch.
  const bool is_dense = bytes == stride || rows == 1;
  regions_.push_back(is_dense ? ByteRegion{data, 1, rows * bytes, rows * bytes}
                              : ByteRegion{data, rows, bytes, stride});
}

absl::StatusOr<WeightView> WeightReader::Plain(const std::string& name, DType dtype,
                                               int64_t rows, int64_t cols,
                                               bool is_vector) {
  const std::array<int64_t, 2> shape = {is_vector ? cols : rows, cols};
  TESSERA_ASSIGN_OR_RETURN(
      const model::TensorRef tensor,
      checkpoint_.Require(name, dtype,
                          std::span<const int64_t>(shape).first(is_vector ? 1 : 2)));
  WeightView view;
  view.data = tensor.data.data();
  view.dtype = dtype;
  view.rows = rows;
  view.cols = cols;
  view.row_bytes =
      static_cast<int64_t>(model::DTypeBytes(dtype, static_cast<size_t>(cols)));
  return view;
}

absl::StatusOr<WeightView> WeightReader::Held(const std::string& name,
                                              const WeightView& view) {
  Account(
      view.data, view.rows,
      static_cast<int64_t>(model::DTypeBytes(view.dtype, static_cast<size_t>(view.cols))),
      view.row_bytes);
  if (!view.has_scales() || view.rows == 0 || view.cols == 0) {
    return PlacedView(view);
  }
  const ScaleGrid grid = GridOf(view);
  Account(grid.data, grid.rows, grid.row_bytes, grid.stride);
  if (!AreScalesFinite(grid, view.scale_dtype)) {
    return DataLossF("the scales of {}: one is not a number{}", name,
                     view.scale_dtype == DType::kF8E8M0 ? " (byte 255)" : "");
  }
  return PlacedView(view);
}

absl::StatusOr<const std::byte*> WeightReader::Placed(const ByteRegion& region) {
  if (!copies() || region.total() == 0) {
    return region.data;
  }
  TESSERA_ASSIGN_OR_RETURN(kernels::DeviceBuffer memory,
                           backend_->Allocate(static_cast<size_t>(region.total())));
  auto* const to = static_cast<std::byte*>(memory.data());
  for (int64_t row = 0; row < region.rows; ++row) {
    std::memcpy(to + row * region.bytes, region.data + row * region.stride,
                static_cast<size_t>(region.bytes));
  }
  prepared_.push_back(std::move(memory));
  return to;
}

absl::StatusOr<WeightView> WeightReader::PlacedView(WeightView view) {
  if (!copies() || view.rows == 0 || view.cols == 0) {
    return view;
  }
  if (view.has_scales()) {
    const ScaleGrid grid = GridOf(view);
    TESSERA_ASSIGN_OR_RETURN(view.scales,
                             Placed({grid.data, grid.rows, grid.row_bytes, grid.stride}));
    view.scale_stride =
        grid.row_bytes / static_cast<int64_t>(model::DTypeBytes(view.scale_dtype, 1));
    view.row_offset %= view.block_rows;
    view.col_offset %= view.block_cols;
  }
  const auto row_bytes =
      static_cast<int64_t>(model::DTypeBytes(view.dtype, static_cast<size_t>(view.cols)));
  TESSERA_ASSIGN_OR_RETURN(view.data,
                           Placed({view.data, view.rows, row_bytes, view.row_bytes}));
  view.row_bytes = row_bytes;
  return view;
}

absl::StatusOr<const float*> WeightReader::PlacedFloats(const WeightView& view) {
  Account(view.data, 1, view.row_bytes, view.row_bytes);
  TESSERA_ASSIGN_OR_RETURN(
      const std::byte* const data,
      Placed({Aligned(view, alignof(float)), 1, view.row_bytes, view.row_bytes}));
  return reinterpret_cast<const float*>(data);
}

absl::StatusOr<WeightView> WeightReader::Prepared(const std::string& name,
                                                  const WeightView& view,
                                                  const KSplit& split) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView held, Held(name, view));
  if (backend_ == nullptr || held.rows == 0 || held.cols == 0) {
    return held;
  }
  kernels::DeviceBuffer memory;
  TESSERA_ASSIGN_OR_RETURN(const WeightView prepared,
                           backend_->Prepare(held, split, &memory));
  if (memory.data() != nullptr) {
    prepared_.push_back(std::move(memory));
    const bool is_dense =
        held.row_bytes == static_cast<int64_t>(model::DTypeBytes(
                              held.dtype, static_cast<size_t>(held.cols)));
    // Memory of another kind would be lost, not read again.
    if (!checkpoint_.files().empty() && is_dense) {
      DropPages({held.data, static_cast<size_t>(held.rows * held.row_bytes)});
    }
  }
  return prepared;
}

const std::byte* WeightReader::Aligned(const WeightView& view, size_t alignment) {
  if (reinterpret_cast<uintptr_t>(view.data) % alignment == 0) {
    return view.data;
  }
  const auto size = static_cast<size_t>(view.rows * view.row_bytes);
  owned_.push_back(std::make_unique<std::byte[]>(size));
  std::memcpy(owned_.back().get(), view.data, size);
  return owned_.back().get();
}

absl::StatusOr<WeightView> WeightReader::Norm(const std::string& name, int64_t size) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView view,
                           Plain(name, DType::kBF16, 1, size, true));
  return Held(name, view);
}

absl::StatusOr<WeightView> WeightReader::Matrix(const std::string& name, DType dtype,
                                                int64_t rows, int64_t cols) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView view, Plain(name, dtype, rows, cols));
  return Held(name, view);
}

absl::StatusOr<WeightView> WeightReader::MatrixRows(const std::string& name, DType dtype,
                                                    int64_t rows, int64_t cols) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView view, Plain(name, dtype, rows, cols));
  return Held(name, view.RowSlice(Begin(rows), Count(rows)));
}

absl::StatusOr<WeightView> WeightReader::Head(const std::string& name, DType dtype,
                                              int64_t rows, int64_t cols) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView view, Plain(name, dtype, rows, cols));
  return Prepared(name, view.RowSlice(Begin(rows), Count(rows)), KSplit::Whole());
}

absl::StatusOr<const float*> WeightReader::Floats(const std::string& name, int64_t size) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView view,
                           Plain(name, DType::kF32, 1, size, true));
  return PlacedFloats(view);
}

absl::StatusOr<const float*> WeightReader::FloatShard(const std::string& name,
                                                      int64_t size) {
  TESSERA_ASSIGN_OR_RETURN(WeightView view, Plain(name, DType::kF32, 1, size, true));
  const int64_t count = Count(size);
  view = view.ColSlice(Begin(size), count);
  view.row_bytes = count * static_cast<int64_t>(sizeof(float));
  return PlacedFloats(view);
}

absl::StatusOr<const float*> WeightReader::FloatsOrBf16(const std::string& name,
                                                        int64_t size) {
  TESSERA_ASSIGN_OR_RETURN(const model::TensorRef found, checkpoint_.Find(name));
  if (found.dtype != DType::kBF16) {
    return Floats(name, size);
  }
  TESSERA_ASSIGN_OR_RETURN(const WeightView view,
                           Plain(name, DType::kBF16, 1, size, true));
  Account(view.data, 1, view.row_bytes, view.row_bytes);
  const auto count = static_cast<size_t>(size);
  owned_.push_back(std::make_unique<std::byte[]>(count * sizeof(float)));
  auto* const values = reinterpret_cast<float*>(owned_.back().get());
  model::DecodeBf16({view.data, static_cast<size_t>(view.row_bytes)}, {values, count});
  const auto bytes = static_cast<int64_t>(count * sizeof(float));
  TESSERA_ASSIGN_OR_RETURN(const std::byte* const data,
                           Placed({owned_.back().get(), 1, bytes, bytes}));
  return reinterpret_cast<const float*>(data);
}

absl::StatusOr<const int64_t*> WeightReader::ExpertTable(const std::string& name,
                                                         int64_t rows, int64_t cols,
                                                         int64_t num_experts) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView view, Plain(name, DType::kI64, rows, cols));
  Account(view.data, 1, rows * view.row_bytes, rows * view.row_bytes);
  const auto* const table =
      reinterpret_cast<const int64_t*>(Aligned(view, alignof(int64_t)));
  for (int64_t row = 0; row < rows; ++row) {
    TESSERA_RETURN_IF_ERROR(CheckExpertRow(
        name, row, {table + row * cols, static_cast<size_t>(cols)}, num_experts));
  }
  const int64_t bytes = rows * view.row_bytes;
  TESSERA_ASSIGN_OR_RETURN(
      const std::byte* const data,
      Placed({reinterpret_cast<const std::byte*>(table), 1, bytes, bytes}));
  return reinterpret_cast<const int64_t*>(data);
}

absl::StatusOr<WeightView> WeightReader::WithScales(WeightView view,
                                                    const std::string& scale_name,
                                                    int64_t block_rows, DType dtype) {
  view.block_rows = block_rows;
  view.block_cols =
      dtype == DType::kF8E8M0 && block_rows == 1 ? kFp4ScaleBlock : block_rows;
  const auto blocks = [](int64_t n, int64_t block) { return (n + block - 1) / block; };
  TESSERA_ASSIGN_OR_RETURN(const WeightView scales,
                           Plain(scale_name, dtype, blocks(view.rows, view.block_rows),
                                 blocks(view.cols, view.block_cols)));
  view.scales = scales.data;
  view.scale_dtype = dtype;
  view.scale_stride = scales.cols;
  return view;
}

// BF16, or FP8 with block scales (model.md 2.1).
absl::StatusOr<WeightView> WeightReader::Whole(const std::string& prefix, int64_t rows,
                                               int64_t cols) {
  const std::string name = prefix + ".weight";
  if (!config_.fp8_linears) {
    return Plain(name, DType::kBF16, rows, cols);
  }
  TESSERA_ASSIGN_OR_RETURN(const WeightView view,
                           Plain(name, DType::kF8E4M3, rows, cols));
  return config_.scales_are_e8m0
             ? WithScales(view, prefix + ".scale", config_.weight_block, DType::kF8E8M0)
             : WithScales(view, name + "_scale_inv", config_.weight_block, DType::kF32);
}

absl::StatusOr<WeightView> WeightReader::Linear(const std::string& prefix, int64_t rows,
                                                int64_t cols) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView view, Whole(prefix, rows, cols));
  return Prepared(prefix, view, KSplit::Whole());
}

absl::StatusOr<WeightView> WeightReader::LinearRows(const std::string& prefix,
                                                    int64_t rows, int64_t cols) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView view, Whole(prefix, rows, cols));
  return Prepared(prefix, view.RowSlice(Begin(rows), Count(rows)), KSplit::Whole());
}

absl::StatusOr<WeightView> WeightReader::HeadRows(const std::string& prefix, int64_t rows,
                                                  int64_t cols) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView view, Whole(prefix, rows, cols));
  return Held(prefix, view.RowSlice(Begin(rows), Count(rows)));
}

absl::StatusOr<SplitLinear> WeightReader::LinearColumns(const std::string& prefix,
                                                        int64_t rows, int64_t cols) {
  TESSERA_ASSIGN_OR_RETURN(const WeightView view, Whole(prefix, rows, cols));
  SplitLinear out;
  out.split.total = cols;
  out.split.num_leaves = KSplit::kLeaves / shard_.tp_size;
  out.split.first_leaf = shard_.tp_rank * out.split.num_leaves;
  TESSERA_ASSIGN_OR_RETURN(
      out.weight, Prepared(prefix, view.ColSlice(Begin(cols), Count(cols)), out.split));
  return out;
}

absl::StatusOr<WeightView> WeightReader::Expert(const std::string& prefix, DType dtype,
                                                int64_t rows, int64_t cols) {
  if (dtype == DType::kBF16) {
    TESSERA_ASSIGN_OR_RETURN(const WeightView view,
                             Plain(prefix + ".weight", dtype, rows, cols));
    return Prepared(prefix, view, KSplit::Whole());
  }
  if (dtype != DType::kFp4) {
    return Linear(prefix, rows, cols);
  }
  if (cols % kFp4ScaleBlock != 0) {
    return InvalidArgumentF("{}: {} inputs, expected a multiple of {} for MXFP4", prefix,
                            cols, kFp4ScaleBlock);
  }
  TESSERA_ASSIGN_OR_RETURN(WeightView view,
                           Plain(prefix + ".weight", DType::kI8, rows, cols / 2));
  view.dtype = DType::kFp4;
  view.cols = cols;
  TESSERA_ASSIGN_OR_RETURN(view, WithScales(view, prefix + ".scale", 1, DType::kF8E8M0));
  return Held(prefix, view);
}

}  // namespace tessera::worker
