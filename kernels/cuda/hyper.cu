// Coefficients of the residual streams. A block makes a token: half warps the products
// with `fn` and the mean square, into shared memory; a thread a coefficient, or a row or
// column of the mix; for the head, the threads then collapse the streams. Bound: memory,
// M (M + 3) reads of the token's streams from the caches and as many bytes of `fn`. Exact
// but for exp and sqrt.
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/lane_sum.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 128;
constexpr int64_t kRowsAtOnce = kBlock / kLanes;
constexpr int64_t kMaxStreams = 8;
constexpr int64_t kMaxRows = kMaxStreams * (kMaxStreams + 2);
constexpr int64_t kMaxGrid = 65535;

TESSERA_DEVICE inline float Sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

// (fn f) r of a token: f is its streams side by side, r the inverse root of their mean
// square.
struct StreamProducts {
  DeviceRows<const float> streams;  // [t, stream]
  DeviceWeight fn;
  GlobalSpan<const float> base;
  GlobalSpan<const float> scale;
  float norm_eps;

  // Leaves fn f in products[0 .. fn.rows), f . f behind them.
  TESSERA_DEVICE void Multiply(Thread& thread, int64_t t,
                               SharedSpan<float> products) const {
    const int64_t inputs = streams.inner * streams.cols;
    const int64_t lane = thread.lane() % kLanes;
    for (int64_t first = 0; first <= fn.rows; first += kRowsAtOnce) {
      // Both halves of a warp take part in its shuffles, where need be with f . f again.
      const int64_t mine = first + thread.linear_thread() / kLanes;
      const int64_t row = mine < fn.rows ? mine : fn.rows;
      float sum = 0;
      for (int64_t i = lane; i < inputs; i += kLanes) {
        const int64_t stream = t * streams.inner + i / streams.cols;
        const float value =
            thread.Load(streams.span, streams.Begin(stream) + i % streams.cols);
        sum = fmaf(row < fn.rows ? LoadWeight(thread, fn, row, i) : value, value, sum);
      }
      sum = ReduceLanes(thread, sum);
      if (lane == 0 && mine <= fn.rows) {
        thread.Store(products, row, sum);
      }
    }
    thread.SyncBlock();
  }

  // ((fn f)_row r) scale + base_row, after Multiply.
  TESSERA_DEVICE float Affine(Thread& thread, SharedSpan<float> products, int64_t row,
                              int64_t scale_idx) const {
    const float mean =
        thread.Load(products, fn.rows) / static_cast<float>(streams.inner * streams.cols);
    const float factor = 1.0F / sqrtf(mean + norm_eps);
    return thread.Load(products, row) * factor * thread.Load(scale, scale_idx) +
           thread.Load(base, row);
  }
};

// Divides m values `step` apart by their sum plus eps.
TESSERA_DEVICE inline void DivideBySum(Thread& thread, SharedSpan<float> a, int64_t begin,
                                       int64_t step, int64_t m, float eps) {
  float sum = 0;
  for (int64_t i = 0; i < m; ++i) {
    sum += thread.Load(a, begin + i * step);
  }
  for (int64_t i = 0; i < m; ++i) {
    thread.Store(a, begin + i * step, thread.Load(a, begin + i * step) / (sum + eps));
  }
}

struct HyperCoefficientsKernel {
  static constexpr const char* kName = "HyperCoefficientsKernel";
  StreamProducts products;
  float eps;
  int64_t iterations;
  DeviceRows<float> pre;
  DeviceRows<float> post;
  DeviceRows<float> mix;  // [t, from], columns to

  TESSERA_DEVICE void SoftmaxRow(Thread& thread, SharedSpan<float> a, int64_t begin,
                                 int64_t m) const {
    float largest = thread.Load(a, begin);
    for (int64_t k = 1; k < m; ++k) {
      const float value = thread.Load(a, begin + k);
      largest = largest < value ? value : largest;
    }
    float sum = 0;
    for (int64_t k = 0; k < m; ++k) {
      const float power = expf(thread.Load(a, begin + k) - largest);
      thread.Store(a, begin + k, power);
      sum += power;
    }
    for (int64_t k = 0; k < m; ++k) {
      thread.Store(a, begin + k, thread.Load(a, begin + k) / sum + eps);
    }
  }

