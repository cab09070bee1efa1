// Numerics fp8-g128: which products take their inputs in FP8, and what they then are.
// All else of these numerics is f32. One definition for the backends that have it, cuda
// (tensor cores, docs/design/0010-hopper-kernels.md) and reference (plain loops).
//
// A group is 128 inputs of a row of x, from its first one on; the last may be shorter.
// FakeQuantizeE4M3's rule makes it e4m3 codes and a scale sx, a power of two; a group
// with a NaN or an infinity has the scale NaN, and what it meets is NaN. P(i, j) is the
// sum of the products of codes over inputs i to j - 1, added to what it begins with
// exactly and rounded to float32 once: what the simulated tensor cores do. A GPU's differ
// in the last bits, so `cuda` and `cuda_sim` are two numerics here as elsewhere.
//
//   FP8 weights, scales sw of 128 x 128. A group's sum S is four P of 32 inputs, each on
//   top of the one before. Of a leaf, or the whole row, groups rising:
//     sum = fma(S, sx * sw, sum)
//   then the tree over the leaves (KSplit).
//   FP4 weights, scales sw of 1 x 32, of experts alone. The codes are e2m1 values / 64,
//   which e4m3 holds exactly. A group's sum is S = fma(P, sw, S) over its runs of 32
//   inputs, each P from zero; then sum = fma(S, sx, sum), and the result is 64 sum.
#ifndef TESSERA_KERNELS_FP8_PRODUCTS_H_
#define TESSERA_KERNELS_FP8_PRODUCTS_H_

#include <cstdint>
#include <string_view>

#include "kernels/op_args.h"
#include "kernels/row_format.h"
#include "kernels/weight_view.h"

namespace tessera::kernels {

inline constexpr int64_t kFp8Group = 128;  // inputs that share a scale of x
inline constexpr int64_t kFp8Run = 32;     // inputs of one P
inline constexpr int64_t kFp4Group = 32;   // inputs that share a scale of FP4 weights
inline constexpr float kFp4CodeUnit = 64;  // an e2m1 value over its code's

// Whether Linear takes its inputs in FP8: weights e4m3 with scales of 128 x 128, rows of
// a multiple of 16 and at most 128 Ki inputs, not cut inside of a block's columns. Where
// TP may cut the contraction, leaves of whole groups, so a total that is a multiple of
// 1024: it depends on the whole tensor, and every tp decides alike. Other products are
// those of f32.
bool IsFp8Product(const WeightView& w, const KSplit& split);

// Whether GroupedExperts does, for all three matrices of the expert: each as above, or
// FP4 with rows of a multiple of 32 and at most 16 Ki inputs. x is rounded before gate
// and up, weighted activations before down.
bool IsFp8Expert(const ExpertWeights& expert);

// Whether a backend with this id (KernelBackend::numerics_id) has these numerics.
bool IsFp8Numerics(std::string_view numerics_id);

// A row of x as it is rounded: e4m3 codes, then a float32 scale for each group, which is
// what StorePaged makes of x in this format. GroupedExperts of these numerics takes such
// rows, u8 at multiples of 4 bytes, in place of x where every expert IsFp8Expert, and
// gives the bits of x. Products of code and scale would not do: they may round to another
// scale, and overflow. Any bytes are allowed; what they make of an item is its own.
RowFormat Fp8RowFormat(int64_t inputs);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_FP8_PRODUCTS_H_
