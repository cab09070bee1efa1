// The kernels of simd_amx.cc over registers in software and scalar vectors, for machines
// of any kind.
#define TESSERA_SIMD_ISA scalar

// The kernels come last.
// clang-format off
#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/simd/vector_scalar.h"
#include "kernels/cpu/simd/weights_scalar.h"
#include "kernels/cpu/simd/rounded/bytes_scalar.h"
#include "kernels/cpu/simd/tiles/tiles_twin.h"
#include "kernels/cpu/simd/tiles/tile_table.h"
// clang-format on
