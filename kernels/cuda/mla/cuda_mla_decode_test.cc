// MLA decode under the simulator: what float64 says within its derived roundings, the
// same bits in every batch, page size, slice of heads and schedule, and without a
// finding.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "kernels/cuda/mla/mla_decode.h"
#include "kernels/cuda_sim/number_bits.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_stream.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/mla_problem.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

using testing::HasSubstr;

// The simulator rounds each instruction's sum once.
constexpr double kLoss = 1;

std::vector<float> RunOn(uint64_t seed, const MlaProblem& problem) {
  const auto machine =
      std::make_shared<cuda_sim::SimMachine>(cuda_sim::SimOptions{.seed = seed});
  auto stream = cuda_sim::SimStream::Create(machine, 0);
  EXPECT_TRUE(stream.ok());
  auto result = problem.Run(*machine, **stream);
  EXPECT_TRUE(result.ok()) << "seed " << seed << ": " << result.status();
  return result.ok() ? *result : std::vector<float>();
}

// Head `head` of token `token`.
std::vector<float> Row(const MlaProblem& problem, const std::vector<float>& result,
                       size_t token, int64_t head) {
  const auto begin =
      result.begin() +
      (static_cast<std::ptrdiff_t>(token) * problem.heads() + head) * kMlaLatent;
  return {begin, begin + kMlaLatent};
}

// Bit by bit: a NaN equals itself.
bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void ExpectRow(const MlaProblem& problem, const std::vector<float>& result, size_t token,
               int64_t head) {
  const MlaExpected expected = problem.Expect(token, head, kLoss);
  const std::vector<float> row = Row(problem, result, token, head);
  for (size_t i = 0; i < row.size(); ++i) {
    const double seen = row[i];
    ASSERT_NEAR(seen, expected.values[i], expected.BoundOfValues(i, kLoss))
        << "token " << token << ", head " << head << ", column " << i;
    ASSERT_NEAR(seen, expected.rounded[i], expected.BoundOfRounded(i, kLoss))
        << "token " << token << ", head " << head << ", column " << i;
  }
}

// One sequence up to the end of a tile, a split and one row beyond; another one; padding.
const std::vector<MlaToken> kTokens = {{.name = 0, .sequence = 0, .position = 0},
                                       {.name = 1, .sequence = 1, .position = 62},
                                       {.name = 2, .sequence = 0, .position = 63},
                                       {.name = 3, .sequence = 1, .position = 64},
                                       {.name = 4, .sequence = 0, .position = -1},
                                       {.name = 5, .sequence = 0, .position = 1022},
                                       {.name = 6, .sequence = 0, .position = 1023},
                                       {.name = 7, .sequence = 2, .position = 1024}};

TEST(CudaMlaDecode, IsTheSumOfFloat64WithinItsRoundings) {
  const MlaProblem problem({.heads = 16, .block_size = 64}, kTokens);
  const std::vector<float> result = RunOn(1, problem);
  ASSERT_EQ(result.size(), kTokens.size() * 16 * kMlaLatent);
  for (size_t token = 0; token < kTokens.size(); ++token) {
    if (kTokens[token].position < 0) {
      for (int64_t head = 0; head < 16; ++head) {
        EXPECT_THAT(Row(problem, result, token, head), testing::Each(0.0F));
      }
      continue;
    }
    for (const int64_t head : {0, 7, 8, 15}) {
      ExpectRow(problem, result, token, head);
    }
  }
}

std::vector<double> Decoded(const std::vector<uint16_t>& halves) {
  std::vector<double> values;
  for (const uint16_t half : halves) {
    values.push_back(MlaRows::Decode(half));
  }
  return values;
}

