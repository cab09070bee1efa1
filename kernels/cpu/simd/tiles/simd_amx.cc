// Products of RoundedTask by tile registers, with the vectors of avx512vnni.
#define TESSERA_SIMD_ISA amx

// The kernels come last.
// clang-format off
#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/simd/vector_avx512.h"
#include "kernels/cpu/simd/weights_avx512.h"
#include "kernels/cpu/simd/rounded/bytes_avx512.h"
#include "kernels/cpu/simd/tiles/tiles_amx.h"
#include "kernels/cpu/simd/tiles/tile_table.h"
// clang-format on
