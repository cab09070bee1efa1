// Products of BF16 and what threads exchange through barriers in shared memory: one
// warpgroup writes matrices by ordinary stores, the other multiplies them. They do what
// the PTX ISA says, and each thing that a GPU would hide is planted once and named.
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/check.h"
#include "kernels/cuda_sim/sim_thread.h"
#include "kernels/cuda_sim/tile_map.h"
#include "kernels/cuda_sim/warpgroup_product.h"
#include "tests/testing/sim_arrays.h"

namespace tessera::kernels::cuda_sim {
namespace {

using cuda::GlobalSpan;
using cuda::Major;
using cuda::SharedSpan;
using testing::HasSubstr;

constexpr uint64_t kSeeds = 10;
constexpr uint32_t kRows = 64;
constexpr uint32_t kColumns = 128;  // two groups of 64, kMN
constexpr uint32_t kInputs = 64;    // four products
constexpr uint32_t kTileBytes = 64 * 128;
constexpr uint32_t kBarrierBegin = 3 * kTileBytes;
constexpr uint32_t kSharedBytes = kBarrierBegin + 16;

uint16_t BF16Of(int value) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(value)) >> 16);
}

uint64_t Descriptor(uint32_t address, uint32_t leading = kTileBytes) {
  return uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{leading / 16} << 16 |
         address / 16;
}

// What the exchange does wrong.
enum class Bug {
  kNone,
  kNoWait,
  kOneWarpWaits,
  kNoFence,
  kWrittenAgain,
  kBadLeading,
  kBadAddress,
  kOutside,
};

// a [kRows, kInputs] with inputs together, b [kInputs, kColumns] with columns together.
struct Exchange {
  GlobalSpan<uint16_t> a;
  GlobalSpan<uint16_t> b;
  GlobalSpan<float> out;  // [kRows, kColumns]
  Bug bug = Bug::kNone;

  void Write(SimThread& thread) const {
    const auto values = thread.DynamicShared<uint16_t>();
    const uint32_t t = thread.linear_thread() - kWarpgroupThreads;
    for (uint32_t i = t; i < kRows * kInputs; i += kWarpgroupThreads) {
      thread.Store(values, Swizzled(2 * i) / 2, thread.Load(a, i));
    }
    for (uint32_t i = t; i < kInputs * kColumns; i += kWarpgroupThreads) {
      const uint32_t column = i % kColumns;
      const uint32_t at = (1 + column / 64) * kTileBytes + i / kColumns * 128;
      thread.Store(values, Swizzled(at + column % 64 * 2) / 2, thread.Load(b, i));
    }
    if (bug != Bug::kNoFence) {
      thread.FenceProxyAsync();
    }
    thread.ArriveBarrier(thread.DynamicShared<uint64_t>(kBarrierBegin), 0);
    if (bug == Bug::kWrittenAgain) {
      thread.Store(values, 2 * t, 0);
    }
  }

  void Multiply(SimThread& thread) const {
    const uint32_t t = thread.linear_thread();
    if (bug != Bug::kNoWait && (bug != Bug::kOneWarpWaits || t < cuda::kWarpSize)) {
      thread.WaitBarrier(thread.DynamicShared<uint64_t>(kBarrierBegin), 0, 0);
    }
    const uint32_t begin = thread.SharedAddress(thread.DynamicShared<uint8_t>());
    const uint32_t leading = bug == Bug::kBadLeading ? 512
                             : bug == Bug::kOutside  ? 3 * kTileBytes
                                                     : kTileBytes;
    const uint32_t second = begin + kTileBytes + (bug == Bug::kBadAddress ? 128 : 0);
    float sums[kColumns / 2];
    thread.BeginProducts(sums);
    for (uint32_t i = 0; i < kInputs / 16; ++i) {
      thread.MultiplyBF16<Major::kMN>(sums, Descriptor(begin + 32 * i),
                                      Descriptor(second + 16 * 128 * i, leading), i > 0);
    }
    thread.CommitProducts();
    thread.WaitProducts<0>(sums);
    for (uint32_t i = 0; i < kColumns / 2; ++i) {
      thread.Store(out, FragmentRow(t, i) * kColumns + FragmentColumn(t, i), sums[i]);
    }
  }

