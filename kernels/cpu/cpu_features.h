// Which instruction sets this machine and its operating system offer to the cpu backend,
// and the choice that --cpu-isa makes among them.
#ifndef TESSERA_KERNELS_CPU_CPU_FEATURES_H_
#define TESSERA_KERNELS_CPU_CPU_FEATURES_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tessera::kernels::cpu {

// In rising order. kAmx computes float32 with the AVX-512 kernels: the bf16 tiles of AMX
// round differently, and the numerics id cpu/f32 promises the same bits at every level.
// kAvx512Vnni: with dot products of bytes.
enum class CpuIsa { kScalar, kAvx2, kAvx512, kAvx512Vnni, kAmx };

std::string_view CpuIsaName(CpuIsa isa);

// Levels that both the processor (CPUID) and the operating system (XCR0) support; kScalar
// always.
std::vector<CpuIsa> AvailableCpuIsas();

// "auto" is the highest available level. kInvalidArgument for an unknown name or a level
// that this machine lacks.
absl::StatusOr<CpuIsa> ChooseCpuIsa(std::string_view name);

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_CPU_FEATURES_H_
