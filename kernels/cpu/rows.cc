#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "model/formats/number_formats.h"

namespace tessera::kernels::cpu {
namespace {

// A view of rank 1 to 4 as [a, b, c, last]; missing leading dimensions are 1.
struct Rows4 {
  explicit Rows4(const TensorView& x) : data(x.as<float>()), length(x.dim(x.rank - 1)) {
    for (int axis = 0; axis + 1 < x.rank; ++axis) {
      const int at = axis + TensorView::kMaxRank - x.rank;
      dims[at] = x.dim(axis);
      strides[at] = x.stride(axis);
    }
    count = dims[0] * dims[1] * dims[2];
  }
  float* row(int64_t i) const {
    const int64_t c = i % dims[2];
    const int64_t b = i / dims[2] % dims[1];
    const int64_t a = i / dims[2] / dims[1];
    return data + a * strides[0] + b * strides[1] + c * strides[2];
  }

  float* data;
  int64_t length;
  int64_t dims[3] = {1, 1, 1};
  int64_t strides[3] = {0, 0, 0};
  int64_t count = 0;
};

// Calls visit(row of x, row of y, length) for the rows of two views of one shape. `cost`
// is that of an element, in fused multiply-adds.
template <typename Visit>
void ForEachRowPair(CpuContext& context, const TensorView& x, const TensorView& y,
                    int64_t cost, const Visit& visit) {
  const Rows4 from(x);
  const Rows4 to(y);
  TESSERA_CHECK_EQ(from.count, to.count);
  TESSERA_CHECK_EQ(from.length, to.length);
  context.ParallelFor(from.count, from.count * from.length * cost,
                      [&](int64_t begin, int64_t end, int thread) {
                        for (int64_t i = begin; i < end; ++i) {
                          visit(from.row(i), to.row(i), from.length, thread);
                        }
                      });
}

}  // namespace

void Embedding(CpuContext& context, const WeightView& table, TensorView ids,
               TensorView out) {
  TESSERA_CHECK_EQ(out.dim(1), table.cols);
  const WeightRows rows = ToWeightRows(table);
  context.ParallelFor(
      ids.dim(0), ids.dim(0) * table.cols, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          const int64_t id = *ids.row<int32_t>(t);
          TESSERA_CHECK(id >= 0 && id < table.rows);
          context.simd().decode_row(rows, id, 0, table.cols, out.row<float>(t));
        }
      });
}

void RmsNorm(CpuContext& context, TensorView x, const WeightView& weight, double eps,
             TensorView out) {
  TESSERA_CHECK_EQ(weight.rows * weight.cols, x.dim(x.rank - 1));
  if (x.empty()) {
    return;
  }
  float* scale = context.shared();
  DecodeSmall(context.simd(), weight, scale);
  ForEachRowPair(context, x, out, 2, [&](const float* in, float* to, int64_t n, int) {
    context.simd().rms_norm(in, scale, static_cast<float>(eps), to, n);
  });
}

void LayerNorm(CpuContext& context, TensorView x, const float* weight, const float* bias,
               double eps, TensorView out) {
  ForEachRowPair(context, x, out, 4, [&](const float* in, float* to, int64_t n, int) {
    context.simd().layer_norm(in, weight, bias, static_cast<float>(eps), to, n);
  });
}

void FakeQuantizeE4M3(CpuContext& context, TensorView x) {
  ForEachRowPair(context, x, x, 8, [](const float*, float* values, int64_t n, int) {
    float largest = model::kActivationAmaxFloor;
    bool damaged = false;
    for (int64_t i = 0; i < n; ++i) {
      const float size = std::abs(values[i]);
      damaged = damaged || std::isnan(size);
      largest = std::max(largest, size);
    }
    const float scale = damaged ? std::numeric_limits<float>::quiet_NaN()
                                : model::PowerOfTwoCeil(largest * (1.0F / 448.0F));
    for (int64_t i = 0; i < n; ++i) {
      values[i] = model::E4M3ToFloat(model::FloatToE4M3(values[i] / scale)) * scale;
    }
  });
}

void Scale(CpuContext& context, TensorView x, double factor) {
  const auto by = static_cast<float>(factor);
  ForEachRowPair(context, x, x, 1, [by](const float*, float* values, int64_t n, int) {
    for (int64_t i = 0; i < n; ++i) {
      values[i] *= by;
    }
  });
}

void SiluMul(CpuContext& context, TensorView gate, TensorView up, TensorView out) {
  TESSERA_CHECK_EQ(up.dim(0), gate.dim(0));
  TESSERA_CHECK_EQ(up.dim(1), gate.dim(1));
  context.ParallelFor(gate.dim(0), gate.dim(0) * gate.dim(1) * 4,
                      [&](int64_t begin, int64_t end, int) {
                        for (int64_t t = begin; t < end; ++t) {
                          context.simd().silu_mul(gate.row<float>(t), up.row<float>(t),
                                                  out.row<float>(t), gate.dim(1));
                        }
                      });
}

void Add(CpuContext& context, TensorView x, TensorView out) {
  ForEachRowPair(context, x, out, 1, [](const float* from, float* to, int64_t n, int) {
    for (int64_t i = 0; i < n; ++i) {
      to[i] += from[i];
    }
  });
}

void Copy(CpuContext& context, TensorView x, TensorView out) {
  ForEachRowPair(context, x, out, 1, [](const float* from, float* to, int64_t n, int) {
    std::copy_n(from, n, to);
  });
}

void GatherRows(CpuContext& context, TensorView x, TensorView rows, TensorView out) {
  TESSERA_CHECK_EQ(rows.dim(0), out.dim(0));
  TESSERA_CHECK_EQ(x.rank, out.rank);
  const Rows4 from(x.Rows(0, x.dim(0) > 0 ? 1 : 0));
  const Rows4 to(out);
  if (out.empty()) {
    return;
  }
  const int64_t inner = from.count;
  TESSERA_CHECK_EQ(inner * out.dim(0), to.count);
  TESSERA_CHECK_EQ(from.length, to.length);
  context.ParallelFor(out.dim(0), out.num_elements(),
                      [&](int64_t begin, int64_t end, int) {
                        for (int64_t i = begin; i < end; ++i) {
                          const int64_t row = *rows.row<int32_t>(i);
                          TESSERA_CHECK(row >= 0 && row < x.dim(0));
                          for (int64_t j = 0; j < inner; ++j) {
                            std::copy_n(from.row(j) + row * x.stride(0), from.length,
                                        to.row(i * inner + j));
                          }
                        }
                      });
}

void StorePaged(CpuContext& context, TensorView x, TensorView slots, TensorView cache) {
  const int64_t block_size = cache.dim(1);
  TESSERA_CHECK_EQ(x.dim(1), cache.dim(2));
  context.ParallelFor(x.dim(0), x.num_elements(), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t slot = *slots.row<int32_t>(t);
      TESSERA_CHECK(slot >= 0 && slot < cache.dim(0) * block_size);
      std::copy_n(x.row<float>(t), x.dim(1),
                  cache.row<float>(slot / block_size, slot % block_size));
    }
  });
}

}  // namespace tessera::kernels::cpu
