// The scale that a group of values shares when it becomes fp8 or fp4, all in float32: one
// definition for fake quantisation on every backend and for packed cache rows.
#ifndef TESSERA_KERNELS_GROUP_SCALE_H_
#define TESSERA_KERNELS_GROUP_SCALE_H_

namespace tessera::kernels {

// The scale of a group that becomes e2m1, a = max |x| over it:
//   kE8M0: the smallest 2^k >= max(a, 6 2^-126) / 6 (model.md 2.2)
//   kE4M3: e4m3(max(a, 6 2^-9) / 6), rounded to nearest: it may be too small for a, hence
//          the limit of 6 (model.md 9.2)
enum class Fp4Scale { kE8M0, kE4M3 };

// The smallest 2^k >= max(largest, 1e-4) / 448 (model.md 2.2). `largest` is finite here
// and below.
float E4M3GroupScale(float largest);
float Fp4GroupScale(Fp4Scale kind, float largest);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_GROUP_SCALE_H_
