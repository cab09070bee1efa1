// TreeSum: the additions of an all-reduce, in the one order that every Communicator uses.
// Neighbours are added pairwise, lower rank first: ((0+1)+(2+3))+((4+5)+(6+7)). Each
// inner sum is rounded to the type of the operands, which on the host is also the wire
// type.
//
// It moves no bytes between ranks and knows nothing of groups.
#ifndef TESSERA_WORKER_COMM_TREE_SUM_H_
#define TESSERA_WORKER_COMM_TREE_SUM_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/tensor_view.h"

namespace tessera::worker {

// Elements that SumTree handles at a time: 8 operands of 512 doubles stay inside a 32 KiB
// L1.
inline constexpr int64_t kTreeSumBlock = 512;

// Bytes of `scratch` that SumTree needs for `num_operands`.
size_t TreeSumScratchBytes(int num_operands);

// True if the all-reduce can add elements of this type: kF32 and kF64.
bool IsSummable(kernels::DType dtype);

// x[i] = lower[i] + higher[i] where x is one of the two: one inner node of the tree.
// `n` elements of `dtype`.
void AddPair(kernels::DType dtype, const void* lower, const void* higher, void* out,
             int64_t n);

// Elements [begin, end) of all operands become their tree sum, in place in every operand.
// The number of operands is a power of two, in rank order. `scratch` has
// TreeSumScratchBytes and is aligned for doubles. Reads and writes no element outside of
// the range.
void SumTreeInPlace(kernels::DType dtype, std::span<void* const> operands, int64_t begin,
                    int64_t end, std::span<std::byte> scratch);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_TREE_SUM_H_