  // By the first warp: softmax of each row, plus eps; then columns, and (iterations - 1)
  // times rows and columns.
  TESSERA_DEVICE void Sinkhorn(Thread& thread, SharedSpan<float> a, int64_t m) const {
    const int64_t me = thread.lane();
    if (me < m) {
      SoftmaxRow(thread, a, me * m, m);
    }
    thread.SyncWarp();
    for (int64_t i = 0;; ++i) {
      if (me < m) {
        DivideBySum(thread, a, me, m, m, eps);
      }
      thread.SyncWarp();
      if (i + 1 >= iterations) {
        return;
      }
      if (me < m) {
        DivideBySum(thread, a, me * m, 1, m, eps);
      }
      thread.SyncWarp();
    }
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const auto dots = thread.StaticShared<float, kMaxRows + 1, 0>();
    const auto a = thread.StaticShared<float, kMaxStreams * kMaxStreams, 1>();
    const int64_t m = pre.cols;
    const int64_t me = thread.linear_thread();
    for (int64_t t = thread.block_idx().x; t < pre.rows; t += thread.grid_dim().x) {
      products.Multiply(thread, t, dots);
      if (me < m) {
        thread.Store(pre.span, pre.Begin(t) + me,
                     Sigmoid(products.Affine(thread, dots, me, 0)) + eps);
        thread.Store(post.span, post.Begin(t) + me,
                     2.0F * Sigmoid(products.Affine(thread, dots, m + me, 1)));
      }
      if (me < m * m) {
        thread.Store(a, me, products.Affine(thread, dots, 2 * m + me, 2));
      }
      thread.SyncBlock();
      if (me < kWarpSize) {
        Sinkhorn(thread, a, m);
      }
      thread.SyncBlock();
      if (me < m * m) {
        thread.Store(mix.span, mix.Begin(t * m + me / m) + me % m, thread.Load(a, me));
      }
      // The next token's Multiply writes `dots`, which all have read, and ends with a
      // barrier before `a` is written.
    }
  }
};

struct HyperHeadKernel {
  static constexpr const char* kName = "HyperHeadKernel";
  StreamProducts products;
  float eps;
  DeviceRows<float> out;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const auto dots = thread.StaticShared<float, kMaxStreams + 1, 0>();
    const auto pre = thread.StaticShared<float, kMaxStreams, 1>();
    const DeviceRows<const float>& streams = products.streams;
    const int64_t m = streams.inner;
    const int64_t me = thread.linear_thread();
    for (int64_t t = thread.block_idx().x; t < out.rows; t += thread.grid_dim().x) {
      products.Multiply(thread, t, dots);
      if (me < m) {
        thread.Store(pre, me, Sigmoid(products.Affine(thread, dots, me, 0)) + eps);
      }
      thread.SyncBlock();
      for (int64_t i = me; i < out.cols; i += kBlock) {
        float sum = 0;
        for (int64_t j = 0; j < m; ++j) {
          sum = fmaf(thread.Load(pre, j),
                     thread.Load(streams.span, streams.Begin(t * m + j) + i), sum);
        }
        thread.Store(out.span, out.Begin(t) + i, sum);
      }
    }
  }
};

StreamProducts ProductsOf(const HyperCoefficientsArgs& args, int64_t num_scales) {
  TESSERA_CHECK_LE(args.streams.dim(1), kMaxStreams);
  TESSERA_CHECK_EQ(args.fn.cols, args.streams.dim(1) * args.streams.dim(2));
  return {RowsOf<const float>(args.streams),
          WeightOf(args.fn),
          {args.base, args.fn.rows},
          {args.scale, num_scales},
          static_cast<float>(args.norm_eps)};
}

LaunchConfig BlockPerToken(int64_t tokens) {
  return {.grid = {static_cast<uint32_t>(tokens < kMaxGrid ? tokens : kMaxGrid)},
          .block = {kBlock}};
}

}  // namespace

void HyperCoefficients(GpuStream& stream, const HyperCoefficientsArgs& args) {
  const int64_t m = args.streams.dim(1);
  TESSERA_CHECK_EQ(args.fn.rows, m * (m + 2));
  const HyperCoefficientsKernel kernel = {
      ProductsOf(args, 3),     static_cast<float>(args.eps), args.sinkhorn_iters,
      RowsOf<float>(args.pre), RowsOf<float>(args.post),     RowsOf<float>(args.mix)};
  if (kernel.pre.rows > 0) {
    Launch(stream, BlockPerToken(kernel.pre.rows), kernel);
  }
}

void HyperHead(GpuStream& stream, const HyperCoefficientsArgs& args, TensorView out) {
  TESSERA_CHECK_EQ(args.fn.rows, args.streams.dim(1));
  TESSERA_CHECK_EQ(args.streams.dim(2), out.dim(1));
  const HyperHeadKernel kernel = {ProductsOf(args, 1), static_cast<float>(args.eps),
                                  RowsOf<float>(out)};
  if (kernel.out.rows > 0) {
    Launch(stream, BlockPerToken(kernel.out.rows), kernel);
  }
}

}  // namespace tessera::kernels::cuda