// The loop that results are compared with is the reference's.
TEST(CudaMlaDecode, WhatItIsComparedWithIsTheReferenceInFloat64) {
  const MlaProblem problem({.heads = 8, .block_size = 16},
                           {{.name = 1, .sequence = 0, .position = 40},
                            {.name = 2, .sequence = 1, .position = 100}});
  std::vector<double> q = Decoded(problem.q());
  std::vector<double> rows = Decoded(problem.rows().values());
  std::vector<int32_t> tables = problem.rows().tables();
  std::vector<int32_t> sequences = {0, 1};
  std::vector<int32_t> positions = {40, 100};
  std::vector<double> out(2 * 8 * kMlaLatent);
  MlaAttentionArgs args;
  args.q_latent = TensorView(q.data(), DType::kF64, {2, 8, kMlaWidth});
  args.q_rope = args.q_latent;
  args.q_latent.shape[2] = kMlaLatent;
  args.q_rope.data = q.data() + kMlaLatent;
  args.q_rope.shape[2] = kMlaRope;
  args.rows =
      TensorView(rows.data(), DType::kF64, {problem.rows().num_blocks(), 16, kMlaWidth});
  args.index.block_tables =
      TensorView(tables.data(), DType::kI32, {2, problem.rows().max_blocks()});
  args.index.sequence_of_row = TensorView(sequences.data(), DType::kI32, {2});
  args.index.positions = TensorView(positions.data(), DType::kI32, {2});
  args.index.block_size = 16;
  args.scale = MlaProblem::kScale;
  args.out = TensorView(out.data(), DType::kF64, {2, 8, kMlaLatent});
  reference::MlaAttention<double>(args);
  for (size_t token = 0; token < 2; ++token) {
    const MlaExpected expected = problem.Expect(token, 3, kLoss);
    for (size_t i = 0; i < kMlaLatent; ++i) {
      ASSERT_NEAR(out[(token * 8 + 3) * kMlaLatent + i], expected.values[i], 1e-13);
    }
  }
}

// 64 heads fill a block, 128 take two, 72 leave one of them nearly empty; three splits.
TEST(CudaMlaDecode, EveryNumberOfHeadsAndSplits) {
  struct Case {
    int64_t heads;
    int64_t block_size;
    MlaToken token;
  };
  for (const Case& one : {Case{64, 16, {.name = 3, .sequence = 0, .position = 200}},
                          Case{128, 256, {.name = 4, .sequence = 0, .position = 129}},
                          Case{72, 24, {.name = 5, .sequence = 0, .position = 65}},
                          Case{8, 64, {.name = 6, .sequence = 0, .position = 2048}}}) {
    const MlaProblem problem({.heads = one.heads, .block_size = one.block_size},
                             {one.token});
    const std::vector<float> result = RunOn(2, problem);
    ASSERT_EQ(result.size(), static_cast<size_t>(one.heads * kMlaLatent));
    for (int64_t head = 0; head < one.heads; head += 7) {
      ExpectRow(problem, result, 0, head);
    }
    ExpectRow(problem, result, 0, one.heads - 1);
  }
}

// Alone, with other pages, with room for more splits, in another schedule, and in a slice
// of the heads as a rank has it.
TEST(CudaMlaDecode, ARowHasTheSameBitsWhateverSurroundsIt) {
  const std::vector<MlaToken> tokens = {{.name = 1, .sequence = 1, .position = 40},
                                        {.name = 2, .sequence = 0, .position = 1050},
                                        {.name = 3, .sequence = 1, .position = 127}};
  const MlaProblem together({.heads = 80, .block_size = 64}, tokens);
  const std::vector<float> all = RunOn(1, together);
  ASSERT_FALSE(all.empty());
  for (size_t token = 0; token < tokens.size(); ++token) {
    const MlaProblem alone({.heads = 16,
                            .first_head = 64,
                            .block_size = 8 << token,
                            .page_seed = 5,
                            .rows_for_all = 3000},
                           {tokens[token]});
    const std::vector<float> one = RunOn(7 + token, alone);
    ASSERT_FALSE(one.empty());
    for (int64_t head = 0; head < 16; ++head) {
      EXPECT_TRUE(
          SameBits(Row(alone, one, 0, head), Row(together, all, token, head + 64)))
          << "token " << token << ", head " << head;
    }
  }
}

