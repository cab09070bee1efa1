#include "cli/bench/machine_limits.h"

#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/cpu/isa/cpu_features.h"
#include "kernels/cpu/isa/tile_support.h"

namespace tessera::cli {
namespace {

namespace cpu = kernels::cpu;

TEST(MachineLimits, IntegersAreMultipliedByTheHighestLevel) {
  const cpu::CpuIsa highest = cpu::CpuIsasOf(cpu::ReadCpu()).back();
  const std::string_view name = MachineLimits::InstructionSet(Arithmetic::kInt8);
  const bool tiles = highest == cpu::CpuIsa::kAmx && cpu::PrepareTiles().ok();
  EXPECT_EQ(name == "amx_int8", tiles) << name;
  EXPECT_EQ(name == "avx512_vnni", !tiles && highest >= cpu::CpuIsa::kAvx512Vnni) << name;
}

TEST(MachineLimits, BothKindsOfProductsHaveALimit) {
  MachineLimits machine(1, Clock::Real());
  EXPECT_GT(machine.MultiplyAddsPerSecond(Arithmetic::kF32), 0);
  EXPECT_GT(machine.MultiplyAddsPerSecond(Arithmetic::kInt8), 0);
}

}  // namespace
}  // namespace tessera::cli
