// What device code can do under the simulator, and, for each thing that a GPU hides, a
// planted bug that the simulator must find and name.
#include "kernels/cuda_sim/sim_thread.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/check.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_stream.h"
#include "tests/testing/sim_arrays.h"

namespace tessera::kernels::cuda_sim {
namespace {

using cuda::GlobalSpan;
using cuda::LaunchConfig;
using testing::HasSubstr;

constexpr int kSeeds = 20;

using Device = SimArrays;

// Sums 256 numbers in a block: a tree in shared memory. `with_barriers` false drops the
// barriers of the tree.
KernelBody TreeSum(GlobalSpan<const int32_t> x, GlobalSpan<int32_t> out,
                   bool with_barriers) {
  return [=](SimThread& thread) {
    const auto sums = thread.DynamicShared<int32_t>();
    const int64_t at = thread.thread_idx().x;
    thread.Store(sums, at, thread.Load(x, at));
    thread.SyncBlock();
    for (int64_t half = 128; half > 0; half /= 2) {
      if (at < half) {
        thread.Store(sums, at, thread.Load(sums, at) + thread.Load(sums, at + half));
      }
      if (with_barriers) {
        thread.SyncBlock();
      }
    }
    if (at == 0) {
      thread.Store(out, 0, thread.Load(sums, 0));
    }
  };
}

std::vector<int32_t> Counting(int32_t n) {
  std::vector<int32_t> values(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i) {
    values[static_cast<size_t>(i)] = i;
  }
  return values;
}

constexpr LaunchConfig kTreeConfig = {.block = {256}, .shared_bytes = 1024};

TEST(SimThread, SharedMemoryAndBarriersSumATreeUnderEverySeed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Device device(seed);
    const auto x = device.Array(Counting(256));
    const auto out = device.Unwritten<int32_t>(1);
    device.Run(kTreeConfig, TreeSum(x, out, true));
    EXPECT_EQ(device.Read(out)[0], 255 * 128) << "seed " << seed;
    EXPECT_TRUE(device.status().ok()) << device.status();
  }
}

TEST(SimThread, BlocksAndThreadsComeInAnOrderOfTheSeed) {
  std::set<std::vector<int32_t>> orders;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Device device(seed);
    const auto next = device.Array<int32_t>({0});
    const auto turn = device.Unwritten<int32_t>(4 * 8);
    device.Run({.grid = {4}, .block = {8}}, [=](SimThread& thread) {
      const int64_t at = thread.block_idx().x * 8 + thread.thread_idx().x;
      thread.Store(turn, at, thread.AtomicAdd(next, 0, 1));
    });
    std::vector<int32_t> order = device.Read(turn);
    orders.insert(order);
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, Counting(32));
    EXPECT_TRUE(device.status().ok()) << device.status();
  }
  EXPECT_EQ(orders.size(), size_t{kSeeds});
}

TEST(SimThread, LanesExchangeValuesAndVotes) {
  Device device(7);
  const auto out = device.Unwritten<int32_t>(3 * 40);
  device.Run({.block = {40}}, [=](SimThread& thread) {  // the second warp has 8 lanes
    const auto at = static_cast<int64_t>(thread.linear_thread());
    const auto mine = static_cast<int32_t>(thread.linear_thread());
    const uint32_t even = thread.Ballot(mine % 2 == 0);
    const uint32_t mask = at < 32 ? cuda::kFullWarp : 0xffU;
    thread.Store(out, at, thread.ShuffleXor(mine, 1, mask));
    thread.Store(out, 40 + at, thread.Shuffle(mine, 3, mask));
    thread.Store(out, 80 + at, static_cast<int32_t>(even & 0xffffU));
  });
  const std::vector<int32_t> seen = device.Read(out);
  for (size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(seen[i], static_cast<int32_t>(i ^ 1));
    EXPECT_EQ(seen[40 + i], i < 32 ? 3 : 35);
    EXPECT_EQ(seen[80 + i], i < 32 ? 0x5555 : 0x55);
  }
  EXPECT_TRUE(device.status().ok()) << device.status();
}

TEST(SimThread, StaticArraysAreOneForTheBlock) {
  Device device(3);
  const auto out = device.Unwritten<int32_t>(64);
  device.Run({.grid = {1}, .block = {64}}, [=](SimThread& thread) {
    const auto first = thread.StaticShared<int32_t, 64, 0>();
    const auto second = thread.StaticShared<int32_t, 64, 1>();
    const auto at = static_cast<int64_t>(thread.linear_thread());
    thread.Store(first, at, static_cast<int32_t>(at));
    thread.Store(second, 63 - at, static_cast<int32_t>(100 * at));
    thread.SyncBlock();
    thread.Store(out, at, thread.Load(first, 63 - at) + thread.Load(second, at));
  });
  for (int32_t i = 0; i < 64; ++i) {
    EXPECT_EQ(device.Read(out)[static_cast<size_t>(i)], 101 * (63 - i));
  }
  EXPECT_TRUE(device.status().ok()) << device.status();
}

