// Ops on rows. Norms give a warp to a row: 16 lanes sum, all 32 threads scale. The others
// give a thread to a value, in strides of the grid. All are bound by memory: 8 to 12
// bytes a value. Exact but for exp and sqrt.
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/lane_sum.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int64_t kRowsPerBlock = kBlock / kWarpSize;

struct RmsNormKernel {
  static constexpr const char* kName = "RmsNormKernel";
  DeviceRows<const float> x;
  DeviceWeight weight;
  DeviceRows<float> out;
  float eps;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kRowsPerBlock;
    for (int64_t row = GlobalIndex(thread) / kWarpSize; row < x.rows; row += stride) {
      const int64_t begin = x.Begin(row);
      float sum = 0;
      for (int64_t i = thread.lane() % kLanes; i < x.cols; i += kLanes) {
        const float value = thread.Load(x.span, begin + i);
        sum = fmaf(value, value, sum);
      }
      sum = thread.Shuffle(ReduceLanes(thread, sum), 0);
      const float factor = 1.0F / sqrtf(sum / static_cast<float>(x.cols) + eps);
      thread.SyncWarp();  // in place: all lanes have read
      for (int64_t i = thread.lane(); i < x.cols; i += kWarpSize) {
        const float scale =
            weight.values.data == nullptr ? 1.0F : LoadWeight(thread, weight, 0, i);
        thread.Store(out.span, out.Begin(row) + i,
                     thread.Load(x.span, begin + i) * factor * scale);
      }
    }
  }
};

struct LayerNormKernel {
  static constexpr const char* kName = "LayerNormKernel";
  DeviceRows<const float> x;
  GlobalSpan<const float> weight;
  GlobalSpan<const float> bias;
  DeviceRows<float> out;
  float eps;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kRowsPerBlock;
    const auto size = static_cast<float>(x.cols);
    for (int64_t row = GlobalIndex(thread) / kWarpSize; row < x.rows; row += stride) {
      const int64_t begin = x.Begin(row);
      float sum = 0;
      for (int64_t i = thread.lane() % kLanes; i < x.cols; i += kLanes) {
        sum += thread.Load(x.span, begin + i);
      }
      const float mean = thread.Shuffle(ReduceLanes(thread, sum), 0) / size;
      float squares = 0;
      for (int64_t i = thread.lane() % kLanes; i < x.cols; i += kLanes) {
        const float centred = thread.Load(x.span, begin + i) - mean;
        squares = fmaf(centred, centred, squares);
      }
      squares = thread.Shuffle(ReduceLanes(thread, squares), 0);
      const float factor = 1.0F / sqrtf(squares / size + eps);
      thread.SyncWarp();  // in place: all lanes have read
      for (int64_t i = thread.lane(); i < x.cols; i += kWarpSize) {
        const float centred = thread.Load(x.span, begin + i) - mean;
        thread.Store(
            out.span, out.Begin(row) + i,
            fmaf(centred * factor, thread.Load(weight, i), thread.Load(bias, i)));
      }
    }
  }
};

struct AddPositionBiasKernel {
  static constexpr const char* kName = "AddPositionBiasKernel";
  DeviceRows<float> x;
  DeviceWeight bias;
  DeviceRows<const int32_t> positions;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < x.rows * x.cols; i += stride) {
      const int64_t row = i / x.cols;
      const int64_t col = i % x.cols;
      const int64_t position = thread.Load(positions.span, positions.Begin(row));
      if (position < 0) {
        continue;
      }
      const int64_t at = x.Begin(row) + col;
      thread.Store(
          x.span, at,
          thread.Load(x.span, at) + LoadWeight(thread, bias, position % bias.rows, col));
    }
  }
};

struct EmbeddingKernel {
  static constexpr const char* kName = "EmbeddingKernel";
  DeviceWeight table;
  GlobalSpan<const int32_t> ids;
  int64_t ids_stride;
  DeviceRows<float> out;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < out.rows * out.cols; i += stride) {
      const int64_t row = i / out.cols;
      const int32_t id = thread.Load(ids, row * ids_stride);
      thread.Store(out.span, out.Begin(row) + i % out.cols,
                   LoadWeight(thread, table, id, i % out.cols));
    }
  }
};

// out = f(x, out), value by value.
template <typename Op>
struct EachValueKernel {
  static constexpr const char* kName = Op::kName;
  DeviceRows<const float> x;
  DeviceRows<float> out;
  Op op;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < out.rows * out.cols; i += stride) {
      const int64_t row = i / out.cols;
      const int64_t col = i % out.cols;
      const float value = thread.Load(x.span, x.Begin(row) + col);
      op(thread, out, row, col, value);
    }
  }
};

struct ScaleValue {
  static constexpr const char* kName = "ScaleKernel";
  float factor;
  TESSERA_DEVICE void operator()(Thread& thread, const DeviceRows<float>& out,
                                 int64_t row, int64_t col, float value) const {
    thread.Store(out.span, out.Begin(row) + col, value * factor);
  }
};

