#include "tests/parity/op_run.h"

#include <cstring>
#include <tuple>
#include <utility>

namespace tessera::parity {
namespace {

constexpr double kUnwritten = -12345.0;
constexpr size_t kAlignment = 64;

TensorView ViewOf(void* data, DType dtype, const std::vector<int64_t>& shape,
                  int64_t gap) {
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  view.rank = static_cast<int>(shape.size());
  int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    const auto at = static_cast<size_t>(axis);
    view.shape[at] = shape[at];
    view.strides[at] = stride;
    stride = stride * shape[at] + gap;
  }
  return view;
}

// Calls visit(element offset) in row-major order.
template <typename Visit>
void ForEachElement(const TensorView& view, Visit visit) {
  for (int64_t i = 0; i < view.num_elements(); ++i) {
    int64_t rest = i;
    int64_t offset = 0;
    for (int axis = view.rank - 1; axis >= 0; --axis) {
      offset += rest % view.dim(axis) * view.stride(axis);
      rest /= view.dim(axis);
    }
    visit(offset);
  }
}

double ReadAt(const TensorView& view, int64_t offset) {
  switch (view.dtype) {
    case DType::kF32:
      return static_cast<const float*>(view.data)[offset];
    case DType::kF64:
      return static_cast<const double*>(view.data)[offset];
    default:
      TESSERA_CHECK(view.dtype == DType::kI32);
      return static_cast<const int32_t*>(view.data)[offset];
  }
}

void WriteAt(const TensorView& view, int64_t offset, double value) {
  if (view.dtype == DType::kF32) {
    static_cast<float*>(view.data)[offset] = static_cast<float>(value);
  } else if (view.dtype == DType::kF64) {
    static_cast<double*>(view.data)[offset] = value;
  } else {
    TESSERA_CHECK(view.dtype == DType::kI32);
    static_cast<int32_t*>(view.data)[offset] = static_cast<int32_t>(value);
  }
}

DType StoredType(WeightKind kind) {
  switch (kind) {
    case WeightKind::kF32:
      return DType::kF32;
    case WeightKind::kBf16:
      return DType::kBF16;
    case WeightKind::kFp4:
    case WeightKind::kFp4Aligned:
      return DType::kFp4;
    default:
      return DType::kF8E4M3;
  }
}

// Rows and columns of a scale.
std::pair<int64_t, int64_t> ScaleBlock(WeightKind kind) {
  switch (kind) {
    case WeightKind::kFp4:
    case WeightKind::kFp4Aligned:
      return {1, 32};
    case WeightKind::kF8Block32:
      return {32, 32};
    case WeightKind::kF8Block128:
      return {128, 128};
    default:
      return {24, 48};
  }
}

}  // namespace

std::string WeightKindName(WeightKind kind) {
  switch (kind) {
    case WeightKind::kF32:
      return "F32";
    case WeightKind::kBf16:
      return "BF16";
    case WeightKind::kF8F32:
      return "F8F32";
    case WeightKind::kF8E8M0:
      return "F8E8M0";
    case WeightKind::kFp4:
      return "FP4";
    case WeightKind::kF8Block32:
      return "F8Block32";
    case WeightKind::kF8Block128:
      return "F8Block128";
    case WeightKind::kFp4Aligned:
      return "FP4Aligned";
  }
  return "";
}

OpRun::OpRun(KernelBackend& backend, uint64_t seed, RowMode mode)
    : backend_(backend), mode_(mode), random_(seed) {
  auto stream = backend.CreateStream();
  TESSERA_CHECK(stream.ok());
  stream_ = std::move(*stream);
}

std::byte* OpRun::Memory(size_t bytes) {
  memory_.emplace_back(bytes + kAlignment);
  void* data = memory_.back().data();
  size_t space = bytes + kAlignment;
  return static_cast<std::byte*>(std::align(kAlignment, bytes, data, space));
}

TensorView OpRun::Allocate(const std::vector<int64_t>& shape, DType dtype, int64_t gap) {
  TensorView view = ViewOf(nullptr, dtype, shape, gap);
  const int64_t elements = view.stride(0) * std::max<int64_t>(view.dim(0), 1) + gap;
  view.data = Memory(static_cast<size_t>(elements) * model::DTypeBits(dtype) / 8);
  return view;
}

