// How a matrix in shared memory lies for the tensor cores.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_MATRIX_MAJOR_H_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_MATRIX_MAJOR_H_

namespace tessera::kernels::cuda {

// What is contiguous: the inputs that a product sums over (K), or the rows of the first
// matrix, columns of the second (M, N). The PTX ISA's imm-trans is 1 for kMN.
enum class Major { kK, kMN };

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_MATRIX_MAJOR_H_