TEST(CudaMlaDecode, EveryScheduleHasTheSameBits) {
  const MlaProblem problem({.heads = 8, .block_size = 32},
                           {{.name = 1, .sequence = 0, .position = 300}});
  const std::vector<float> first = RunOn(1, problem);
  ASSERT_FALSE(first.empty());
  for (uint64_t seed = 2; seed <= 12; ++seed) {
    ASSERT_TRUE(SameBits(RunOn(seed, problem), first)) << seed;
  }
}

// Of a row that a token sees, not of one behind it, and of no other sequence.
TEST(CudaMlaDecode, ANanReachesThoseWhoSeeItsRow) {
  const std::vector<MlaToken> tokens = {{.name = 1, .sequence = 0, .position = 69},
                                        {.name = 2, .sequence = 1, .position = 69},
                                        {.name = 3, .sequence = 1, .position = 68},
                                        {.name = 4, .sequence = 2, .position = 9}};
  const MlaProblem clean({.heads = 8, .block_size = 8}, tokens);
  MlaProblem damaged = clean;
  damaged.rows().Damage(1, 69, 3);  // a latent value, so key and value
  damaged.rows().Damage(
      2, 4, 570);  // a rope key: it reaches the weight of a row, so all values
  const std::vector<float> expected = RunOn(1, clean);
  const std::vector<float> seen = RunOn(1, damaged);
  ASSERT_FALSE(expected.empty());
  ASSERT_EQ(seen.size(), expected.size());
  for (size_t token = 0; token < tokens.size(); ++token) {
    for (int64_t head = 0; head < 8; ++head) {
      const std::vector<float> row = Row(damaged, seen, token, head);
      if (token % 2 == 0) {
        EXPECT_TRUE(SameBits(row, Row(clean, expected, token, head))) << token;
      } else {
        EXPECT_TRUE(std::all_of(row.begin(), row.end(),
                                [](float value) { return std::isnan(value); }));
      }
    }
  }
}

// ---- packed rows ----

TEST(CudaMlaDecode, PackedRowsAreTheSumOfFloat64WithinItsRoundings) {
  const std::vector<MlaToken> tokens = {{.name = 1, .sequence = 0, .position = 0},
                                        {.name = 2, .sequence = 1, .position = 64},
                                        {.name = 3, .sequence = 1, .position = -1},
                                        {.name = 4, .sequence = 0, .position = 1024}};
  const MlaProblem problem({.heads = 16, .block_size = 64, .packed = true}, tokens);
  const std::vector<float> result = RunOn(3, problem);
  ASSERT_FALSE(result.empty());
  for (const size_t token : {0U, 1U, 3U}) {
    for (const int64_t head : {0, 9, 15}) {
      ExpectRow(problem, result, token, head);
    }
  }
  EXPECT_THAT(Row(problem, result, 2, 5), testing::Each(0.0F));
}

std::vector<int32_t> Every(int32_t step, int32_t end) {
  std::vector<int32_t> entries;
  for (int32_t entry = 0; entry < end; entry += step) {
    entries.push_back(entry);
  }
  return entries;
}

// More than a split of them, a few, none.
TEST(CudaMlaDecode, SelectedRowsAreTheSumOfFloat64WithinItsRoundings) {
  const std::vector<MlaToken> tokens = {
      {.name = 1, .sequence = 0, .position = 3300, .selected = Every(3, 3300)},
      {.name = 2, .sequence = 1, .position = 90, .selected = {0, 5, 77}},
      {.name = 3, .sequence = 0, .position = 8},
      {.name = 4, .sequence = 0, .position = 130, .selected = Every(2, 130)}};
  const MlaProblem problem(
      {.heads = 16, .block_size = 3, .packed = true, .selects = true}, tokens);
  const std::vector<float> result = RunOn(4, problem);
  ASSERT_FALSE(result.empty());
  for (const size_t token : {0U, 1U, 3U}) {
    ExpectRow(problem, result, token, 6);
    ExpectRow(problem, result, token, 13);
  }
  EXPECT_THAT(Row(problem, result, 2, 5), testing::Each(0.0F));
}

