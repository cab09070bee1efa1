#include "kernels/cpu/cpu_features.h"

#include <algorithm>
#include <array>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "fmt/format.h"

#include "common/status.h"

namespace tessera::kernels::cpu {
namespace {

constexpr std::array<CpuIsa, 5> kAllIsas = {
    CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Vnni, CpuIsa::kAmx};

#if defined(__x86_64__)
struct CpuBits {
  uint32_t leaf1_ecx = 0;
  uint32_t leaf7_ebx = 0;
  uint32_t leaf7_ecx = 0;
  uint32_t leaf7_edx = 0;
  uint64_t enabled = 0;  // XCR0: register state that the system saves
};

CpuBits ReadCpu() {
  CpuBits bits;
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
  if ((bits.leaf1_ecx & bit_OSXSAVE) != 0) {
    uint32_t low = 0;
    uint32_t high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    bits.enabled = (static_cast<uint64_t>(high) << 32) | low;
  }
  return bits;
}

bool HasAll(uint64_t value, uint64_t wanted) { return (value & wanted) == wanted; }

bool Has(const CpuBits& cpu, CpuIsa isa) {
  constexpr uint64_t kYmmState = 0x06;  // SSE and AVX
  constexpr uint64_t kZmmState = 0xe6;  // and opmask, upper ZMM, ZMM16-31
  constexpr uint64_t kTileState = 0x60000;
  constexpr uint32_t kAmxTileInt8Bf16 = (1U << 24) | (1U << 25) | (1U << 22);
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
             HasAll(cpu.leaf7_edx, kAmxTileInt8Bf16);
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

std::vector<CpuIsa> AvailableCpuIsas() {
#if defined(__x86_64__)
  const CpuBits cpu = ReadCpu();
  std::vector<CpuIsa> available;
  std::copy_if(kAllIsas.begin(), kAllIsas.end(), std::back_inserter(available),
               [&](CpuIsa isa) { return Has(cpu, isa); });
  return available;
#else
  return {CpuIsa::kScalar};
#endif
}

absl::StatusOr<CpuIsa> ChooseCpuIsa(std::string_view name) {
  const std::vector<CpuIsa> available = AvailableCpuIsas();
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

}  // namespace tessera::kernels::cpu