TEST(SimThread, BarriersAndAtomicsOrderWhatWouldRace) {
  Device device(5);
  const auto x = device.Array<int32_t>(std::vector<int32_t>(64));
  device.Run({.block = {64}}, [=](SimThread& thread) {
    const auto at = static_cast<int64_t>(thread.linear_thread());
    thread.AtomicAdd(x, 0, 1);
    thread.SyncBlock();
    thread.Store(x, at, static_cast<int32_t>(at));
    thread.SyncWarp();
    thread.Load(x, at ^ 1);  // of the same warp
    thread.SyncBlock();
    thread.Load(x, 63 - at);
  });
  EXPECT_TRUE(device.status().ok()) << device.status();
}

// ---- planted bugs ----

// The first finding of a kind, with its place checked.
void ExpectFinding(const Device& device, FindingKind kind, int line) {
  const std::vector<Finding> findings = device.findings();
  const auto found =
      std::find_if(findings.begin(), findings.end(),
                   [&](const Finding& finding) { return finding.kind == kind; });
  ASSERT_NE(found, findings.end()) << device.status();
  EXPECT_EQ(found->kernel, "TestKernel");
  EXPECT_EQ(found->place.line, line) << found->ToString();
  EXPECT_THAT(found->place.file, HasSubstr("sim_thread_test.cc"));
  EXPECT_THAT(device.status().ToString(), HasSubstr("TestKernel"));
}

TEST(PlantedBug, ADroppedBarrierIsARaceUnderEverySeed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Device device(seed);
    const auto x = device.Array(Counting(256));
    const auto out = device.Unwritten<int32_t>(1);
    device.Run(kTreeConfig, TreeSum(x, out, false));
    ASSERT_FALSE(device.findings().empty());
    EXPECT_EQ(device.findings()[0].kind, FindingKind::kRace);
    EXPECT_THAT(device.findings()[0].detail, HasSubstr("no barrier between"));
  }
}

TEST(PlantedBug, AnOffByOneBoundIsSeenInsideAnAllocation) {
  Device device(1);
  const auto x = device.Array(Counting(64));
  const int line = __LINE__ + 3;
  device.Run({.grid = {2}, .block = {16}}, [=](SimThread& thread) {
    const int64_t at = thread.block_idx().x * 16 + thread.thread_idx().x;
    thread.Load(x.Slice(0, 32), at + 1);
  });
  ExpectFinding(device, FindingKind::kOutOfBounds, line);
  EXPECT_EQ(device.findings().size(), 1U);
  EXPECT_EQ(device.findings()[0].block, (cuda::Dim3{1, 0, 0}));
  EXPECT_EQ(device.findings()[0].thread, (cuda::Dim3{15, 0, 0}));
  EXPECT_THAT(device.findings()[0].detail, HasSubstr("4 bytes at 128 of a span of 128"));
}

TEST(PlantedBug, AnAccessOutsideSharedMemoryIsSeenAndNotDone) {
  Device device(1);
  const int line = __LINE__ + 3;
  device.Run({.block = {32}, .shared_bytes = 128}, [=](SimThread& thread) {
    const auto shared = thread.DynamicShared<float>();
    thread.Store(shared, thread.thread_idx().x + 1, 1.0F);
  });
  ExpectFinding(device, FindingKind::kOutOfBounds, line);
}

TEST(PlantedBug, ASpanThatLeavesItsAllocationIsSeen) {
  Device device(1);
  const auto x = device.Array(Counting(64));
  const GlobalSpan<int32_t> wider = {x.data, 4096};
  const int line = __LINE__ + 1;
  device.Run({.block = {1}}, [=](SimThread& thread) { thread.Store(wider, 64, 1); });
  ExpectFinding(device, FindingKind::kOutOfBounds, line);
}

TEST(PlantedBug, ARaceBetweenBlocksIsSeenUnderEverySeed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Device device(seed);
    const auto sum = device.Array<int32_t>({0});
    const int line = __LINE__ + 2;
    device.Run({.grid = {2}, .block = {1}},
               [=](SimThread& thread) { thread.Store(sum, 0, thread.Load(sum, 0) + 1); });
    ExpectFinding(device, FindingKind::kRace, line);
    EXPECT_THAT(device.findings()[0].detail, HasSubstr("by block"));
  }
}

