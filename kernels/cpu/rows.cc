#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/row_pairs.h"

namespace tessera::kernels::cpu {
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
  const int64_t size = x.dim(x.rank - 1);
  if (x.empty()) {
    return;
  }
  float* scale = context.shared();
  if (weight.data == nullptr) {
    TESSERA_CHECK_LE(size, kScratchFloats);
    std::fill_n(scale, size, 1.0F);
  } else {
    TESSERA_CHECK_EQ(weight.rows * weight.cols, size);
    DecodeSmall(context.simd(), weight, scale);
  }
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

void AddPositionBias(CpuContext& context, TensorView x, const WeightView& bias,
                     TensorView positions) {
  TESSERA_CHECK_EQ(bias.cols, x.dim(1));
  TESSERA_CHECK_LE(bias.cols, kScratchFloats);
  const WeightRows rows = ToWeightRows(bias);
  context.ParallelFor(
      x.dim(0), x.num_elements() * 2, [&](int64_t begin, int64_t end, int thread) {
        float* row = context.scratch(thread).rows;
        for (int64_t t = begin; t < end; ++t) {
          const int64_t position = *positions.row<int32_t>(t);
          if (position < 0) {
            continue;
          }
          context.simd().decode_row(rows, position % bias.rows, 0, bias.cols, row);
          float* values = x.row<float>(t);
          for (int64_t i = 0; i < bias.cols; ++i) {
            values[i] += row[i];
          }
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

void SiluMul(CpuContext& context, TensorView gate, TensorView up, double limit,
             TensorView out) {
  const float most = ActivationLimit(limit);
  TESSERA_CHECK_EQ(up.dim(0), gate.dim(0));
  TESSERA_CHECK_EQ(up.dim(1), gate.dim(1));
  context.ParallelFor(gate.dim(0), gate.dim(0) * gate.dim(1) * 4,
                      [&](int64_t begin, int64_t end, int) {
                        for (int64_t t = begin; t < end; ++t) {
                          context.simd().silu_mul(gate.row<float>(t), up.row<float>(t),
                                                  most, out.row<float>(t), gate.dim(1));
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
  TESSERA_CHECK(x.dtype == out.dtype);
  x.dtype = out.dtype = DType::kF32;  // four bytes, whatever they are
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
  context.ParallelFor(
      out.dim(0), out.num_elements(), [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t row = *rows.row<int32_t>(i);
          TESSERA_CHECK_LT(row, x.dim(0));
          for (int64_t j = 0; j < inner; ++j) {
            float* values = to.row(i * inner + j);
            if (row < 0) {
              std::fill_n(values, from.length, 0.0F);
              continue;
            }
            std::copy_n(from.row(j) + row * x.stride(0), from.length, values);
          }
        }
      });
}

void StorePaged(CpuContext& context, TensorView x, TensorView slots,
                const CacheView& cache) {
  const int64_t block_size = cache.block_size();
  const bool packs = cache.format.is_packed();
  TESSERA_CHECK_EQ(x.dim(1), cache.width());
  // A packed value costs about 30 cycles, a copied one next to nothing.
  const int64_t work = x.num_elements() * (packs ? 256 : 1);
  context.ParallelFor(x.dim(0), work, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t slot = *slots.row<int32_t>(t);
      if (slot < 0) {
        continue;
      }
      TESSERA_CHECK_LT(slot, cache.num_blocks() * block_size);
      const int64_t block = slot / block_size;
      const int64_t at = slot % block_size;
      if (packs) {
        PackRow(cache.format, x.row<float>(t),
                reinterpret_cast<std::byte*>(cache.rows.row<uint8_t>(block, at)));
      } else {
        std::copy_n(x.row<float>(t), x.dim(1), cache.rows.row<float>(block, at));
      }
    }
  });
}

}  // namespace tessera::kernels::cpu
