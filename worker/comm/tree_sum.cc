#include "worker/comm/tree_sum.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"

namespace tessera::worker {
namespace {

using kernels::DType;

template <typename T>
void Add(const T* lower, const T* higher, T* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = lower[i] + higher[i];
  }
}

// One block of at most kTreeSumBlock elements from `begin`.
template <typename T>
void SumBlock(std::span<void* const> operands, int64_t begin, int64_t n, T* scratch) {
  const auto operand = [&](size_t i) { return static_cast<T*>(operands[i]) + begin; };
  size_t nodes = operands.size() / 2;
  for (size_t i = 0; i < nodes; ++i) {
    Add(operand(2 * i), operand(2 * i + 1), scratch + i * kTreeSumBlock, n);
  }
  // Node i of the next level is written over node i of this one, after both children were
  // read.
  for (; nodes > 1; nodes /= 2) {
    for (size_t i = 0; i < nodes / 2; ++i) {
      Add(scratch + 2 * i * kTreeSumBlock, scratch + (2 * i + 1) * kTreeSumBlock,
          scratch + i * kTreeSumBlock, n);
    }
  }
  for (size_t i = 0; i < operands.size(); ++i) {
    std::memcpy(operand(i), scratch, static_cast<size_t>(n) * sizeof(T));
  }
}

template <typename T>
void SumRange(std::span<void* const> operands, int64_t begin, int64_t end, T* scratch) {
  for (int64_t at = begin; at < end; at += kTreeSumBlock) {
    SumBlock(operands, at, std::min(kTreeSumBlock, end - at), scratch);
  }
}

}  // namespace

size_t TreeSumScratchBytes(int num_operands) {
  return static_cast<size_t>(num_operands / 2) * kTreeSumBlock * sizeof(double);
}

bool IsSummable(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF64; }

void AddPair(DType dtype, const void* lower, const void* higher, void* out, int64_t n) {
  TESSERA_CHECK(IsSummable(dtype));
  if (dtype == DType::kF32) {
    Add(static_cast<const float*>(lower), static_cast<const float*>(higher),
        static_cast<float*>(out), n);
  } else {
    Add(static_cast<const double*>(lower), static_cast<const double*>(higher),
        static_cast<double*>(out), n);
  }
}

void SumTreeInPlace(DType dtype, std::span<void* const> operands, int64_t begin,
                    int64_t end, std::span<std::byte> scratch) {
  const size_t size = operands.size();
  TESSERA_CHECK(size != 0 && (size & (size - 1)) == 0);
  TESSERA_CHECK(IsSummable(dtype));
  TESSERA_CHECK_LE(TreeSumScratchBytes(static_cast<int>(size)), scratch.size());
  if (size == 1) {
    return;
  }
  if (dtype == DType::kF32) {
    SumRange(operands, begin, end, reinterpret_cast<float*>(scratch.data()));
  } else {
    SumRange(operands, begin, end, reinterpret_cast<double*>(scratch.data()));
  }
}

}  // namespace tessera::worker