TEST(PlantedBug, AWriteOfWhatOtherBlocksReadIsARaceUnderEverySeed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Device device(seed);
    const auto x = device.Array<int32_t>({1, 2, 3});
    device.Run({.grid = {3}, .block = {1}}, [=](SimThread& thread) {
      const int32_t seen = thread.Load(x, 1);
      if (thread.block_idx().x == 1) {
        thread.Store(x, 1, seen);
      }
    });
    ASSERT_FALSE(device.findings().empty()) << "seed " << seed;
    EXPECT_EQ(device.findings()[0].kind, FindingKind::kRace);
  }
}

TEST(PlantedBug, UninitialisedSharedMemoryIsSeen) {
  Device device(1);
  const auto out = device.Unwritten<float>(32);
  const int line = __LINE__ + 6;
  device.Run({.grid = {2}, .block = {32}, .shared_bytes = 128}, [=](SimThread& thread) {
    const auto shared = thread.DynamicShared<float>();
    if (thread.block_idx().x == 0) {
      thread.Store(shared, thread.lane(), 1.0F);
    } else {  // the block before may have left values, which are not this block's
      thread.Store(out, thread.lane(), thread.Load(shared, thread.lane()));
    }
  });
  ExpectFinding(device, FindingKind::kUninitializedRead, line);
}

TEST(PlantedBug, UnwrittenGlobalMemoryIsSeen) {
  Device device(1);
  const auto x = device.Unwritten<float>(4);
  const int line = __LINE__ + 1;
  device.Run({.block = {1}}, [=](SimThread& thread) { thread.Load(x, 2); });
  ExpectFinding(device, FindingKind::kUninitializedRead, line);
}

TEST(PlantedBug, ABarrierThatSomeThreadsSkipIsDivergence) {
  Device device(1);
  const int line = __LINE__ + 3;
  device.Run({.block = {64}}, [](SimThread& thread) {
    if (thread.thread_idx().x != 33) {
      thread.SyncBlock();
    }
  });
  ExpectFinding(device, FindingKind::kBarrierDivergence, line);
  EXPECT_THAT(device.findings()[0].detail, HasSubstr("thread (33, 0, 0) has returned"));
}

TEST(PlantedBug, TwoBarriersOfOneBlockAreDivergence) {
  Device device(1);
  device.Run({.block = {64}}, [](SimThread& thread) {
    if (thread.thread_idx().x < 32) {
      thread.SyncBlock();
    } else {
      thread.SyncBlock();
    }
  });
  ASSERT_EQ(device.findings().size(), 1U);
  EXPECT_EQ(device.findings()[0].kind, FindingKind::kBarrierDivergence);
}

TEST(PlantedBug, AShuffleThatALaneDoesNotReachIsDivergence) {
  Device device(1);
  const int line = __LINE__ + 5;
  device.Run({.block = {32}}, [](SimThread& thread) {
    if (thread.lane() == 4) {
      thread.SyncBlock();
    } else {
      thread.ShuffleDown(1, 1);
    }
  });
  ASSERT_FALSE(device.findings().empty());
  EXPECT_EQ(device.findings()[0].kind, FindingKind::kBarrierDivergence);
  EXPECT_EQ(device.findings()[0].place.line, line);
}

TEST(PlantedBug, AShuffleFromALaneThatReturnedHasNoValue) {
  Device device(1);
  const int line = __LINE__ + 3;
  device.Run({.block = {32}}, [](SimThread& thread) {
    if (thread.lane() < 16) {
      thread.ShuffleDown(1, 8);
    }
  });
  ExpectFinding(device, FindingKind::kUninitializedRead, line);
}

TEST(PlantedBug, AMisalignedVectorIsSeen) {
  Device device(1);
  const auto x = device.Array(std::vector<float>(16));
  const int line = __LINE__ + 3;
  device.Run({.block = {2}}, [=](SimThread& thread) {
    // Thread 1 is off by one element.
    thread.LoadVector<4>(x, 4 * thread.thread_idx().x + thread.thread_idx().x);
  });
  ExpectFinding(device, FindingKind::kMisaligned, line);
  EXPECT_EQ(device.findings()[0].thread.x, 1U);
  EXPECT_THAT(device.findings()[0].detail, HasSubstr("4 mod 16"));
}

TEST(PlantedBug, AShapeThatNoDeviceTakesIsSeen) {
  Device device(1);
  device.Run({.block = {1025}}, [](SimThread&) {});
  ASSERT_EQ(device.findings().size(), 1U);
  EXPECT_EQ(device.findings()[0].kind, FindingKind::kBadLaunch);
}

}  // namespace
}  // namespace tessera::kernels::cuda_sim
