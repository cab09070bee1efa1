// Barriers in shared memory, bulk tensor copies and products of a warpgroup under the
// simulator: they do what the PTX ISA says of them, and each thing that a GPU would hide
// is planted once in one small pipeline and found and named.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
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
using cuda::SharedSpan;
using testing::HasSubstr;

constexpr uint64_t kSeeds = 10;
constexpr uint32_t kRows = 64;     // of the first matrix
constexpr uint32_t kColumns = 16;  // rows of the second
constexpr uint32_t kRowBytes = 128;
constexpr int64_t kBlocks = 4;  // of 128 inputs
constexpr uint32_t kStages = 2;
constexpr uint32_t kFirstBytes = kRows * kRowBytes;
constexpr uint32_t kSecondBytes = kColumns * kRowBytes;
constexpr uint32_t kStageBytes = kFirstBytes + kSecondBytes;
constexpr uint32_t kThreads = kWarpgroupThreads + cuda::kWarpSize;
constexpr uint32_t kSharedBytes = kStages * kStageBytes + 64;

// What the pipeline does wrong.
enum class Bug {
  kNone,
  kNoWaitForCopy,
  kOneWarpWaits,
  kWrongPhase,
  kTooFewBytes,
  kTooManyBytes,
  kNoProxyFence,
  kNoBlockBarrier,
  kEarlyRelease,
  kNoProductFence,
  kNoProductWait,
  kTouchedRegisters,
  kBadStride,
  kMissingWarp,
  kDifferentOperands,
  kNobodyWaitsForTheLastCopy,
  kSecondInit,
};

struct Pipeline {
  SimTileMap first;
  SimTileMap second;
  GlobalSpan<float> out;  // [kRows, kColumns]
  Bug bug = Bug::kNone;

  SharedSpan<uint8_t> Tile(SimThread& thread, uint32_t stage, bool is_second) const {
    const uint32_t begin = stage * kStageBytes + (is_second ? kFirstBytes : 0);
    return {thread.DynamicShared<uint8_t>(begin).data,
            is_second ? kSecondBytes : kFirstBytes};
  }
  static SharedSpan<uint64_t> Barriers(SimThread& thread) {
    return {thread.DynamicShared<uint64_t>(kStages * kStageBytes).data, 2 * kStages};
  }
  static uint64_t Descriptor(uint32_t address, uint32_t stride = 1024) {
    return uint64_t{1} << 62 | uint64_t{stride / 16} << 32 | address / 16;
  }

  void Copy(SimThread& thread) const {
    const auto barriers = Barriers(thread);
    const int64_t blocks = kBlocks + (bug == Bug::kNobodyWaitsForTheLastCopy ? 1 : 0);
    for (int64_t block = 0; block < blocks; ++block) {
      const auto stage = static_cast<uint32_t>(block % kStages);
      const auto round = static_cast<uint32_t>(block / kStages);
      thread.WaitBarrier(barriers, kStages + stage, (round + 1) % 2);
      const uint32_t off = bug == Bug::kTooFewBytes    ? -kSecondBytes
                           : bug == Bug::kTooManyBytes ? 16
                                                       : 0;
      thread.ArriveExpecting(barriers, stage, kStageBytes + off);
      thread.CopyTile(first, block * kRowBytes, 0, Tile(thread, stage, false), barriers,
                      stage);
      thread.CopyTile(second, block * kRowBytes, 0, Tile(thread, stage, true), barriers,
                      stage);
    }
  }

  void Multiply(SimThread& thread, uint32_t stage, float (&sums)[kColumns / 2],
                bool more) const {
    const uint32_t a = thread.SharedAddress(Tile(thread, stage, false));
    const uint32_t b = thread.SharedAddress(Tile(thread, stage, true));
    if (bug != Bug::kNoProductFence) {
      thread.BeginProducts(sums);
    }
    for (uint32_t i = 0; i < kRowBytes; i += kProductInputs) {
      const uint32_t other =
          bug == Bug::kDifferentOperands && thread.linear_thread() == 5 ? 32 : 0;
      thread.MultiplyE4M3(sums, Descriptor(a + i, bug == Bug::kBadStride ? 512 : 1024),
                          Descriptor((b + i) ^ other), more || i > 0);
    }
    thread.CommitProducts();
    if (bug == Bug::kTouchedRegisters && thread.linear_thread() == 9) {
      sums[3] = 1;
    }
  }

