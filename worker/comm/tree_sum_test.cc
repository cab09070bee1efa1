#include "worker/comm/tree_sum.h"

#include <array>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::worker {
namespace {

using kernels::DType;

TEST(TreeSum, AddsNeighboursPairwise) {
  // 2^24 + 1 is not a float32, so each order of these sums has other bits.
  const float big = 16777216.0f;
  std::array<float, 4> x = {big, 1.0f, 1.0f, 1.0f};
  std::array<void*, 4> operands = {&x[0], &x[1], &x[2], &x[3]};
  std::vector<std::byte> scratch(TreeSumScratchBytes(4));
  SumTreeInPlace(DType::kF32, operands, 0, 1, scratch);
  const float expected = (big + 1.0f) + (1.0f + 1.0f);
  const float left_to_right = ((big + 1.0f) + 1.0f) + 1.0f;
  ASSERT_NE(expected, left_to_right);
  for (const float value : x) {
    EXPECT_EQ(value, expected);
  }
}

TEST(TreeSum, TouchesNothingOutsideOfItsRange) {
  const int64_t n = 3 * kTreeSumBlock + 7;
  std::vector<double> a(static_cast<size_t>(n), 1.0);
  std::vector<double> b(static_cast<size_t>(n), 2.0);
  std::array<void*, 2> operands = {a.data(), b.data()};
  std::vector<std::byte> scratch(TreeSumScratchBytes(2));
  SumTreeInPlace(DType::kF64, operands, 5, n - 3, scratch);
  for (int64_t i = 0; i < n; ++i) {
    const bool inside = i >= 5 && i < n - 3;
    EXPECT_EQ(a[static_cast<size_t>(i)], inside ? 3.0 : 1.0) << i;
    EXPECT_EQ(b[static_cast<size_t>(i)], inside ? 3.0 : 2.0) << i;
  }
}

TEST(TreeSum, PairsEqualTheTree) {
  const std::array<float, 4> x = {0.1f, 1e8f, -0.3f, 7.7f};
  std::array<float, 4> tree = x;
  std::array<void*, 4> operands = {&tree[0], &tree[1], &tree[2], &tree[3]};
  std::vector<std::byte> scratch(TreeSumScratchBytes(4));
  SumTreeInPlace(DType::kF32, operands, 0, 1, scratch);
  float lower = 0;
  float higher = 0;
  AddPair(DType::kF32, &x[0], &x[1], &lower, 1);
  AddPair(DType::kF32, &x[2], &x[3], &higher, 1);
  AddPair(DType::kF32, &lower, &higher, &lower, 1);
  EXPECT_EQ(lower, tree[0]);
}

TEST(TreeSum, OneOperandStaysAsItIs) {
  float x = 3.0f;
  std::array<void*, 1> operands = {&x};
  SumTreeInPlace(DType::kF32, operands, 0, 1, {});
  EXPECT_EQ(x, 3.0f);
}

}  // namespace
}  // namespace tessera::worker
