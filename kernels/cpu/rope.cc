#include <cmath>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

struct SineCosine {
  double sine;
  double cosine;
};

// Taylor series on [-pi/4, pi/4]; the rests are below 2^-53.
SineCosine OfSmallAngle(double r) {
  const double s = r * r;
  double sine = -1.0 / 1307674368000.0;
  sine = sine * s + 1.0 / 6227020800.0;
  sine = sine * s - 1.0 / 39916800.0;
  sine = sine * s + 1.0 / 362880.0;
  sine = sine * s - 1.0 / 5040.0;
  sine = sine * s + 1.0 / 120.0;
  sine = sine * s - 1.0 / 6.0;
  double cosine = 1.0 / 20922789888000.0;
  cosine = cosine * s - 1.0 / 87178291200.0;
  cosine = cosine * s + 1.0 / 479001600.0;
  cosine = cosine * s - 1.0 / 3628800.0;
  cosine = cosine * s + 1.0 / 40320.0;
  cosine = cosine * s - 1.0 / 720.0;
  cosine = cosine * s + 1.0 / 24.0;
  cosine = cosine * s - 0.5;
  return {r + r * s * sine, 1.0 + s * cosine};
}

// Not std::sin: the C library picks its variant by processor, and two processors of one
// cell must agree on every bit. The quarter turns are taken off with pi/2 in three parts
// of 33 bits, exact up to 2^20 turns; angles are below the context length.
SineCosine OfAngle(double angle) {
  constexpr double kPi2First = 0x1.921fb544p0;
  constexpr double kPi2Second = 0x1.0b4611a6p-34;
  constexpr double kPi2Third = 0x1.3198a2e037073p-69;
  constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
  const double turns = std::floor(angle * kTwoOverPi + 0.5);
  const double r = angle - turns * kPi2First - turns * kPi2Second - turns * kPi2Third;
  const SineCosine small = OfSmallAngle(r);
  switch (static_cast<int64_t>(turns) & 3) {
    case 0:
      return small;
    case 1:
      return {small.cosine, -small.sine};
    case 2:
      return {-small.sine, -small.cosine};
    default:
      return {-small.cosine, small.sine};
  }
}

void RotateInterleaved(float* x, const float* cosine, const float* sine, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i];
    const float b = x[2 * i + 1];
    x[2 * i] = a * cosine[i] - b * sine[i];
    x[2 * i + 1] = a * sine[i] + b * cosine[i];
  }
}

void RotateHalfSplit(float* x, const float* cosine, const float* sine, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[i];
    const float b = x[i + pairs];
    x[i] = a * cosine[i] - b * sine[i];
    x[i + pairs] = a * sine[i] + b * cosine[i];
  }
}

}  // namespace

void Rope(CpuContext& context, TensorView x, TensorView positions,
          std::span<const float> inv_freq, RopePairing pairing) {
  const auto pairs = static_cast<int64_t>(inv_freq.size());
  TESSERA_CHECK_LE(2 * pairs, x.dim(2));
  TESSERA_CHECK_LE(2 * pairs, kScratchFloats);
  const int64_t work = x.dim(0) * pairs * (40 + 4 * x.dim(1));
  context.ParallelFor(x.dim(0), work, [&](int64_t begin, int64_t end, int thread) {
    float* cosine = context.scratch(thread).rows;
    float* sine = cosine + pairs;
    for (int64_t t = begin; t < end; ++t) {
      const auto position = static_cast<float>(*positions.row<int32_t>(t));
      for (int64_t i = 0; i < pairs; ++i) {
        const float angle = position * inv_freq[static_cast<size_t>(i)];
        const SineCosine turn = OfAngle(static_cast<double>(angle));
        cosine[i] = static_cast<float>(turn.cosine);
        sine[i] = static_cast<float>(turn.sine);
      }
      for (int64_t h = 0; h < x.dim(1); ++h) {
        if (pairing == RopePairing::kInterleaved) {
          RotateInterleaved(x.row<float>(t, h), cosine, sine, pairs);
        } else {
          RotateHalfSplit(x.row<float>(t, h), cosine, sine, pairs);
        }
      }
    }
  });
}

void Hadamard(CpuContext& context, TensorView x) {
  const RowList rows(x);
  TESSERA_CHECK(rows.length > 0 && (rows.length & (rows.length - 1)) == 0);
  const auto factor =
      static_cast<float>(1.0 / std::sqrt(static_cast<double>(rows.length)));
  context.ParallelFor(rows.count, rows.count * rows.length * 8,
                      [&](int64_t begin, int64_t end, int) {
                        for (int64_t i = begin; i < end; ++i) {
                          context.simd().hadamard(rows.row(i), rows.length, factor);
                        }
                      });
}

}  // namespace tessera::kernels::cpu