  void operator()(SimThread& thread) const {
    if (thread.linear_thread() == 0) {
      thread.InitBarrier(thread.DynamicShared<uint64_t>(kBarrierBegin), 0,
                         kWarpgroupThreads);
    }
    thread.SyncBlock();
    if (thread.linear_thread() < kWarpgroupThreads) {
      Multiply(thread);
    } else {
      Write(thread);
    }
  }
};

struct Outcome {
  std::vector<Finding> findings;
  std::vector<float> out;
};

std::vector<int> RandomInts(uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  std::vector<int> values(count);
  for (int& value : values) {
    value = static_cast<int>(random() % 33) - 16;
  }
  return values;
}

std::vector<uint16_t> ToBF16(const std::vector<int>& values) {
  std::vector<uint16_t> halves;
  for (const int value : values) {
    halves.push_back(BF16Of(value));
  }
  return halves;
}

const std::vector<int>& First() {
  static const std::vector<int> values = RandomInts(1, kRows * kInputs);
  return values;
}
const std::vector<int>& Second() {
  static const std::vector<int> values = RandomInts(2, kInputs * kColumns);
  return values;
}

Outcome RunExchange(uint64_t seed, Bug bug) {
  SimArrays device(seed);
  const Exchange exchange = {device.Array(ToBF16(First())),
                             device.Array(ToBF16(Second())),
                             device.Array(std::vector<float>(kRows * kColumns)), bug};
  device.Run({.block = {2 * kWarpgroupThreads}, .shared_bytes = kSharedBytes},
             [exchange](SimThread& thread) { exchange(thread); });
  return {device.findings(), device.Read(exchange.out)};
}

TEST(SimProducts, MatricesThatThreadsWroteAreMultipliedUnderEverySeed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Outcome outcome = RunExchange(seed, Bug::kNone);
    ASSERT_TRUE(outcome.findings.empty()) << outcome.findings[0].ToString();
    for (size_t row = 0; row < kRows; ++row) {
      for (size_t col = 0; col < kColumns; ++col) {
        int sum = 0;  // small enough to be exact in float32
        for (size_t k = 0; k < kInputs; ++k) {
          sum += First()[row * kInputs + k] * Second()[k * kColumns + col];
        }
        ASSERT_EQ(outcome.out[row * kColumns + col], static_cast<float>(sum))
            << row << " " << col;
      }
    }
  }
}

// Each under every seed, and nothing but what is meant is found first.
TEST(SimProducts, PlantedBugsAreFoundAndNamed) {
  struct Planted {
    Bug bug;
    FindingKind kind;
    std::string detail;
  };
  const std::vector<Planted> bugs = {
      {Bug::kOneWarpWaits, FindingKind::kRace, "what a thread has written"},
      {Bug::kNoFence, FindingKind::kMissingFence, "without fence.proxy.async"},
      {Bug::kBadLeading, FindingKind::kBadDescriptor, "128 rows with 512 bytes"},
      {Bug::kBadAddress, FindingKind::kBadDescriptor, "begin at multiples of 1024"},
      {Bug::kOutside, FindingKind::kBadDescriptor, "bytes of shared memory"}};
  for (const Planted& planted : bugs) {
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      const Outcome outcome = RunExchange(seed, planted.bug);
      const auto number = static_cast<int>(planted.bug);
      ASSERT_FALSE(outcome.findings.empty()) << number << ", seed " << seed;
      EXPECT_EQ(outcome.findings[0].kind, planted.kind)
          << number << ": " << outcome.findings[0].ToString();
      EXPECT_THAT(outcome.findings[0].detail, HasSubstr(planted.detail)) << number;
    }
  }
}

// Which side comes first, or whether anything was written yet, depends on the seed.
TEST(SimProducts, UnorderedWritersAndProductsAreFound) {
  for (const Bug bug : {Bug::kNoWait, Bug::kWrittenAgain}) {
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      const Outcome outcome = RunExchange(seed, bug);
      ASSERT_FALSE(outcome.findings.empty()) << seed;
      EXPECT_THAT(outcome.findings[0].detail,
                  testing::AnyOf(HasSubstr("what a thread has written"),
                                 HasSubstr("readers have not said"),
                                 HasSubstr("memory that nobody wrote"),
                                 HasSubstr("without fence.proxy.async")));
    }
  }
}