struct AddValue {
  static constexpr const char* kName = "AddKernel";
  TESSERA_DEVICE void operator()(Thread& thread, const DeviceRows<float>& out,
                                 int64_t row, int64_t col, float value) const {
    const int64_t at = out.Begin(row) + col;
    thread.Store(out.span, at, thread.Load(out.span, at) + value);
  }
};

struct CopyValue {
  static constexpr const char* kName = "CopyKernel";
  TESSERA_DEVICE void operator()(Thread& thread, const DeviceRows<float>& out,
                                 int64_t row, int64_t col, float value) const {
    thread.Store(out.span, out.Begin(row) + col, value);
  }
};

// The value is the gate's.
struct SiluMulValue {
  static constexpr const char* kName = "SiluMulKernel";
  DeviceRows<const float> up;
  float limit;  // infinity: none
  TESSERA_DEVICE void operator()(Thread& thread, const DeviceRows<float>& out,
                                 int64_t row, int64_t col, float gate) const {
    // Comparisons that leave a NaN as it is.
    const float u = thread.Load(up.span, up.Begin(row) + col);
    const float limited = u > limit ? limit : (u < -limit ? -limit : u);
    const float g = gate > limit ? limit : gate;
    thread.Store(out.span, out.Begin(row) + col, g / (1.0F + expf(-g)) * limited);
  }
};

template <typename Op>
void EachValue(GpuStream& stream, const TensorView& x, const TensorView& out,
               const Op& op) {
  TESSERA_CHECK(x.shape == out.shape);
  if (!out.empty()) {
    Launch(stream, EachValueConfig(out.num_elements(), kBlock),
           EachValueKernel<Op>{RowsOf<const float>(x), RowsOf<float>(out), op});
  }
}

}  // namespace

void RmsNorm(GpuStream& stream, TensorView x, const WeightView& weight, double eps,
             TensorView out) {
  TESSERA_CHECK(x.shape == out.shape);
  const RmsNormKernel kernel = {RowsOf<const float>(x), WeightOf(weight),
                                RowsOf<float>(out), static_cast<float>(eps)};
  if (!x.empty()) {
    Launch(stream, EachValueConfig(kernel.x.rows * kWarpSize, kBlock), kernel);
  }
}

void Embedding(GpuStream& stream, const WeightView& table, TensorView ids,
               TensorView out) {
  TESSERA_CHECK_EQ(table.cols, out.dim(1));
  TESSERA_CHECK_EQ(ids.dim(0), out.dim(0));
  if (out.empty()) {
    return;
  }
  const GlobalSpan<const int32_t> span = {ids.as<int32_t>(),
                                          (ids.dim(0) - 1) * ids.stride(0) + 1};
  Launch(stream, EachValueConfig(out.num_elements(), kBlock),
         EmbeddingKernel{WeightOf(table), span, ids.stride(0), RowsOf<float>(out)});
}

void LayerNorm(GpuStream& stream, TensorView x, const float* weight, const float* bias,
               double eps, TensorView out) {
  TESSERA_CHECK(x.shape == out.shape);
  const int64_t size = x.dim(x.rank - 1);
  const LayerNormKernel kernel = {RowsOf<const float>(x),
                                  {weight, size},
                                  {bias, size},
                                  RowsOf<float>(out),
                                  static_cast<float>(eps)};
  if (!x.empty()) {
    Launch(stream, EachValueConfig(kernel.x.rows * kWarpSize, kBlock), kernel);
  }
}

void AddPositionBias(GpuStream& stream, TensorView x, const WeightView& bias,
                     TensorView positions) {
  TESSERA_CHECK_EQ(bias.cols, x.dim(1));
  if (!x.empty()) {
    Launch(stream, EachValueConfig(x.num_elements(), kBlock),
           AddPositionBiasKernel{RowsOf<float>(x), WeightOf(bias),
                                 ColumnOf<const int32_t>(positions)});
  }
}

void Scale(GpuStream& stream, TensorView x, double factor) {
  EachValue(stream, x, x, ScaleValue{static_cast<float>(factor)});
}

void SiluMul(GpuStream& stream, TensorView gate, TensorView up, double limit,
             TensorView out) {
  TESSERA_CHECK(up.shape == out.shape);
  EachValue(stream, gate, out,
            SiluMulValue{RowsOf<const float>(up),
                         limit > 0 ? static_cast<float>(limit) : INFINITY});
}

void Add(GpuStream& stream, TensorView x, TensorView out) {
  EachValue(stream, x, out, AddValue{});
}

void Copy(GpuStream& stream, TensorView x, TensorView out) {
  TESSERA_CHECK(x.dtype == out.dtype);
  x.dtype = out.dtype = DType::kF32;  // four bytes, whatever they are
  EachValue(stream, x, out, CopyValue{});
}

}  // namespace tessera::kernels::cuda