  void Consume(SimThread& thread) const {
    const auto barriers = Barriers(thread);
    const bool waits = bug != Bug::kNoWaitForCopy &&
                       (bug != Bug::kOneWarpWaits || thread.linear_thread() < 32);
    float sums[kColumns / 2] = {};
    for (int64_t block = 0; block < kBlocks; ++block) {
      const auto stage = static_cast<uint32_t>(block % kStages);
      const auto round = static_cast<uint32_t>(block / kStages);
      if (waits) {
        thread.WaitBarrier(barriers, stage, (round + (bug == Bug::kWrongPhase)) % 2);
      }
      if (bug == Bug::kMissingWarp && thread.linear_thread() / 32 == 3) {
        return;
      }
      Multiply(thread, stage, sums, block > 0);
      if (bug == Bug::kEarlyRelease) {
        thread.ArriveBarrier(barriers, kStages + stage);
      }
      if (bug != Bug::kNoProductWait) {
        thread.WaitProducts<0>(sums);
      }
      if (bug != Bug::kEarlyRelease) {
        thread.ArriveBarrier(barriers, kStages + stage);
      }
    }
    for (uint32_t i = 0; i < kColumns / 2; ++i) {
      const uint32_t t = thread.linear_thread();
      thread.Store(out, FragmentRow(t, i) * kColumns + FragmentColumn(t, i), sums[i]);
    }
  }

  void operator()(SimThread& thread) const {
    if (thread.linear_thread() == kWarpgroupThreads) {
      const auto barriers = Barriers(thread);
      for (uint32_t i = 0; i < 2 * kStages; ++i) {
        thread.InitBarrier(barriers, i, i < kStages ? 1 : kWarpgroupThreads);
      }
      if (bug == Bug::kSecondInit) {
        thread.InitBarrier(barriers, 0, 1);
      }
      if (bug != Bug::kNoProxyFence) {
        thread.FenceProxyAsync();
      }
    }
    if (bug != Bug::kNoBlockBarrier) {
      thread.SyncBlock();
    }
    if (thread.linear_thread() == kWarpgroupThreads) {
      Copy(thread);
    } else if (thread.linear_thread() < kWarpgroupThreads) {
      Consume(thread);
    }
  }
};

double ValueOf(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const double value =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (code & 0x80U) != 0 ? -value : value;
}

std::vector<uint8_t> RandomCodes(uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> codes(count);
  for (uint8_t& code : codes) {
    code = static_cast<uint8_t>(random() & 0xb7U);  // neither NaN nor large
  }
  return codes;
}

SimTileMap MapOf(GlobalSpan<uint8_t> data, uint64_t rows, uint64_t cols,
                 uint32_t box_rows) {
  const auto map = SimTileMap::Create({.data = data.data,
                                       .element_bytes = 1,
                                       .rows = rows,
                                       .cols = cols,
                                       .row_bytes = cols,
                                       .box_rows = box_rows,
                                       .box_cols = kRowBytes,
                                       .swizzle = cuda::Swizzle::k128});
  TESSERA_CHECK(map.ok());
  return *map;
}

struct Outcome {
  std::vector<Finding> findings;
  std::vector<float> out;
};

// Multiplies matrices of 64 and 16 rows of 4 x 128 inputs.
Outcome RunPipeline(uint64_t seed, Bug bug, const std::vector<uint8_t>& a,
                    const std::vector<uint8_t>& b) {
  SimArrays device(seed);
  Pipeline pipeline;
  constexpr uint64_t kInputs = kBlocks * kRowBytes;
  pipeline.first = MapOf(device.Array(a), kRows, kInputs, kRows);
  pipeline.second = MapOf(device.Array(b), kColumns, kInputs, kColumns);
  pipeline.out = device.Array(std::vector<float>(kRows * kColumns));
  pipeline.bug = bug;
  device.Run({.block = {kThreads}, .shared_bytes = kSharedBytes},
             [pipeline](SimThread& thread) { pipeline(thread); });
  return {device.findings(), device.Read(pipeline.out)};
}

