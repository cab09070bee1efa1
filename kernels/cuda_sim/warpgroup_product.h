// The product that four warps make together (wgmma.mma_async into float32), as a function
// of shared memory and registers: descriptors, fragments and sums as the PTX ISA
// document, "Asynchronous Warpgroup Level Matrix Instructions", has them. Pure: what may
// be read when is product_units.h's.
#ifndef TESSERA_KERNELS_CUDA_SIM_WARPGROUP_PRODUCT_H_
#define TESSERA_KERNELS_CUDA_SIM_WARPGROUP_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda/primitives/matrix_major.h"

namespace tessera::kernels::cuda_sim {

inline constexpr uint32_t kWarpgroupThreads = 128;
inline constexpr uint32_t kProductRows = 64;    // of the first matrix
inline constexpr uint32_t kProductInputs = 32;  // of e4m3 that one product sums over
inline constexpr uint32_t kProductBytes = 32;   // of a row's inputs, in either type

// Of the values of both matrices.
enum class ProductType { kE4M3, kBF16 };

// Where value i of thread t of the warpgroup lies in the result.
constexpr uint32_t FragmentRow(uint32_t thread, uint32_t i) {
  return 16 * (thread / cuda::kWarpSize) + 8 * (i / 2 % 2) + thread % cuda::kWarpSize / 4;
}
constexpr uint32_t FragmentColumn(uint32_t thread, uint32_t i) {
  return 8 * (i / 4) + 2 * (thread % 4) + i % 2;
}

// A matrix in shared memory as one product reads it: `rows` rows (columns, of the second
// matrix) of 32 bytes of inputs. It lies in lines of 128 bytes, swizzled, eight of them
// one after the other, in pieces of 16 bytes.
//   kK:  a line is a row, of which the product takes 32 bytes; the next eight rows are
//        `stride` further.
//   kMN: a line is one input of 64 rows, BF16 alone; the next eight inputs are `stride`
//        further, the next 64 rows `leading`.
struct ProductMatrix {
  uint32_t address = 0;
  uint32_t leading_bytes = 0;
  uint32_t stride_bytes = 0;
  uint32_t swizzle = 0;  // 1: of 128 bytes
  uint32_t base_offset = 0;
  cuda::Major major = cuda::Major::kK;
  uint32_t rows = 0;

  static ProductMatrix Decode(uint64_t descriptor, cuda::Major major, uint32_t rows);
  // What keeps the tensor cores from reading it in `shared_bytes`; empty if nothing does.
  std::string Problem(uint32_t shared_bytes) const;

  uint32_t num_pieces() const { return 2 * rows; }
  uint32_t PieceAddress(uint32_t piece) const;
  // kK: piece 2 r + i has bytes 16 i.. of row r. kMN: piece 16 g + k has input k of rows
  // 8 g to 8 g + 7.
  uint32_t FirstRowOf(uint32_t piece) const;
};

// result[row * columns + col] = before + sum over the inputs, the sum in float64 (where
// that of e4m3 is exact) and rounded to float32 once. `before` empty: zeros. `a` has 64
// rows.
std::vector<float> Multiply(ProductType type, std::span<const std::byte> shared,
                            const ProductMatrix& a, const ProductMatrix& b,
                            std::span<const float> before);

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_WARPGROUP_PRODUCT_H_