// A word that a thread of warp 0 writes, twice, and warps 1 to 3 read in between.
std::vector<Finding> RunWord(uint64_t seed, bool readers_wait, bool writer_waits) {
  SimArrays device(seed);
  const auto out = device.Array(std::vector<float>(128));
  device.Run({.block = {128}, .shared_bytes = 64}, [=](SimThread& thread) {
    const auto word = thread.DynamicShared<float>();
    const auto barriers = thread.DynamicShared<uint64_t>(16);
    const uint32_t t = thread.linear_thread();
    if (t == 0) {
      thread.InitBarrier(barriers, 0, 1);
      thread.InitBarrier(barriers, 1, 96);
      thread.Store(word, 0, 1);
    }
    thread.SyncBlock();
    if (t == 0) {
      thread.Store(word, 0, 2);
      thread.ArriveBarrier(barriers, 0);
      if (writer_waits) {
        thread.WaitBarrier(barriers, 1, 0);
      }
      thread.Store(word, 0, 3);
    } else if (t >= cuda::kWarpSize) {
      if (readers_wait) {
        thread.WaitBarrier(barriers, 0, 0);
      }
      thread.Store(out, t, thread.Load(word, 0));
      thread.ArriveBarrier(barriers, 1);
    }
  });
  if (readers_wait && writer_waits) {
    EXPECT_THAT(device.Read(out)[127], 2.0F);
  }
  return device.findings();
}

TEST(SimProducts, BarriersInSharedMemoryOrderOrdinaryAccesses) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const std::vector<Finding> good = RunWord(seed, true, true);
    EXPECT_TRUE(good.empty()) << good[0].ToString();
    for (const bool readers : {false, true}) {
      const std::vector<Finding> bad = RunWord(seed, readers, !readers);
      ASSERT_FALSE(bad.empty()) << seed;
      EXPECT_EQ(bad[0].kind, FindingKind::kRace);
    }
  }
}

// Neighbours in one word, and atomics, need no order.
TEST(SimProducts, BytesOfAWordAndAtomicsAreNotAccused) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimArrays device(seed);
    device.Run({.block = {128}, .shared_bytes = 256}, [](SimThread& thread) {
      const uint32_t t = thread.linear_thread();
      const auto barrier = thread.DynamicShared<uint64_t>();
      const auto count = thread.DynamicShared<uint32_t>(8);
      if (t == 0) {
        thread.InitBarrier(barrier, 0, 128);
        thread.Store(count, 0, 0);
      }
      thread.SyncBlock();
      thread.Store(thread.DynamicShared<uint8_t>(128), t, 1);
      thread.AtomicAdd(count, 0, 1);
      thread.ArriveBarrier(barrier, 0);
      thread.WaitBarrier(barrier, 0, 0);
      static_cast<void>(thread.Load(count, 0));
      static_cast<void>(thread.Load(thread.DynamicShared<uint8_t>(128), 127 - t));
    });
    EXPECT_TRUE(device.findings().empty()) << device.findings()[0].ToString();
  }
}

// A copy over what a thread wrote there before.
std::vector<Finding> RunCopyOver(uint64_t seed, bool fenced, bool ordered) {
  SimArrays device(seed);
  const auto data = device.Array(std::vector<uint8_t>(1024, 1));
  const auto map = SimTileMap::Create({.data = data.data,
                                       .element_bytes = 1,
                                       .rows = 8,
                                       .cols = 128,
                                       .row_bytes = 128,
                                       .box_rows = 8,
                                       .box_cols = 128});
  TESSERA_CHECK(map.ok());
  device.Run({.block = {64}, .shared_bytes = 1040}, [=](SimThread& thread) {
    const SharedSpan<uint8_t> tile = {thread.DynamicShared<uint8_t>().data, 1024};
    const auto barriers = thread.DynamicShared<uint64_t>(1024);
    if (thread.linear_thread() == 0) {
      thread.InitBarrier(barriers, 0, 1);
      thread.InitBarrier(barriers, 1, 1);
      thread.FenceProxyAsync();
    }
    thread.SyncBlock();
    if (thread.linear_thread() == 32) {
      thread.Store(tile, 100, 7);
      if (fenced) {
        thread.FenceProxyAsync();
      }
      thread.ArriveBarrier(barriers, 0);
    } else if (thread.linear_thread() == 0) {
      if (ordered) {
        thread.WaitBarrier(barriers, 0, 0);
      }
      thread.ArriveExpecting(barriers, 1, 1024);
      thread.CopyTile(*map, 0, 0, tile, barriers, 1);
      thread.WaitBarrier(barriers, 1, 0);
    }
  });
  return device.findings();
}

