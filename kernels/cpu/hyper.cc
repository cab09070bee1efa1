#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

void DivideRows(float* a, int64_t m, float eps) {
  for (int64_t j = 0; j < m; ++j) {
    float sum = 0;
    for (int64_t k = 0; k < m; ++k) {
      sum += a[j * m + k];
    }
    sum += eps;
    for (int64_t k = 0; k < m; ++k) {
      a[j * m + k] /= sum;
    }
  }
}

void DivideColumns(float* a, int64_t m, float eps) {
  float sums[kMaxStreams] = {};
  for (int64_t j = 0; j < m; ++j) {
    for (int64_t k = 0; k < m; ++k) {
      sums[k] += a[j * m + k];
    }
  }
  for (int64_t k = 0; k < m; ++k) {
    sums[k] += eps;
  }
  for (int64_t j = 0; j < m; ++j) {
    for (int64_t k = 0; k < m; ++k) {
      a[j * m + k] /= sums[k];
    }
  }
}

void Sinkhorn(const SimdOps& simd, float* a, int64_t m, float eps, int64_t iterations) {
  for (int64_t j = 0; j < m; ++j) {
    float* row = a + j * m;
    const float maximum = *std::max_element(row, row + m);
    for (int64_t k = 0; k < m; ++k) {
      row[k] -= maximum;
    }
  }
  simd.exp(a, a, m * m);
  for (int64_t j = 0; j < m; ++j) {
    float* row = a + j * m;
    float sum = 0;
    for (int64_t k = 0; k < m; ++k) {
      sum += row[k];
    }
    for (int64_t k = 0; k < m; ++k) {
      row[k] = row[k] / sum + eps;
    }
  }
  DivideColumns(a, m, eps);
  for (int64_t i = 1; i < iterations; ++i) {
    DivideRows(a, m, eps);
    DivideColumns(a, m, eps);
  }
}

void CheckStreams(const TensorView& streams) {
  TESSERA_CHECK_LE(streams.dim(1), kMaxStreams);
  // The statistic and fn run over the streams of a token side by side.
  TESSERA_CHECK_EQ(streams.stride(1), streams.dim(2));
}

// Calls visit(t, mix) for each token with mix = (fn f) r, f its streams side by side and
// r their inverse root mean square. The products of a block of tokens pass through shared
// scratch.
template <typename Visit>
void ForEachMix(CpuContext& context, const HyperCoefficientsArgs& args,
                const Visit& visit) {
  CheckStreams(args.streams);
  const int64_t tokens = args.streams.dim(0);
  const int64_t inputs = args.streams.dim(1) * args.streams.dim(2);
  const int64_t outputs = args.fn.rows;
  const int64_t block = kScratchFloats / outputs;
  for (int64_t first = 0; first < tokens; first += block) {
    const int64_t count = std::min(block, tokens - first);
    TensorView flat = args.streams.Rows(first, count);
    flat.rank = 2;
    flat.shape[1] = inputs;
    flat.strides[1] = 1;
    Linear(context, flat, args.fn, KSplit::Whole(),
           TensorView(context.shared(), DType::kF32, {count, outputs}));
    context.ParallelFor(
        count, count * (inputs + 4096), [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) {
            const float* f = flat.row<float>(i);
            float* mix = context.shared() + i * outputs;
            const float mean =
                context.simd().dot(f, f, inputs) / static_cast<float>(inputs);
            const float r = 1.0F / std::sqrt(mean + static_cast<float>(args.norm_eps));
            for (int64_t o = 0; o < outputs; ++o) {
              mix[o] *= r;
            }
            visit(first + i, mix);
          }
        });
  }
}

}  // namespace

void ExpandStreams(CpuContext& context, TensorView x, TensorView out) {
  context.ParallelFor(x.dim(0), out.num_elements(), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t j = 0; j < out.dim(1); ++j) {
        std::copy_n(x.row<float>(t), x.dim(1), out.row<float>(t, j));
      }
    }
  });
}

void HyperCoefficients(CpuContext& context, const HyperCoefficientsArgs& args) {
  const int64_t m = args.streams.dim(1);
  TESSERA_CHECK_EQ(args.fn.rows, m * (m + 2));
  TESSERA_CHECK_EQ(args.mix.stride(1), m);
  const auto eps = static_cast<float>(args.eps);
  ForEachMix(context, args, [&](int64_t t, float* mix) {
    for (int64_t i = 0; i < args.fn.rows; ++i) {
      const int64_t group = std::min<int64_t>(i / m, 2);
      mix[i] = mix[i] * args.scale[group] + args.base[i];
    }
    context.simd().sigmoid(mix, mix, 2 * m);
    for (int64_t j = 0; j < m; ++j) {
      args.pre.row<float>(t)[j] = mix[j] + eps;
      args.post.row<float>(t)[j] = 2.0F * mix[m + j];
    }
    float* a = args.mix.row<float>(t);
    std::copy_n(mix + 2 * m, m * m, a);
    Sinkhorn(context.simd(), a, m, eps, args.sinkhorn_iters);
  });
}

void HyperCollapse(CpuContext& context, TensorView streams, TensorView pre,
                   TensorView out) {
  context.ParallelFor(
      streams.dim(0), streams.num_elements(), [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          context.simd().weighted_sum(streams.row<float>(t), streams.stride(1), nullptr,
                                      pre.row<float>(t), streams.dim(1),
                                      out.row<float>(t), streams.dim(2));
        }
      });
}

void HyperExpand(CpuContext& context, TensorView y, TensorView post, TensorView mix,
                 TensorView streams) {
  TESSERA_CHECK_LE(streams.dim(1), kMaxStreams);
  HyperExpandTask common = {};
  common.mix_stride = mix.stride(1);
  common.num_streams = streams.dim(1);
  common.stream_stride = streams.stride(1);
  common.dim = streams.dim(2);
  context.ParallelFor(y.dim(0), streams.num_elements() * streams.dim(1),
                      [&](int64_t begin, int64_t end, int) {
                        HyperExpandTask task = common;
                        for (int64_t t = begin; t < end; ++t) {
                          task.y = y.row<float>(t);
                          task.post = post.row<float>(t);
                          task.mix = mix.row<float>(t);
                          task.streams = streams.row<float>(t);
                          context.simd().hyper_expand(task);
                        }
                      });
}

void HyperHead(CpuContext& context, const HyperCoefficientsArgs& args, TensorView out) {
  const int64_t m = args.streams.dim(1);
  TESSERA_CHECK_EQ(args.fn.rows, m);
  ForEachMix(context, args, [&](int64_t t, float* mix) {
    for (int64_t j = 0; j < m; ++j) {
      mix[j] = mix[j] * args.scale[0] + args.base[j];
    }
    context.simd().sigmoid(mix, mix, m);
    for (int64_t j = 0; j < m; ++j) {
      mix[j] += static_cast<float>(args.eps);
    }
    context.simd().weighted_sum(args.streams.row<float>(t), args.streams.stride(1),
                                nullptr, mix, m, out.row<float>(t), args.streams.dim(2));
  });
}

}  // namespace tessera::kernels::cpu
