// Descriptors by which the tensor cores find tiles in shared memory (PTX ISA, "matrix
// descriptor" of wgmma).
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_MATRIX_DESCRIPTOR_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_MATRIX_DESCRIPTOR_CUH_

#include <cstdint>

#include "kernels/cuda/primitives/device.cuh"

namespace tessera::kernels::cuda {

// A tile of rows of 128 bytes, swizzled, at `address`, a multiple of 1024: groups of
// eight rows are 1024 bytes apart. In units of 16 bytes; the other stride has no meaning
// here and is 1.
TESSERA_DEVICE inline uint64_t SwizzledTile(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kStride = uint64_t{1024 / 16} << 32;
  constexpr uint64_t kUnused = uint64_t{1} << 16;
  return kSwizzle128 | kStride | kUnused | (address / 16 & 0x3fffU);
}

// The same rows, `bytes` further on in each.
TESSERA_DEVICE inline uint64_t Advanced(uint64_t descriptor, uint32_t bytes) {
  return descriptor + bytes / 16;
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_MATRIX_DESCRIPTOR_CUH_
