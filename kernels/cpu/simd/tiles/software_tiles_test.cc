// SoftwareTiles against the words of the architecture: shapes, what lies beyond them,
// strides, the sum modulo 2^32, and every misuse that a processor answers with a fault.
#include "kernels/cpu/simd/tiles/software_tiles.h"

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::kernels::cpu {
namespace {

// Sums of 2 x 3, a left side of 2 x 8 bytes, a right one of 8 x 3; a tile of whole size.
TileConfig SmallConfig() {
  TileConfig config = {};
  config.palette = 1;
  config.rows[0] = 2;
  config.row_bytes[0] = 12;
  config.rows[1] = 2;
  config.row_bytes[1] = 8;
  config.rows[2] = 2;
  config.row_bytes[2] = 12;
  config.rows[3] = 16;
  config.row_bytes[3] = 64;
  return config;
}

TEST(SoftwareTiles, ProductsAreOfColumnsInGroupsOfFour) {
  SoftwareTiles tiles;
  tiles.Configure(SmallConfig());
  const std::array<int8_t, 16> a = {1, -2, 3, -4, 5, 6, 7, -128, -1, 0, 0, 0, 0, 0, 0, 9};
  std::array<uint8_t, 24> b;
  for (size_t i = 0; i < b.size(); ++i) {
    b[i] = static_cast<uint8_t>(255 - 10 * i);
  }
  const std::array<int32_t, 6> before = {100, 200, 300, -1, -2, -3};
  std::array<int32_t, 6> sums = {};
  tiles.Load(0, before.data(), 12);
  tiles.Load(1, a.data(), 8);
  tiles.Load(2, b.data(), 12);
  tiles.AddProducts(0, 1, 2);
  tiles.Store(0, sums.data(), 12);
  EXPECT_EQ(tiles.fault(), "");
  EXPECT_EQ(tiles.products(), 1);
  for (size_t m = 0; m < 2; ++m) {
    for (size_t n = 0; n < 3; ++n) {
      int32_t expected = before[m * 3 + n];
      for (size_t k = 0; k < 8; ++k) {
        expected += a[m * 8 + k] * b[k / 4 * 12 + n * 4 + k % 4];
      }
      EXPECT_EQ(sums[m * 3 + n], expected) << m << ", " << n;
    }
  }
}

TEST(SoftwareTiles, SumsWrapAround) {
  SoftwareTiles tiles;
  TileConfig config = {};
  config.palette = 1;
  for (size_t i = 0; i < 3; ++i) {
    config.rows[i] = 1;
    config.row_bytes[i] = 4;
  }
  tiles.Configure(config);
  const int32_t most = std::numeric_limits<int32_t>::max();
  const std::array<int8_t, 4> a = {1, 0, 0, 0};
  const std::array<uint8_t, 4> b = {1, 0, 0, 0};
  int32_t sum = 0;
  tiles.Load(0, &most, 4);
  tiles.Load(1, a.data(), 4);
  tiles.Load(2, b.data(), 4);
  tiles.AddProducts(0, 1, 2);
  tiles.Store(0, &sum, 4);
  EXPECT_EQ(sum, std::numeric_limits<int32_t>::min());
}

TEST(SoftwareTiles, LoadsAndStoresTouchTheBytesOfTheShapeAlone) {
  SoftwareTiles tiles;
  tiles.Configure(SmallConfig());
  std::array<uint8_t, 64> memory;
  memory.fill(7);
  std::array<uint8_t, 64> out = {};
  tiles.Load(0, memory.data(), 40);
  tiles.Store(0, out.data(), 20);  // another stride
  for (size_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(out[i], i < 12 || (i >= 20 && i < 32) ? 7 : 0) << i;
  }
  tiles.Zero(0);
  tiles.Store(0, out.data(), 20);
  EXPECT_EQ(out, (std::array<uint8_t, 64>{}));
  EXPECT_EQ(tiles.fault(), "");
}

TEST(SoftwareTiles, AConfigurationMakesTilesZero) {
  SoftwareTiles tiles;
  const std::array<int32_t, 6> before = {1, 2, 3, 4, 5, 6};
  tiles.Configure(SmallConfig());
  tiles.Load(0, before.data(), 12);
  tiles.Configure(SmallConfig());
  std::array<int32_t, 6> out = before;
  tiles.Store(0, out.data(), 12);
  EXPECT_EQ(out, (std::array<int32_t, 6>{}));
}

using Use = std::function<void(SoftwareTiles&)>;

// What a configuration that `change` has changed is refused for; empty if it is not.
std::string FaultOf(
    const std::function<void(TileConfig&)>& change,
    const Use& use = [](SoftwareTiles&) {}) {
  TileConfig config = SmallConfig();
  change(config);
  SoftwareTiles tiles;
  tiles.Configure(config);
  use(tiles);
  return tiles.fault();
}

TEST(SoftwareTiles, RefusesConfigurationsThatFault) {
  EXPECT_EQ(FaultOf([](TileConfig&) {}), "");
  const std::vector<std::pair<const char*, std::function<void(TileConfig&)>>> cases = {
      {"palette", [](TileConfig& c) { c.palette = 2; }},
      {"reserved", [](TileConfig& c) { c.reserved[13] = 1; }},
      {"does not exist", [](TileConfig& c) { c.rows[8] = 1; }},
      {"does not exist", [](TileConfig& c) { c.row_bytes[15] = 4; }},
      {"beyond", [](TileConfig& c) { c.rows[3] = 17; }},
      {"beyond", [](TileConfig& c) { c.row_bytes[3] = 65; }},
      {"one side", [](TileConfig& c) { c.rows[3] = 0; }},
      {"one side", [](TileConfig& c) { c.row_bytes[3] = 0; }}};
  for (const auto& [word, change] : cases) {
    EXPECT_NE(FaultOf(change).find(word), std::string::npos) << word;
  }
}

TEST(SoftwareTiles, RefusesUsesThatFault) {
  int32_t word = 0;
  const auto same = [](TileConfig&) {};
  const std::vector<std::pair<const char*, Use>> uses = {
      {"configuration", [](SoftwareTiles& t) { (t.Release(), t.Zero(0)); }},
      {"configuration", [](SoftwareTiles& t) { (t.Configure({}), t.Zero(0)); }},
      {"does not exist", [](SoftwareTiles& t) { t.Zero(8); }},
      {"without a shape", [&](SoftwareTiles& t) { t.Load(5, &word, 0); }},
      {"without a shape", [&](SoftwareTiles& t) { t.Store(5, &word, 0); }},
      {"two operands", [](SoftwareTiles& t) { t.AddProducts(0, 1, 1); }},
      {"two operands", [](SoftwareTiles& t) { t.AddProducts(1, 1, 2); }},
      {"heights", [](SoftwareTiles& t) { t.AddProducts(3, 1, 2); }}};
  for (const auto& [expected, use] : uses) {
    EXPECT_NE(FaultOf(same, use).find(expected), std::string::npos) << expected;
  }
  const Use multiply = [](SoftwareTiles& t) { t.AddProducts(0, 1, 2); };
  EXPECT_EQ(FaultOf(same, multiply), "");
  EXPECT_NE(FaultOf([](TileConfig& c) { c.row_bytes[1] = 6; }, multiply).find("words"),
            std::string::npos);
  EXPECT_NE(FaultOf([](TileConfig& c) { c.row_bytes[2] = 16; }, multiply).find("widths"),
            std::string::npos);
  EXPECT_NE(FaultOf([](TileConfig& c) { c.rows[2] = 3; }, multiply).find("not high"),
            std::string::npos);
}

TEST(SoftwareTiles, NothingHappensAfterAFault) {
  SoftwareTiles tiles;
  tiles.Configure(SmallConfig());
  tiles.Zero(9);
  std::array<int32_t, 6> out = {1, 2, 3, 4, 5, 6};
  tiles.Store(0, out.data(), 12);
  EXPECT_EQ(out, (std::array<int32_t, 6>{1, 2, 3, 4, 5, 6}));
  tiles.Reset();
  EXPECT_EQ(tiles.fault(), "");
  EXPECT_FALSE(tiles.configured());
}

}  // namespace
}  // namespace tessera::kernels::cpu
