// The scalar table: the shared kernels over the scalar vector.
#include "kernels/cpu/simd/rounded/bytes_scalar.h"
#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/simd/vector_scalar.h"
#include "kernels/cpu/simd/weights_scalar.h"

#define TESSERA_SIMD_ISA scalar

#include "kernels/cpu/simd/simd_table.h"