const std::vector<uint8_t>& First() {
  static const std::vector<uint8_t> codes = RandomCodes(1, kRows * kBlocks * kRowBytes);
  return codes;
}
const std::vector<uint8_t>& Second() {
  static const std::vector<uint8_t> codes =
      RandomCodes(2, kColumns * kBlocks * kRowBytes);
  return codes;
}

TEST(SimAsync, APipelineMultipliesMatricesUnderEverySeed) {
  constexpr size_t kInputs = kBlocks * kRowBytes;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Outcome outcome = RunPipeline(seed, Bug::kNone, First(), Second());
    ASSERT_TRUE(outcome.findings.empty()) << outcome.findings[0].ToString();
    for (size_t row = 0; row < kRows; ++row) {
      for (size_t col = 0; col < kColumns; ++col) {
        // 32 inputs exactly, then one rounding.
        float expected = 0;
        for (size_t i = 0; i < kInputs; i += kProductInputs) {
          double sum = 0;
          for (size_t k = i; k < i + kProductInputs; ++k) {
            sum += ValueOf(First()[row * kInputs + k]) *
                   ValueOf(Second()[col * kInputs + k]);
          }
          expected = static_cast<float>(expected + sum);
        }
        ASSERT_EQ(outcome.out[row * kColumns + col], expected) << row << " " << col;
      }
    }
  }
}

TEST(SimAsync, ABoxArrivesSwizzledAndIsZeroOutsideItsMatrix) {
  // 10 rows of 112 values: a box of 16 x 128 from [3, 16] on leaves it on two sides.
  constexpr uint64_t kMatrixRows = 10;
  constexpr uint64_t kMatrixCols = 112;
  const std::vector<uint8_t> values = RandomCodes(3, kMatrixRows * kMatrixCols);
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimArrays device(seed);
    const SimTileMap map = MapOf(device.Array(values), kMatrixRows, kMatrixCols, 16);
    const auto out = device.Array(std::vector<uint8_t>(16 * kRowBytes));
    device.Run({.block = {64}, .shared_bytes = 16 * kRowBytes + 8},
               [=](SimThread& thread) {
                 const SharedSpan<uint8_t> tile = {thread.DynamicShared<uint8_t>().data,
                                                   16 * kRowBytes};
                 const auto barrier = thread.DynamicShared<uint64_t>(16 * kRowBytes);
                 if (thread.linear_thread() == 0) {
                   thread.InitBarrier(barrier, 0, 1);
                   thread.FenceProxyAsync();
                   thread.ArriveExpecting(barrier, 0, 16 * kRowBytes);
                   thread.CopyTile(map, 16, 3, tile, barrier, 0);
                 }
                 thread.SyncBlock();
                 thread.WaitBarrier(barrier, 0, 0);
                 for (int64_t i = thread.linear_thread(); i < tile.size; i += 64) {
                   thread.Store(out, i, thread.Load(tile, i));
                 }
               });
    ASSERT_TRUE(device.findings().empty()) << device.findings()[0].ToString();
    const std::vector<uint8_t> seen = device.Read(out);
    for (uint64_t row = 0; row < 16; ++row) {
      for (uint64_t col = 0; col < kRowBytes; ++col) {
        const bool inside = row + 3 < kMatrixRows && col + 16 < kMatrixCols;
        const uint64_t piece = (col / 16) ^ (row % 8);
        ASSERT_EQ(seen[row * kRowBytes + piece * 16 + col % 16],
                  inside ? values[(row + 3) * kMatrixCols + col + 16] : 0)
            << row << " " << col;
      }
    }
  }
}

