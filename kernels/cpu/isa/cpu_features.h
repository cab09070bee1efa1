// Which instruction sets this machine and its operating system offer to the cpu backend,
// and the choice that --cpu-isa makes among them.
#ifndef TESSERA_KERNELS_CPU_ISA_CPU_FEATURES_H_
#define TESSERA_KERNELS_CPU_ISA_CPU_FEATURES_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tessera::kernels::cpu {

// In rising order. kAvx512Vnni: with dot products of bytes. kAmx: with products of tiles
// of bytes, for many rows of w8a8-g32 and int8-g32; all else is kAvx512Vnni's.
enum class CpuIsa { kScalar, kAvx2, kAvx512, kAvx512Vnni, kAmx };

std::string_view CpuIsaName(CpuIsa isa);

// What the processor (CPUID) and the operating system (XCR0) say.
struct CpuBits {
  uint32_t leaf1_ecx = 0;
  uint32_t leaf7_ebx = 0;
  uint32_t leaf7_ecx = 0;
  uint32_t leaf7_edx = 0;
  // Leaf 0x1d: the highest palette of tiles; of palette 1 the bytes of all tiles (low
  // half) and of one, the bytes of a row (low half) and tiles, the rows (low half). Some
  // virtual machines report AMX and no palette, and fault.
  uint32_t palettes = 0;
  uint32_t palette1_eax = 0;
  uint32_t palette1_ebx = 0;
  uint32_t palette1_ecx = 0;
  uint64_t enabled = 0;  // XCR0: register state that the system saves
};
CpuBits ReadCpu();

// Levels that both support; kScalar always.
std::vector<CpuIsa> CpuIsasOf(const CpuBits& cpu);

// "auto" is the highest of `available`, of CpuIsasOf. kInvalidArgument for an unknown
// name or a level that is not available.
absl::StatusOr<CpuIsa> ChooseCpuIsa(std::string_view name,
                                    const std::vector<CpuIsa>& available);

// Likewise, but kAmx only where `prepare_tiles` is OK, which is called for kAmx alone.
// Else "auto" is the level below, with an error in the log, and "amx" what it returned.
absl::StatusOr<CpuIsa> SettleCpuIsa(std::string_view name,
                                    const std::vector<CpuIsa>& available,
                                    absl::FunctionRef<absl::Status()> prepare_tiles);

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_ISA_CPU_FEATURES_H_