// Alone, with all rows selected, in other pages, in other schedules.
TEST(CudaMlaDecode, APackedRowHasTheSameBitsWhateverSurroundsIt) {
  std::vector<MlaToken> tokens = {
      {.name = 1, .sequence = 0, .position = 199, .selected = Every(1, 200)},
      {.name = 2, .sequence = 1, .position = 70, .selected = Every(1, 71)}};
  const MlaProblem together({.heads = 24, .block_size = 64, .packed = true}, tokens);
  const std::vector<float> all = RunOn(1, together);
  ASSERT_FALSE(all.empty());
  for (uint64_t seed = 2; seed <= 6; ++seed) {
    const size_t token = seed % 2;
    const MlaProblem alone({.heads = 8,
                            .first_head = 16,
                            .block_size = static_cast<int64_t>(seed),
                            .page_seed = seed,
                            .packed = true,
                            .selects = seed > 3},
                           {tokens[token]});
    const std::vector<float> one = RunOn(seed, alone);
    ASSERT_FALSE(one.empty());
    for (int64_t head = 0; head < 8; ++head) {
      EXPECT_TRUE(
          SameBits(Row(alone, one, 0, head), Row(together, all, token, head + 16)))
          << "seed " << seed << ", head " << head;
    }
  }
}

TEST(CudaMlaDecode, ACodeThatIsANanReachesThoseWhoSeeItsRow) {
  const std::vector<MlaToken> tokens = {{.name = 1, .sequence = 0, .position = 69},
                                        {.name = 2, .sequence = 0, .position = 68}};
  const MlaProblem clean({.heads = 8, .block_size = 8, .packed = true}, tokens);
  MlaProblem damaged = clean;
  damaged.rows().Damage(0, 69, 300);
  const std::vector<float> expected = RunOn(1, clean);
  const std::vector<float> seen = RunOn(1, damaged);
  ASSERT_FALSE(expected.empty());
  ASSERT_EQ(seen.size(), expected.size());
  EXPECT_THAT(Row(damaged, seen, 0, 2), testing::Each(testing::IsNan()));
  EXPECT_TRUE(SameBits(Row(damaged, seen, 1, 2), Row(clean, expected, 1, 2)));
}

TEST(CudaMlaDecode, ATokenThatSeesMoreThanTheLaunchHasSplitsForGetsNans) {
  const MlaProblem problem({.heads = 8, .block_size = 64, .rows_for_all = 1024},
                           {{.name = 1, .sequence = 0, .position = 1024},
                            {.name = 2, .sequence = 0, .position = 5}});
  const std::vector<float> result = RunOn(1, problem);
  ASSERT_FALSE(result.empty());
  EXPECT_TRUE(std::all_of(result.begin(), result.begin() + 8 * kMlaLatent,
                          [](float value) { return std::isnan(value); }));
  ExpectRow(problem, result, 1, 3);
}

TEST(CudaMlaDecode, QueriesAreRoundedToNearestEvenAndPutTogether) {
  SimulatedDevice device(1);
  const TensorView latent = device.Random({3, 8, kMlaLatent});
  const TensorView rope = device.Random({3, 8, kMlaRope});
  latent.row<float>(1, 2)[3] = 0x1.03p0F;  // halfway between two neighbours
  rope.row<float>(2, 7)[63] = std::numeric_limits<float>::quiet_NaN();
  TensorView q = device.Bytes(3, 8 * kMlaWidth * 2);
  q = TensorView(q.data, DType::kBF16, {3, 8, kMlaWidth});
  device.Upload();
  PackMlaQueries(device.stream(), device.On(latent), device.On(rope), device.On(q));
  device.Download(q);
  const auto* const seen = static_cast<const uint16_t*>(q.data);
  for (int64_t token = 0; token < 3; ++token) {
    for (int64_t head = 0; head < 8; ++head) {
      for (int64_t i = 0; i < kMlaWidth; ++i) {
        const float value = i < kMlaLatent ? latent.row<float>(token, head)[i]
                                           : rope.row<float>(token, head)[i - kMlaLatent];
        ASSERT_EQ(seen[(token * 8 + head) * kMlaWidth + i], cuda_sim::BF16Bits(value))
            << token << ", " << head << ", " << i;
      }
    }
  }
  EXPECT_EQ(seen[(1 * 8 + 2) * kMlaWidth + 3], 0x3f82);
}