TEST(SimAsync, FragmentsCoverTheResultOnce) {
  std::vector<int> seen(kProductRows * 128);
  for (uint32_t thread = 0; thread < kWarpgroupThreads; ++thread) {
    for (uint32_t i = 0; i < 64; ++i) {
      ++seen[FragmentRow(thread, i) * 128 + FragmentColumn(thread, i)];
    }
  }
  EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
  // PTX ISA, accumulator of m64nN: lane 5 of warp 2 begins at row 33, column 2.
  EXPECT_EQ(FragmentRow(2 * 32 + 5, 0), 33U);
  EXPECT_EQ(FragmentColumn(2 * 32 + 5, 0), 2U);
  EXPECT_EQ(FragmentRow(2 * 32 + 5, 2), 41U);
  EXPECT_EQ(FragmentColumn(2 * 32 + 5, 5), 11U);
}

TEST(SimAsync, MapsThatTheDriverRefusesAreErrors) {
  alignas(16) static std::array<std::byte, 4096> memory;
  const cuda::TileMapShape good = {.data = memory.data(),
                                   .element_bytes = 1,
                                   .rows = 8,
                                   .cols = 128,
                                   .row_bytes = 128,
                                   .box_rows = 8,
                                   .box_cols = 128,
                                   .swizzle = cuda::Swizzle::k128};
  EXPECT_TRUE(SimTileMap::Create(good).ok());
  const auto refused = [&](auto change) {
    cuda::TileMapShape shape = good;
    change(shape);
    return SimTileMap::Create(shape).status().code() ==
           absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](auto& shape) { shape.data = memory.data() + 8; }));
  EXPECT_TRUE(refused([](auto& shape) { shape.row_bytes = 136; }));
  EXPECT_TRUE(refused([](auto& shape) { shape.row_bytes = 112; }));
  EXPECT_TRUE(refused([](auto& shape) { shape.rows = 0; }));
  EXPECT_TRUE(refused([](auto& shape) { shape.box_rows = 257; }));
  EXPECT_TRUE(refused([](auto& shape) { shape.box_cols = 24; }));
  EXPECT_TRUE(refused([](auto& shape) { shape.box_cols = 256; }));
}

struct PlantedBug {
  Bug bug;
  FindingKind kind;
  std::string detail;
};

// Each under every seed, and nothing but what is meant is found first.
TEST(SimAsync, PlantedBugsAreFoundAndNamed) {
  const std::vector<PlantedBug> bugs = {
      {Bug::kNoWaitForCopy, FindingKind::kRace, "whose barrier was not waited for"},
      {Bug::kOneWarpWaits, FindingKind::kRace, "whose barrier was not waited for"},
      {Bug::kTooFewBytes, FindingKind::kTransactionBytes, "more bytes than it expects"},
      {Bug::kTooManyBytes, FindingKind::kBarrierDivergence, "16 bytes to come"},
      {Bug::kNoProxyFence, FindingKind::kMissingFence, "without fence.proxy.async"},
      {Bug::kEarlyRelease, FindingKind::kRace, "readers have not said"},
      {Bug::kNoProductFence, FindingKind::kMissingFence, "no wgmma.fence"},
      {Bug::kTouchedRegisters, FindingKind::kRace, "register 3 of a product in flight"},
      {Bug::kBadStride, FindingKind::kBadDescriptor, "stride 512"},
      {Bug::kMissingWarp, FindingKind::kBarrierDivergence, "has returned"},
      {Bug::kDifferentOperands, FindingKind::kBarrierDivergence, "different calls"},
      {Bug::kNobodyWaitsForTheLastCopy, FindingKind::kUnfinished,
       "copies that nobody waited for"},
      {Bug::kSecondInit, FindingKind::kBadDescriptor, "where there is one"}};
  for (const PlantedBug& planted : bugs) {
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      const Outcome outcome = RunPipeline(seed, planted.bug, First(), Second());
      const auto number = static_cast<int>(planted.bug);
      ASSERT_FALSE(outcome.findings.empty()) << number << ", seed " << seed;
      EXPECT_EQ(outcome.findings[0].kind, planted.kind)
          << number << ": " << outcome.findings[0].ToString();
      EXPECT_THAT(outcome.findings[0].detail, HasSubstr(planted.detail)) << number;
    }
  }
}

