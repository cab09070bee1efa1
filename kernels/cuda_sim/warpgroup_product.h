// The product that four warps make together (wgmma.mma_async, e4m3 by e4m3 into float32),
// as a function of shared memory and registers: descriptors, fragments and sums as the
// PTX ISA document, "Asynchronous Warpgroup Level Matrix Instructions", has them. Pure:
// what may be read when is product_units.h's.
#ifndef TESSERA_KERNELS_CUDA_SIM_WARPGROUP_PRODUCT_H_
#define TESSERA_KERNELS_CUDA_SIM_WARPGROUP_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/primitives/device_types.h"

namespace tessera::kernels::cuda_sim {

inline constexpr uint32_t kWarpgroupThreads = 128;
inline constexpr uint32_t kProductRows = 64;  // of the first matrix
inline constexpr uint32_t kProductInputs =
    32;  // bytes of e4m3 that one product sums over

// Where value i of thread t of the warpgroup lies in the result.
constexpr uint32_t FragmentRow(uint32_t thread, uint32_t i) {
  return 16 * (thread / cuda::kWarpSize) + 8 * (i / 2 % 2) + thread % cuda::kWarpSize / 4;
}
constexpr uint32_t FragmentColumn(uint32_t thread, uint32_t i) {
  return 8 * (i / 4) + 2 * (thread % 4) + i % 2;
}

// A matrix in shared memory whose rows of `kProductInputs` values lie in rows of 128
// bytes, swizzled: eight rows one after the other, the next eight `stride_bytes` further.
struct MatrixDescriptor {
  uint32_t address = 0;
  uint32_t stride_bytes = 0;
  uint32_t swizzle = 0;  // 1: of 128 bytes
  uint32_t base_offset = 0;

  static MatrixDescriptor Decode(uint64_t bits);
  // What keeps the tensor cores from reading `rows` rows there in `shared_bytes`; empty
  // if nothing does.
  std::string Problem(uint32_t rows, uint32_t shared_bytes) const;
  // Address of 16 bytes of a row, piece 0 or 1 of its 32.
  uint32_t PieceAddress(uint32_t row, uint32_t piece) const;
};

// result[row * columns + col] = before + sum over 32 inputs, the sum in float64, where it
// is exact, and rounded to float32 once. `before` empty: zeros.
std::vector<float> MultiplyE4M3(std::span<const std::byte> shared,
                                const MatrixDescriptor& a, const MatrixDescriptor& b,
                                uint32_t columns, std::span<const float> before);

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_WARPGROUP_PRODUCT_H_
