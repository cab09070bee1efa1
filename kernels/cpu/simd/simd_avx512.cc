// The avx512 table: the shared kernels over the avx512 vector.
#define TESSERA_SIMD_ISA avx512

// The table comes last.
// clang-format off
#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/simd/vector_avx512.h"
#include "kernels/cpu/simd/weights_avx512.h"
#include "kernels/cpu/simd/rounded/bytes_avx512.h"
#include "kernels/cpu/simd/simd_table.h"
// clang-format on
