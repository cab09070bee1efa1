// The avx2 table: the shared kernels over the avx2 vector.
#define TESSERA_SIMD_ISA avx2

// The table comes last.
// clang-format off
#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/simd/vector_avx2.h"
#include "kernels/cpu/simd/weights_avx2.h"
#include "kernels/cpu/simd/rounded/bytes_avx2.h"
#include "kernels/cpu/simd/simd_table.h"
// clang-format on
