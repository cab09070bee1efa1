// Sine and cosine of angles of any size without local memory. The library's own keep a
// second reduction for angles beyond 2^31, with an array on the stack, which a kernel
// then has although an int32 position times a frequency of at most 1 never gets there.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_SINE_COSINE_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_SINE_COSINE_CUH_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/primitives/device.cuh"

namespace tessera::kernels::cuda {

// angle = quarters * pi/2 + rest, |rest| <= pi/4, for |angle| < 2^31.
struct ReducedAngle {
  double rest = 0;
  int64_t quarters = 0;
};

// pi/2 in three parts of a double each, so that every step rounds once and relative to a
// rest that is never small: no float32 below 2^31 is closer than 2^-32 to a multiple.
TESSERA_DEVICE inline ReducedAngle ReduceAngle(double angle) {
  constexpr double kQuartersPerRadian = 0x1.45f306dc9c883p-1;
  constexpr double kHigh = 0x1.921fb54442d18p+0;
  constexpr double kMiddle = 0x1.1a62633145c07p-54;
  constexpr double kLow = -0x1.f1976b7ed8fbcp-110;
  const double quarters = rint(angle * kQuartersPerRadian);
  double rest = fma(-quarters, kHigh, angle);
  rest = fma(-quarters, kMiddle, rest);
  rest = fma(-quarters, kLow, rest);
  return {rest, static_cast<int64_t>(quarters)};
}

struct SineCosine {
  float sine = 0;
  float cosine = 0;
};

// Each rounded once from float64.
TESSERA_DEVICE inline SineCosine SineCosineOf(Thread& thread, double angle) {
  const ReducedAngle reduced = ReduceAngle(angle);
  double sine = 0;
  double cosine = 0;
  thread.SineCosineOfEighth(reduced.rest, &sine, &cosine);
  const bool swapped = (reduced.quarters & 1) != 0;
  const double s = swapped ? cosine : sine;
  const double c = swapped ? sine : cosine;
  const bool turned = (reduced.quarters & 2) != 0;
  return {static_cast<float>(turned ? -s : s),
          static_cast<float>(turned != swapped ? -c : c)};
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_SINE_COSINE_CUH_
