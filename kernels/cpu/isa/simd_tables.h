// The inner loops of each instruction set.
#ifndef TESSERA_KERNELS_CPU_ISA_SIMD_TABLES_H_
#define TESSERA_KERNELS_CPU_ISA_SIMD_TABLES_H_

#include "kernels/cpu/isa/cpu_features.h"
#include "kernels/cpu/simd/simd_ops.h"

namespace tessera::kernels::cpu {

// May be taken on any machine; its functions need one of that level.
SimdOps TableOf(CpuIsa isa);

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_ISA_SIMD_TABLES_H_