// A wait for the other phase returns too early or never, as the seed has it.
TEST(SimAsync, AWaitForTheWrongPhaseIsFound) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Outcome outcome = RunPipeline(seed, Bug::kWrongPhase, First(), Second());
    ASSERT_FALSE(outcome.findings.empty()) << seed;
    EXPECT_THAT(outcome.findings[0].detail,
                testing::AnyOf(HasSubstr("whose barrier was not waited for"),
                               HasSubstr("that never come")));
  }
}

// Which of both is seen first depends on the seed.
TEST(SimAsync, ABarrierUsedBeforeItsInitialisationIsKnownIsFound) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Outcome outcome = RunPipeline(seed, Bug::kNoBlockBarrier, First(), Second());
    ASSERT_FALSE(outcome.findings.empty()) << seed;
    EXPECT_THAT(
        outcome.findings[0].detail,
        testing::AnyOf(HasSubstr("holds no barrier"), HasSubstr("was initialised by")));
  }
}

TEST(SimAsync, AResultThatWasNotWaitedForIsNoNumber) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Outcome outcome = RunPipeline(seed, Bug::kNoProductWait, First(), Second());
    ASSERT_FALSE(outcome.findings.empty());
    EXPECT_TRUE(std::any_of(outcome.findings.begin(), outcome.findings.end(),
                            [](const Finding& finding) {
                              return finding.kind == FindingKind::kUnfinished ||
                                     finding.kind == FindingKind::kRace;
                            }));
    EXPECT_TRUE(std::all_of(outcome.out.begin(), outcome.out.end(),
                            [](float value) { return std::isnan(value) || value == 0; }));
  }
}

// A matrix that threads wrote: the tensor cores see it after a proxy fence and a barrier.
Outcome RunOrdinaryWrites(uint64_t seed, bool fenced, bool synchronised) {
  SimArrays device(seed);
  const auto out = device.Array(std::vector<float>(kRows * kColumns));
  device.Run({.block = {kWarpgroupThreads}, .shared_bytes = kStageBytes + 16},
             [=](SimThread& thread) {
               const auto bytes = thread.DynamicShared<uint8_t>();
               const auto barrier = thread.DynamicShared<uint64_t>(kStageBytes);
               if (thread.linear_thread() == 0) {
                 thread.InitBarrier(barrier, 0, 1);
               }
               thread.SyncBlock();
               for (uint32_t i = thread.linear_thread(); i < kStageBytes;
                    i += kWarpgroupThreads) {
                 thread.Store(bytes, i, 0x38);  // 1.0
               }
               if (fenced) {
                 thread.FenceProxyAsync();
               }
               if (synchronised) {
                 thread.SyncBlock();
               }
               float sums[kColumns / 2];
               const uint32_t a = thread.SharedAddress(bytes);
               thread.BeginProducts(sums);
               thread.MultiplyE4M3(sums, Pipeline::Descriptor(a),
                                   Pipeline::Descriptor(a + kFirstBytes), false);
               thread.CommitProducts();
               thread.WaitProducts<0>(sums);
               const uint32_t t = thread.linear_thread();
               thread.Store(out, FragmentRow(t, 0) * kColumns + FragmentColumn(t, 0),
                            sums[0]);
             });
  return {device.findings(), device.Read(out)};
}

TEST(SimAsync, OrdinaryWritesNeedAFenceAndABarrierBeforeAProduct) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Outcome good = RunOrdinaryWrites(seed, true, true);
    ASSERT_TRUE(good.findings.empty()) << good.findings[0].ToString();
    EXPECT_EQ(good.out[0], 32.0F);
    const Outcome unfenced = RunOrdinaryWrites(seed, false, true);
    ASSERT_FALSE(unfenced.findings.empty());
    EXPECT_EQ(unfenced.findings[0].kind, FindingKind::kMissingFence);
    const Outcome early = RunOrdinaryWrites(seed, true, false);
    ASSERT_FALSE(early.findings.empty());
    EXPECT_EQ(early.findings[0].kind, FindingKind::kRace);
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda_sim
