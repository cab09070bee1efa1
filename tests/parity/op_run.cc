#include "tests/parity/op_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <tuple>
#include <utility>

#include "fmt/format.h"

namespace tessera::parity {
namespace {

constexpr double kUnwritten = -12345.0;

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

double ValueAt(const std::byte* dense, DType dtype, size_t i) {
  const auto read = [&]<typename T>(T value) {
    std::memcpy(&value, dense + i * sizeof(T), sizeof(T));
    return static_cast<double>(value);
  };
  if (dtype == DType::kF32) {
    return read(float{});
  }
  if (dtype == DType::kF64) {
    return read(double{});
  }
  TESSERA_CHECK(dtype == DType::kI32);
  return read(int32_t{});
}

void SetValueAt(std::byte* dense, DType dtype, size_t i, double value) {
  const auto write = [&]<typename T>(T converted) {
    std::memcpy(dense + i * sizeof(T), &converted, sizeof(T));
  };
  if (dtype == DType::kF32) {
    write(static_cast<float>(value));
  } else if (dtype == DType::kF64) {
    write(value);
  } else {
    TESSERA_CHECK(dtype == DType::kI32);
    write(static_cast<int32_t>(value));
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

std::string Coordinate(const OutputValues& output, size_t at) {
  std::string text;
  auto rest = static_cast<int64_t>(at);
  for (size_t axis = output.shape.size(); axis-- > 0;) {
    text =
        fmt::format("{}{}{}", rest % output.shape[axis], text.empty() ? "" : ", ", text);
    rest /= output.shape[axis];
  }
  return text;
}

}  // namespace

std::string FirstDifference(const std::vector<OutputValues>& seen,
                            const std::vector<OutputValues>& expected, double tolerance) {
  for (size_t i = 0; i < expected.size(); ++i) {
    double largest = 0;
    for (const double value : expected[i].values) {
      largest = std::max(largest, std::abs(value));
    }
    for (size_t at = 0; at < expected[i].values.size(); ++at) {
      const double want = expected[i].values[at];
      const double have = seen[i].values[at];
      const bool same_bits = std::memcmp(&want, &have, sizeof(want)) == 0;
      if (!same_bits &&
          !(std::abs(want - have) <= tolerance * largest && tolerance > 0)) {
        return fmt::format("{}[{}] is {:.9g}, expected {:.9g}", expected[i].name,
                           Coordinate(expected[i], at), have, want);
      }
    }
  }
  return "";
}

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
  auto memory = backend_.Allocate(bytes);
  TESSERA_CHECK(memory.ok());
  memory_.push_back(std::move(*memory));
  return static_cast<std::byte*>(memory_.back().data());
}

std::byte* OpRun::MemoryWith(const std::vector<std::byte>& host) {
  std::byte* const memory = Memory(host.size());
  backend_.Upload(*stream_, host.data(),
                  TensorView(memory, DType::kU8, {std::ssize(host)}));
  TESSERA_CHECK(stream_->Synchronize().ok());
  return memory;
}

std::vector<double> OpRun::Read(TensorView view) {
  const auto count = static_cast<size_t>(view.num_elements());
  std::vector<std::byte> dense(model::DTypeBytes(view.dtype, count));
  backend_.Download(*stream_, view, dense.data());
  TESSERA_CHECK(stream_->Synchronize().ok());
  std::vector<double> values;
  for (size_t i = 0; i < count; ++i) {
    values.push_back(ValueAt(dense.data(), view.dtype, i));
  }
  return values;
}

TensorView OpRun::Allocate(const std::vector<int64_t>& shape, DType dtype, int64_t gap) {
  TensorView view = ViewOf(nullptr, dtype, shape, gap);
  const int64_t elements = view.stride(0) * std::max<int64_t>(view.dim(0), 1) + gap;
  view.data = Memory(static_cast<size_t>(elements) * model::DTypeBits(dtype) / 8);
  return view;
}

void OpRun::Fill(TensorView view, const std::function<double()>& next) {
  const auto count = static_cast<size_t>(view.num_elements());
  std::vector<std::byte> dense(model::DTypeBytes(view.dtype, count));
  for (size_t i = 0; i < count; ++i) {
    SetValueAt(dense.data(), view.dtype, i, next());
  }
  backend_.Upload(*stream_, dense.data(), view);
  TESSERA_CHECK(stream_->Synchronize().ok());
}

TensorView OpRun::Random(std::vector<int64_t> shape) {
  const TensorView view = Allocate(shape, backend_.activation_dtype(), 3);
  // Multiples of 2^-16: exact in float32, so float64 runs see the same inputs.
  std::uniform_int_distribution<int> steps(-(1 << 16), (1 << 16) - 1);
  Fill(view, [&] { return steps(random_) / 65536.0; });
  return view;
}

void OpRun::ScaleBy(TensorView view, double factor) {
  size_t i = 0;
  Fill(view, [&, values = Read(view)] { return values[i++] * factor; });
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
  backend_.Upload(*stream_, values.data(), view);
  return view;
}

kernels::CacheView OpRun::Packed(const TensorView& values,
                                 const kernels::RowFormat& format) {
  const TensorView rows =
      Allocate({values.dim(0), values.dim(1), format.packed_bytes()}, DType::kU8, 3);
  const std::vector<double> read = Read(values);
  const std::vector<float> floats(read.begin(), read.end());
  std::vector<std::byte> packed(static_cast<size_t>(rows.num_elements()));
  for (int64_t i = 0; i < values.dim(0) * values.dim(1); ++i) {
    kernels::PackRow(format, floats.data() + i * values.dim(2),
                     packed.data() + i * format.packed_bytes());
  }
  backend_.Upload(*stream_, packed.data(), rows);
  return {rows, format};
}

TensorView OpRun::Bytes(std::vector<int64_t> shape, const std::vector<uint8_t>& values) {
  const TensorView view = Allocate(shape, DType::kU8, 0);
  TESSERA_CHECK_EQ(view.num_elements(), static_cast<int64_t>(values.size()));
  backend_.Upload(*stream_, values.data(), view);
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
  std::vector<std::byte> values(static_cast<size_t>(w.rows * w.row_bytes));
  std::byte* const data = values.data();
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
  w.data = MemoryWith(values);
  if (w.dtype == DType::kF8E4M3 || w.dtype == DType::kFp4) {
    std::tie(w.block_rows, w.block_cols) = ScaleBlock(kind);
    w.scale_stride = (w.cols + w.block_cols - 1) / w.block_cols;
    w.scale_dtype = kind == WeightKind::kF8F32 ? DType::kF32 : DType::kF8E8M0;
    const int64_t count = (w.rows + w.block_rows - 1) / w.block_rows * w.scale_stride;
    const size_t scale_bytes = kind == WeightKind::kF8F32 ? 4 : 1;
    std::vector<std::byte> scales(static_cast<size_t>(count) * scale_bytes);
    for (int64_t i = 0; i < count; ++i) {
      const float scale = 0.001F + value(random_) * 0.0009F;
      if (kind == WeightKind::kF8F32) {
        std::memcpy(scales.data() + i * 4, &scale, 4);
      } else {
        scales[static_cast<size_t>(i)] = static_cast<std::byte>(118 + byte(random_) % 6);
      }
    }
    w.scales = MemoryWith(scales);
  }
  return w.RowSlice(kRowsBefore, rows).ColSlice(cols_before, cols);
}

const float* OpRun::Floats(int64_t count, float low, float high) {
  std::vector<std::byte> values(static_cast<size_t>(count) * sizeof(float));
  std::uniform_real_distribution<float> value(low, high);
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    SetValueAt(values.data(), DType::kF32, i, value(random_));
  }
  return reinterpret_cast<const float*>(MemoryWith(values));
}

int64_t OpRun::Integer(int64_t below) {
  return std::uniform_int_distribution<int64_t>(0, below - 1)(random_);
}

const int64_t* OpRun::Integers(int64_t count, int64_t below) {
  std::vector<std::byte> values(static_cast<size_t>(count) * sizeof(int64_t));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t value = Integer(below);
    std::memcpy(values.data() + static_cast<size_t>(i) * sizeof(value), &value,
                sizeof(value));
  }
  return reinterpret_cast<const int64_t*>(MemoryWith(values));
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

std::vector<OutputValues> OpRun::Outputs() {
  std::vector<OutputValues> all;
  for (const auto& [name, view] : outputs_) {
    all.push_back(
        {name, {view.shape.begin(), view.shape.begin() + view.rank}, Read(view)});
  }
  return all;
}

size_t OpRun::memory_bytes() const {
  size_t bytes = 0;
  for (const kernels::DeviceBuffer& memory : memory_) {
    bytes += memory.size_bytes();
  }
  return bytes;
}

std::vector<ParityCase> AllCases() {
  std::vector<ParityCase> all;
  for (auto family : {LinearCases(), RowCases(), AttentionCases(), CompressedCases(),
                      HyperCases(), MoeCases(), ExpertListCases(), EngramCases()}) {
    all.insert(all.end(), family.begin(), family.end());
  }
  return all;
}

}  // namespace tessera::parity
