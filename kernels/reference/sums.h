// The one order of summation of the contract in kernel_backend.h, written out: 16 lanes,
// their reduction, and the tree over leaves. Included by the files of kernels/reference
// alone.
#ifndef TESSERA_KERNELS_REFERENCE_SUMS_H_
#define TESSERA_KERNELS_REFERENCE_SUMS_H_

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "common/check.h"
#include "kernels/kernel_backend.h"

namespace tessera::kernels::reference {

inline constexpr int64_t kLanes = 16;

// a * b + c. Fused in float32, as the contract says. In float64 the product is rounded:
// that mode checks a model against its oracle with digits to spare, and a fused call per
// element is slow.
inline float MulAdd(float a, float b, float c) { return std::fma(a, b, c); }
inline double MulAdd(double a, double b, double c) { return a * b + c; }

// Adds the lanes as ((l, l+8), (l, l+4), (l, l+2), (l, l+1)).
template <typename T>
T ReduceLanes(std::array<T, kLanes>& lanes) {
  for (size_t distance = kLanes / 2; distance > 0; distance /= 2) {
    for (size_t lane = 0; lane < distance; ++lane) {
      lanes[lane] += lanes[lane + distance];
    }
  }
  return lanes[0];
}

// sum_i a[i] b[i] in 16 lanes.
template <typename T>
T Dot(const T* a, const T* b, int64_t n) {
  std::array<T, kLanes> lanes = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      T& sum = lanes[static_cast<size_t>(lane)];
      sum = MulAdd(a[i + lane], b[i + lane], sum);
    }
  }
  for (int64_t lane = 0; i + lane < n; ++lane) {
    T& sum = lanes[static_cast<size_t>(lane)];
    sum = MulAdd(a[i + lane], b[i + lane], sum);
  }
  return ReduceLanes(lanes);
}

// sum_i a[i] in 16 lanes.
template <typename T>
T Sum(const T* a, int64_t n) {
  std::array<T, kLanes> lanes = {};
  for (int64_t i = 0; i < n; ++i) {
    lanes[static_cast<size_t>(i % kLanes)] += a[i];
  }
  return ReduceLanes(lanes);
}

// Inputs that the leaves of `split` hold; `whole` if the contraction is not cut.
inline int64_t SplitInputs(const KSplit& split, int64_t whole) {
  if (split.num_leaves == 0) {
    return whole;
  }
  return KSplit::LeafBegin(split.total, split.first_leaf + split.num_leaves) -
         KSplit::LeafBegin(split.total, split.first_leaf);
}

// The binary tree over the sums of leaves, a power of two of them, which it uses up.
template <typename T>
T AddLeaves(std::span<T> sums) {
  for (size_t distance = 1; distance < sums.size(); distance *= 2) {
    for (size_t leaf = 0; leaf < sums.size(); leaf += 2 * distance) {
      sums[leaf] += sums[leaf + distance];
    }
  }
  return sums[0];
}

// Dot over the leaves of `split`: each leaf with lanes of its own, the leaves as a binary
// tree.
template <typename T>
T SplitDot(const T* a, const T* b, int64_t n, const KSplit& split) {
  if (split.num_leaves == 0) {
    return Dot(a, b, n);
  }
  std::array<T, KSplit::kLeaves> sums = {};
  const int64_t begin = KSplit::LeafBegin(split.total, split.first_leaf);
  for (int leaf = 0; leaf < split.num_leaves; ++leaf) {
    const int64_t from = KSplit::LeafBegin(split.total, split.first_leaf + leaf) - begin;
    const int64_t to =
        KSplit::LeafBegin(split.total, split.first_leaf + leaf + 1) - begin;
    sums[static_cast<size_t>(leaf)] = Dot(a + from, b + from, to - from);
  }
  return AddLeaves(std::span<T>(sums.data(), static_cast<size_t>(split.num_leaves)));
}

// 1 / (1 + e^-x) and x times it.
template <typename T>
T Sigmoid(T x) {
  return T{1} / (T{1} + std::exp(-x));
}
template <typename T>
T Silu(T x) {
  return x / (T{1} + std::exp(-x));
}

}  // namespace tessera::kernels::reference

#endif  // TESSERA_KERNELS_REFERENCE_SUMS_H_