TEST(SimProducts, ACopyOverOrdinaryWritesNeedsAFenceAndOrder) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const std::vector<Finding> good = RunCopyOver(seed, true, true);
    EXPECT_TRUE(good.empty()) << good[0].ToString();
    const std::vector<Finding> unfenced = RunCopyOver(seed, false, true);
    ASSERT_FALSE(unfenced.empty());
    EXPECT_EQ(unfenced[0].kind, FindingKind::kMissingFence);
    const std::vector<Finding> unordered = RunCopyOver(seed, true, false);
    ASSERT_FALSE(unordered.empty());
    EXPECT_EQ(unordered[0].kind, FindingKind::kRace);
  }
}

TEST(SimProducts, ASumOfBF16IsRoundedOnce) {
  // 2^24 and three ones: float32 would lose each of them.
  std::vector<std::byte> shared(2 * kTileBytes);
  const auto store = [&](uint32_t at, int value) {
    const uint16_t half = BF16Of(value);
    std::memcpy(shared.data() + at, &half, sizeof(half));
  };
  for (uint32_t k = 0; k < 3; ++k) {
    store(2 * k, 1);
    store(kTileBytes + 2 * k, 1);
  }
  const auto a = ProductMatrix::Decode(Descriptor(0), Major::kK, kRows);
  const auto b = ProductMatrix::Decode(Descriptor(kTileBytes), Major::kK, 8);
  const std::vector<float> before(kRows * 8, 0x1p24F);
  const std::vector<float> sums = Multiply(ProductType::kBF16, shared, a, b, before);
  EXPECT_EQ(sums[0], 0x1p24F + 4);
  EXPECT_EQ(sums[1], 0x1p24F);
}

TEST(SimProducts, PairsAreRoundedToNearestEven) {
  const std::vector<std::array<float, 2>> cases = {
      {1.0F, -2.5F},
      {0x1.01p0F, 0x1.03p0F},  // halfway between two neighbours
      {std::numeric_limits<float>::max(), std::numeric_limits<float>::infinity()},
      {std::numeric_limits<float>::quiet_NaN(), 0x1p-133F}};
  const std::vector<uint32_t> expected = {0xc0203f80U, 0x3f823f80U, 0x7f807f80U,
                                          0x00017fffU};
  SimArrays device(1);
  const auto out = device.Array(std::vector<uint32_t>(cases.size()));
  device.Run({.block = {1}}, [&](SimThread& thread) {
    for (size_t i = 0; i < cases.size(); ++i) {
      thread.Store(out, static_cast<int64_t>(i),
                   thread.PackBF16(cases[i][0], cases[i][1]));
    }
  });
  EXPECT_EQ(device.Read(out), expected);
}

TEST(SimProducts, CodesAreUnpackedExactly) {
  // 1, -448, the smallest, a NaN.
  const std::vector<uint32_t> pairs = {0xffffU << 16 | 0xfe38U, 0x7f01U};
  SimArrays device(1);
  const auto out = device.Array(std::vector<float>(4));
  device.Run({.block = {1}}, [&](SimThread& thread) {
    for (size_t i = 0; i < pairs.size(); ++i) {
      float values[2];
      thread.UnpackE4M3(pairs[i], values);
      thread.Store(out, static_cast<int64_t>(2 * i), values[0]);
      thread.Store(out, static_cast<int64_t>(2 * i + 1), values[1]);
    }
  });
  const std::vector<float> seen = device.Read(out);
  EXPECT_EQ(seen[0], 1.0F);
  EXPECT_EQ(seen[1], -448.0F);
  EXPECT_EQ(seen[2], 0x1p-9F);
  EXPECT_TRUE(std::isnan(seen[3]));
}

}  // namespace
}  // namespace tessera::kernels::cuda_sim