void OpRun::Fill(TensorView view, const std::function<double()>& next) {
  ForEachElement(view, [&](int64_t offset) { WriteAt(view, offset, next()); });
}

TensorView OpRun::Random(std::vector<int64_t> shape) {
  const TensorView view = Allocate(shape, backend_.activation_dtype(), 3);
  // Multiples of 2^-16: exact in float32, so float64 runs see the same inputs.
  std::uniform_int_distribution<int> steps(-(1 << 16), (1 << 16) - 1);
  Fill(view, [&] { return steps(random_) / 65536.0; });
  return view;
}

void OpRun::ScaleBy(TensorView view, double factor) {
  ForEachElement(view, [&](int64_t offset) {
    WriteAt(view, offset, ReadAt(view, offset) * factor);
  });
}

TensorView OpRun::RandomDense(std::vector<int64_t> shape) {
  const TensorView view = Allocate(shape, backend_.activation_dtype(), 0);
  std::uniform_int_distribution<int> steps(-(1 << 16), (1 << 16) - 1);
  Fill(view, [&] { return steps(random_) / 65536.0; });
  return view;
}

TensorView OpRun::Ints(std::vector<int64_t> shape, const std::vector<int32_t>& values) {
  const TensorView view = Allocate(shape, DType::kI32, 0);
  TESSERA_CHECK_EQ(view.num_elements(), static_cast<int64_t>(values.size()));
  if (!values.empty()) {
    std::memcpy(view.data, values.data(), values.size() * sizeof(int32_t));
  }
  return view;
}

kernels::CacheView OpRun::Packed(const TensorView& values,
                                 const kernels::RowFormat& format) {
  const TensorView rows =
      Allocate({values.dim(0), values.dim(1), format.packed_bytes()}, DType::kU8, 3);
  std::vector<float> row(static_cast<size_t>(values.dim(2)));
  for (int64_t i = 0; i < values.dim(0) * values.dim(1); ++i) {
    const int64_t block = i / values.dim(1);
    const int64_t at = i % values.dim(1);
    for (int64_t c = 0; c < values.dim(2); ++c) {
      row[static_cast<size_t>(c)] = static_cast<float>(
          ReadAt(values, block * values.stride(0) + at * values.stride(1) + c));
    }
    kernels::PackRow(format, row.data(),
                     reinterpret_cast<std::byte*>(rows.row<uint8_t>(block, at)));
  }
  return {rows, format};
}

TensorView OpRun::Bytes(std::vector<int64_t> shape, const std::vector<uint8_t>& values) {
  const TensorView view = Allocate(shape, DType::kU8, 0);
  TESSERA_CHECK_EQ(view.num_elements(), static_cast<int64_t>(values.size()));
  if (!values.empty()) {
    std::memcpy(view.data, values.data(), values.size());
  }
  return view;
}

TensorView OpRun::Output(std::string name, std::vector<int64_t> shape) {
  const TensorView view = Allocate(shape, backend_.activation_dtype(), 5);
  Fill(view, [] { return kUnwritten; });
  outputs_.emplace_back(std::move(name), view);
  return view;
}

TensorView OpRun::OutputDense(std::string name, std::vector<int64_t> shape) {
  const TensorView view = Allocate(shape, backend_.activation_dtype(), 0);
  Fill(view, [] { return kUnwritten; });
  outputs_.emplace_back(std::move(name), view);
  return view;
}

TensorView OpRun::IntOutput(std::string name, std::vector<int64_t> shape) {
  const TensorView view = Allocate(shape, DType::kI32, 0);
  Fill(view, [] { return kUnwritten; });
  outputs_.emplace_back(std::move(name), view);
  return view;
}

void OpRun::AlsoOutput(std::string name, TensorView view) {
  outputs_.emplace_back(std::move(name), view);
}

