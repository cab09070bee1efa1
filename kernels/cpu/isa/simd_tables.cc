#include "kernels/cpu/isa/simd_tables.h"

#include "kernels/cpu/simd/tiles/tile_ops.h"

namespace tessera::kernels::cpu {

SimdOps TableOf(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return scalar::kOps;
    case CpuIsa::kAvx2:
      return avx2::kOps;
    case CpuIsa::kAvx512:
      return avx512::kOps;
    case CpuIsa::kAvx512Vnni:
      return avx512vnni::kOps;
    case CpuIsa::kAmx: {
      SimdOps ops = avx512vnni::kOps;
      ops.rounded_linear = amx::kTileOps.rounded_linear;
      return ops;
    }
  }
  return scalar::kOps;
}

}  // namespace tessera::kernels::cpu
