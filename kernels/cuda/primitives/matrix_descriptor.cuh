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

// The same tile where its lines are inputs, 64 values of BF16 in each (Major::kMN):
// groups of eight inputs are 1024 bytes apart, the next 64 values `leading` bytes.
TESSERA_DEVICE inline uint64_t SwizzledTileByInputs(uint32_t address, uint32_t leading) {
  constexpr uint64_t kLeadingField = uint64_t{0x3fff} << 16;
  return (SwizzledTile(address) & ~kLeadingField) | uint64_t{leading / 16} << 16;
}

// Where the swizzle puts byte `at` of such a tile.
TESSERA_DEVICE inline uint32_t SwizzledByte(uint32_t at) {
  return at ^ ((at >> 7 & 7U) << 4);
}

// The same lines, `bytes` further on in each, or as many whole lines on.
TESSERA_DEVICE inline uint64_t Advanced(uint64_t descriptor, uint32_t bytes) {
  return descriptor + bytes / 16;
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_MATRIX_DESCRIPTOR_CUH_