WeightView OpRun::Weight(WeightKind kind, int64_t rows, int64_t cols) {
  constexpr int64_t kRowsBefore = 3;
  const int64_t cols_before = kind > WeightKind::kFp4 ? 48 : 6;
  WeightView w;
  w.dtype = StoredType(kind);
  w.rows = rows + kRowsBefore + 1;
  w.cols = (cols + cols_before + 33) / 32 * 32;
  w.row_bytes =
      static_cast<int64_t>(model::DTypeBytes(w.dtype, static_cast<size_t>(w.cols)));
  std::byte* data = Memory(static_cast<size_t>(w.rows * w.row_bytes));
  w.data = data;
  std::uniform_int_distribution<int> byte(0, 255);
  std::uniform_real_distribution<float> value(-1.0F, 1.0F);
  for (int64_t i = 0; i < w.rows * w.cols; ++i) {
    if (kind == WeightKind::kF32) {
      const float number = value(random_);
      std::memcpy(data + i * 4, &number, 4);
    } else if (kind == WeightKind::kBf16) {
      const float number = value(random_);
      std::memcpy(data + i * 2, reinterpret_cast<const std::byte*>(&number) + 2, 2);
    } else if (w.dtype != DType::kFp4 || i % 2 == 0) {
      auto code = static_cast<uint8_t>(byte(random_));
      if (w.dtype != DType::kFp4 && (code & 0x7f) == 0x7f) {
        code ^= 1;  // not NaN
      }
      data[w.dtype == DType::kFp4 ? i / 2 : i] = static_cast<std::byte>(code);
    }
  }
  if (w.dtype == DType::kF8E4M3 || w.dtype == DType::kFp4) {
    std::tie(w.block_rows, w.block_cols) = ScaleBlock(kind);
    w.scale_stride = (w.cols + w.block_cols - 1) / w.block_cols;
    w.scale_dtype = kind == WeightKind::kF8F32 ? DType::kF32 : DType::kF8E8M0;
    const int64_t count = (w.rows + w.block_rows - 1) / w.block_rows * w.scale_stride;
    std::byte* scales = Memory(static_cast<size_t>(count) * 4);
    w.scales = scales;
    for (int64_t i = 0; i < count; ++i) {
      const float scale = 0.001F + value(random_) * 0.0009F;
      if (kind == WeightKind::kF8F32) {
        std::memcpy(scales + i * 4, &scale, 4);
      } else {
        scales[i] = static_cast<std::byte>(118 + byte(random_) % 6);
      }
    }
  }
  return w.RowSlice(kRowsBefore, rows).ColSlice(cols_before, cols);
}

const float* OpRun::Floats(int64_t count, float low, float high) {
  auto* data = reinterpret_cast<float*>(Memory(static_cast<size_t>(count) * 4));
  std::uniform_real_distribution<float> value(low, high);
  for (int64_t i = 0; i < count; ++i) {
    data[i] = value(random_);
  }
  return data;
}

int64_t OpRun::Integer(int64_t below) {
  return std::uniform_int_distribution<int64_t>(0, below - 1)(random_);
}

const int64_t* OpRun::Integers(int64_t count, int64_t below) {
  auto* data = reinterpret_cast<int64_t*>(Memory(static_cast<size_t>(count) * 8));
  for (int64_t i = 0; i < count; ++i) {
    data[i] = Integer(below);
  }
  return data;
}

void OpRun::ForRows(int64_t rows, const std::function<void(int64_t, int64_t)>& op) {
  if (mode_ == RowMode::kTogether) {
    op(0, rows);
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    op(row, 1);
  }
}

std::vector<OutputValues> OpRun::Outputs() const {
  std::vector<OutputValues> all;
  for (const auto& [name, view] : outputs_) {
    OutputValues output{name, {view.shape.begin(), view.shape.begin() + view.rank}, {}};
    ForEachElement(view, [&, v = view](int64_t offset) {
      output.values.push_back(ReadAt(v, offset));
    });
    all.push_back(std::move(output));
  }
  return all;
}

std::vector<ParityCase> AllCases() {
  std::vector<ParityCase> all;
  for (auto family : {LinearCases(), RowCases(), AttentionCases(), CompressedCases(),
                      HyperCases(), MoeCases(), EngramCases()}) {
    all.insert(all.end(), family.begin(), family.end());
  }
  return all;
}

}  // namespace tessera::parity