TEST(CudaMlaDecode, RefusalsAndBadMemoryAreErrors) {
  const auto machine = std::make_shared<cuda_sim::SimMachine>(cuda_sim::SimOptions{});
  auto stream = cuda_sim::SimStream::Create(machine, 0);
  ASSERT_TRUE(stream.ok());
  alignas(16) static uint16_t memory[8];
  MlaDecodeArgs good;
  good.q = TensorView(memory, DType::kBF16, {0, 16, kMlaWidth});
  good.cache = TensorView(memory, DType::kBF16, {1, 64, kMlaWidth});
  good.index.block_size = 64;
  good.out = TensorView(memory, DType::kF32, {0, 16, kMlaLatent});
  EXPECT_TRUE(MlaDecode(**stream, good).ok());
  MlaDecodeArgs args = good;
  args.out.shape[2] = 256;
  absl::Status status = MlaDecode(**stream, args);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("refused for its width"));
  args = good;
  args.selected = TensorView(memory, DType::kI32, {0, 4});
  args.num_selected = TensorView(memory, DType::kI32, {0});
  status = MlaDecode(**stream, args);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("refused for its selection"));
  args = good;
  args.cache.rows.strides[0] += 8;
  EXPECT_EQ(MlaDecode(**stream, args).code(), absl::StatusCode::kInvalidArgument);
  args = good;
  args.out.strides[1] += 1;
  EXPECT_EQ(MlaDecode(**stream, args).code(), absl::StatusCode::kInvalidArgument);
}

// None of these reaches a launch, which would read or write the host's memory.
TEST(CudaMlaDecode, ViewsOfOtherLengthsAndASmallWorkspaceAreRefused) {
  const auto machine = std::make_shared<cuda_sim::SimMachine>(cuda_sim::SimOptions{});
  auto stream = cuda_sim::SimStream::Create(machine, 0);
  ASSERT_TRUE(stream.ok());
  alignas(16) static uint16_t memory[8];
  MlaDecodeArgs good;
  good.q = TensorView(memory, DType::kBF16, {2, 16, kMlaWidth});
  good.cache.rows = TensorView(memory, DType::kU8, {1, 64, 656});
  good.cache.format = kMlaPackedRows;
  good.index.block_tables = TensorView(memory, DType::kI32, {1, 1});
  good.index.sequence_of_row = TensorView(memory, DType::kI32, {2});
  good.index.positions = TensorView(memory, DType::kI32, {2});
  good.index.block_size = 64;
  good.selected = TensorView(memory, DType::kI32, {2, 4});
  good.num_selected = TensorView(memory, DType::kI32, {2});
  good.rows_max = kMlaSplitRows + 1;  // two splits, so that there are partial results
  good.out = TensorView(memory, DType::kF32, {2, 16, kMlaLatent});
  good.workspace = memory;
  good.workspace_bytes = ChooseMlaDecode(ShapeOf(good)).workspace_bytes;
  ASSERT_GT(good.workspace_bytes, 0);
  const auto expect_refused = [&](const MlaDecodeArgs& args, const char* what) {
    const absl::Status status = MlaDecode(**stream, args);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  };
  MlaDecodeArgs args = good;
  --args.workspace_bytes;
  expect_refused(args, "workspace");
  args = good;
  args.workspace = nullptr;
  expect_refused(args, "workspace");
  args = good;
  args.index.positions.shape[0] = 1;
  expect_refused(args, "positions");
  args = good;
  args.index.sequence_of_row.shape[0] = 3;
  expect_refused(args, "sequences");
  args = good;
  args.selected.shape[0] = 1;
  expect_refused(args, "selections");
  args = good;
  args.num_selected = {};
  expect_refused(args, "numbers of selections");
  args = good;
  args.num_selected.dtype = DType::kI64;
  expect_refused(args, "numbers of selections");
  EXPECT_EQ(machine->num_launches(), 0U);
}

}  // namespace
}  // namespace tessera::kernels::cuda
