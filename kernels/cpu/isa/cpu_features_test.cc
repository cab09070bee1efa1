// Which instruction sets follow from what processor and system say, and which of them a
// backend takes; processors are made up.
#include "kernels/cpu/isa/cpu_features.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::kernels::cpu {
namespace {

using testing::HasSubstr;

constexpr uint32_t kAmxBf16 = 1U << 22;
constexpr uint32_t kAmxTile = 1U << 24;
constexpr uint32_t kAmxInt8 = 1U << 25;

// A Sapphire Rapids under a system that saves all of its registers.
CpuBits WithTiles() {
  CpuBits cpu;
  cpu.leaf1_ecx = (1U << 12) | (1U << 27) | (1U << 28) | (1U << 29);
  cpu.leaf7_ebx = (1U << 5) | (1U << 16) | (1U << 17) | (1U << 30) | (1U << 31);
  cpu.leaf7_ecx = 1U << 11;
  cpu.leaf7_edx = kAmxBf16 | kAmxTile | kAmxInt8;
  cpu.palettes = 1;
  cpu.palette1_eax = (1024U << 16) | 8192;
  cpu.palette1_ebx = (8U << 16) | 64;
  cpu.palette1_ecx = 16;
  cpu.enabled = 0x600e7;
  return cpu;
}

CpuIsa Highest(const CpuBits& cpu) { return CpuIsasOf(cpu).back(); }

TEST(CpuFeatures, AllLevelsInRisingOrder) {
  EXPECT_EQ(CpuIsasOf(WithTiles()),
            (std::vector<CpuIsa>{CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512,
                                 CpuIsa::kAvx512Vnni, CpuIsa::kAmx}));
  EXPECT_EQ(CpuIsasOf(CpuBits()), std::vector<CpuIsa>{CpuIsa::kScalar});
}

TEST(CpuFeatures, TilesNeedProcessorSystemAndPalette) {
  std::vector<CpuBits> without(8, WithTiles());
  without[0].leaf7_edx &= ~kAmxTile;
  without[1].leaf7_edx &= ~kAmxInt8;
  without[2].enabled = 0x400e7;  // the system does not save their shapes
  without[3].enabled = 0x200e7;  // nor what is in them
  without[4].palettes = 0;       // as some virtual machines say
  without[5].palette1_ebx = (4U << 16) | 64;
  without[6].palette1_ecx = 8;
  without[7].palette1_eax = (512U << 16) | 8192;
  for (const CpuBits& cpu : without) {
    EXPECT_EQ(Highest(cpu), CpuIsa::kAvx512Vnni);
  }
  CpuBits no_bf16 = WithTiles();
  no_bf16.leaf7_edx &= ~kAmxBf16;
  EXPECT_EQ(Highest(no_bf16), CpuIsa::kAmx);
  CpuBits narrow = WithTiles();
  narrow.palette1_ebx = (8U << 16) | 32;
  EXPECT_EQ(Highest(narrow), CpuIsa::kAvx512Vnni);
}

TEST(CpuFeatures, ALevelNeedsThoseBelow) {
  CpuBits no_vnni = WithTiles();
  no_vnni.leaf7_ecx = 0;
  EXPECT_EQ(Highest(no_vnni), CpuIsa::kAvx512);
  CpuBits no_zmm = WithTiles();
  no_zmm.enabled = 0x60007;
  EXPECT_EQ(Highest(no_zmm), CpuIsa::kAvx2);
  CpuBits no_fma = WithTiles();
  no_fma.leaf1_ecx &= ~(1U << 12);
  EXPECT_EQ(Highest(no_fma), CpuIsa::kScalar);
}

struct Settled {
  absl::StatusOr<CpuIsa> isa;
  int prepared;  // how often tiles were
};

Settled Settle(std::string_view name, const CpuBits& cpu, const absl::Status& tiles) {
  int prepared = 0;
  const auto isa = SettleCpuIsa(name, CpuIsasOf(cpu), [&] {
    ++prepared;
    return tiles;
  });
  return {isa, prepared};
}

TEST(CpuFeatures, TilesThatWorkAreTaken) {
  for (const std::string_view name : {"auto", "amx"}) {
    const Settled seen = Settle(name, WithTiles(), absl::OkStatus());
    ASSERT_TRUE(seen.isa.ok()) << seen.isa.status();
    EXPECT_EQ(*seen.isa, CpuIsa::kAmx);
    EXPECT_EQ(seen.prepared, 1);
  }
}

TEST(CpuFeatures, TilesThatGiveOtherBitsAreAnErrorInTheLog) {
  const absl::Status differs = absl::InternalError("tiles give other bits");
  testing::internal::CaptureStderr();
  const Settled seen = Settle("auto", WithTiles(), differs);
  const std::string log = testing::internal::GetCapturedStderr();
  ASSERT_TRUE(seen.isa.ok()) << seen.isa.status();
  EXPECT_EQ(*seen.isa, CpuIsa::kAvx512Vnni);
  EXPECT_THAT(log, HasSubstr("tiles give other bits"));
  EXPECT_THAT(log, HasSubstr("error"));
  EXPECT_EQ(Settle("amx", WithTiles(), differs).isa.status(), differs);
}

TEST(CpuFeatures, TilesThatAreNotAskedForAreNotPrepared) {
  const Settled seen = Settle("avx512vnni", WithTiles(), absl::InternalError("unused"));
  ASSERT_TRUE(seen.isa.ok()) << seen.isa.status();
  EXPECT_EQ(*seen.isa, CpuIsa::kAvx512Vnni);
  EXPECT_EQ(seen.prepared, 0);
  CpuBits without = WithTiles();
  without.leaf7_edx = 0;
  EXPECT_EQ(Settle("auto", without, absl::InternalError("unused")).prepared, 0);
}

TEST(CpuFeatures, ALevelThatIsLackingOrUnknownIsRefused) {
  CpuBits without = WithTiles();
  without.leaf7_edx = 0;
  const Settled lacking = Settle("amx", without, absl::OkStatus());
  EXPECT_EQ(lacking.isa.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(lacking.isa.status().message()), HasSubstr("avx512vnni"));
  const Settled unknown = Settle("avx1024", WithTiles(), absl::OkStatus());
  EXPECT_EQ(unknown.isa.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CpuFeatures, ThisMachineHasTheScalarLevel) {
  EXPECT_EQ(CpuIsasOf(ReadCpu()).front(), CpuIsa::kScalar);
}

}  // namespace
}  // namespace tessera::kernels::cpu
