#include "kernels/cpu/isa/cpu_features.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "fmt/format.h"

#include "common/log.h"
#include "common/status_macros.h"

namespace tessera::kernels::cpu {
namespace {

constexpr std::array<CpuIsa, 5> kAllIsas = {
    CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Vnni, CpuIsa::kAmx};

#if defined(__x86_64__)
bool HasAll(uint64_t value, uint64_t wanted) { return (value & wanted) == wanted; }

// Eight tiles of 16 rows of 64 bytes.
bool HasWholeTiles(const CpuBits& cpu) {
  return cpu.palettes >= 1 && (cpu.palette1_eax >> 16) >= 1024 &&
         (cpu.palette1_ebx & 0xffff) >= 64 && (cpu.palette1_ebx >> 16) >= 8 &&
         (cpu.palette1_ecx & 0xffff) >= 16;
}

bool Has(const CpuBits& cpu, CpuIsa isa) {
  constexpr uint64_t kYmmState = 0x06;  // SSE and AVX
  constexpr uint64_t kZmmState = 0xe6;  // and opmask, upper ZMM, ZMM16-31
  constexpr uint64_t kTileState = 0x60000;
  constexpr uint32_t kAmxTileInt8 = (1U << 24) | (1U << 25);
  switch (isa) {
    case CpuIsa::kScalar:
      return true;
    case CpuIsa::kAvx2:
      return HasAll(cpu.enabled, kYmmState) && HasAll(cpu.leaf7_ebx, bit_AVX2) &&
             HasAll(cpu.leaf1_ecx, bit_FMA | bit_F16C | bit_AVX);
    case CpuIsa::kAvx512:
      return Has(cpu, CpuIsa::kAvx2) && HasAll(cpu.enabled, kZmmState) &&
             HasAll(cpu.leaf7_ebx,
                    bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL);
    case CpuIsa::kAvx512Vnni:
      return Has(cpu, CpuIsa::kAvx512) && HasAll(cpu.leaf7_ecx, bit_AVX512VNNI);
    case CpuIsa::kAmx:
      return Has(cpu, CpuIsa::kAvx512Vnni) && HasAll(cpu.enabled, kTileState) &&
             HasAll(cpu.leaf7_edx, kAmxTileInt8) && HasWholeTiles(cpu);
  }
  return false;
}
#endif

}  // namespace

std::string_view CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return "scalar";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Vnni:
      return "avx512vnni";
    case CpuIsa::kAmx:
      return "amx";
  }
  return "unknown";
}

CpuBits ReadCpu() {
  CpuBits bits;
#if defined(__x86_64__)
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0) {
    bits.leaf1_ecx = ecx;
  }
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) {
    bits.leaf7_ebx = ebx;
    bits.leaf7_ecx = ecx;
    bits.leaf7_edx = edx;
  }
  constexpr uint32_t kTiles = 0x1d;
  if (__get_cpuid_count(kTiles, 0, &eax, &ebx, &ecx, &edx) != 0) {
    bits.palettes = eax;
  }
  if (bits.palettes >= 1 && __get_cpuid_count(kTiles, 1, &eax, &ebx, &ecx, &edx) != 0) {
    bits.palette1_eax = eax;
    bits.palette1_ebx = ebx;
    bits.palette1_ecx = ecx;
  }
  if ((bits.leaf1_ecx & bit_OSXSAVE) != 0) {
    uint32_t low = 0;
    uint32_t high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    bits.enabled = (static_cast<uint64_t>(high) << 32) | low;
  }
#endif
  return bits;
}

std::vector<CpuIsa> CpuIsasOf([[maybe_unused]] const CpuBits& cpu) {
#if defined(__x86_64__)
  std::vector<CpuIsa> available;
  std::copy_if(kAllIsas.begin(), kAllIsas.end(), std::back_inserter(available),
               [&](CpuIsa isa) { return Has(cpu, isa); });
  return available;
#else
  return {CpuIsa::kScalar};
#endif
}

absl::StatusOr<CpuIsa> ChooseCpuIsa(std::string_view name,
                                    const std::vector<CpuIsa>& available) {
  if (name == "auto") {
    return available.back();
  }
  for (const CpuIsa isa : kAllIsas) {
    if (name != CpuIsaName(isa)) {
      continue;
    }
    if (std::find(available.begin(), available.end(), isa) == available.end()) {
      return absl::InvalidArgumentError(
          fmt::format("cpu instruction set '{}': this machine has at most '{}'", name,
                      CpuIsaName(available.back())));
    }
    return isa;
  }
  return absl::InvalidArgumentError(fmt::format(
      "cpu instruction set '{}', expected auto, scalar, avx2, avx512, avx512vnni or amx",
      name));
}

absl::StatusOr<CpuIsa> SettleCpuIsa(std::string_view name,
                                    const std::vector<CpuIsa>& available,
                                    absl::FunctionRef<absl::Status()> prepare_tiles) {
  TESSERA_ASSIGN_OR_RETURN(const CpuIsa isa, ChooseCpuIsa(name, available));
  if (isa != CpuIsa::kAmx) {
    return isa;
  }
  const absl::Status tiles = prepare_tiles();
  if (tiles.ok()) {
    return isa;
  }
  if (name != "auto") {
    return tiles;
  }
  log::Error("kernels", "cpu backend without matrix tiles",
             {{"reason", std::string(tiles.message())},
              {"isa", CpuIsaName(CpuIsa::kAvx512Vnni)}});
  return CpuIsa::kAvx512Vnni;
}

}  // namespace tessera::kernels::cpu
