// What a query of absorbed MLA gets: the same bits alone and among others, whichever
// threads compute its blocks of rows. That the backends agree: tests/parity.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cache_view.h"
#include "kernels/kernel_backend.h"

namespace tessera::kernels {
namespace {

constexpr uint64_t kSeed = 11;
constexpr int64_t kBlock = 16;
constexpr int64_t kRows = 320;
constexpr int64_t kHeads = 21;   // more than the lanes, and no multiple of four
constexpr int64_t kLatent = 40;  // no multiple of 16
constexpr int64_t kRope = 8;

// One sequence of kRows cached rows, whose blocks lie in falling order.
class LatentAttention
    : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void SetUp() override {
    if (!CreateBackend({.name = "cpu", .cpu_isa = Isa()}).ok()) {
      GTEST_SKIP() << "no " << Isa();
    }
    std::uniform_real_distribution<float> value(-1, 1);
    std::mt19937_64 random(kSeed);
    for (std::vector<float>* values : {&rows_, &q_latent_, &q_rope_}) {
      for (float& x : *values) {
        x = value(random);
      }
    }
    for (size_t i = 0; i < blocks_.size(); ++i) {
      blocks_[i] = static_cast<int32_t>(blocks_.size() - 1 - i);
    }
  }

  const std::string& Isa() const { return std::get<0>(GetParam()); }
  const std::string& Numerics() const { return std::get<1>(GetParam()); }

  float* RowAt(int64_t position) {
    const int64_t block = blocks_[static_cast<size_t>(position / kBlock)];
    return rows_.data() + (block * kBlock + position % kBlock) * (kLatent + kRope);
  }

  // Of queries at `positions`, each with the values of its position: [T, heads, latent].
  // Many queries select the rows that they see, few see all, or the other way round.
  std::vector<float> Run(std::vector<int32_t> positions, int threads, bool selects) {
    auto backend = CreateBackend({.name = "cpu",
                                  .cpu_isa = Isa(),
                                  .numerics = Numerics(),
                                  .num_threads = threads,
                                  .work_per_thread = 1});
    EXPECT_TRUE(backend.ok()) << backend.status();
    auto stream = (*backend)->CreateStream();
    EXPECT_TRUE(stream.ok());
    const auto count = static_cast<int64_t>(positions.size());
    std::vector<float> q_latent;
    std::vector<float> q_rope;
    std::vector<int32_t> selected(static_cast<size_t>(count * kRows), -1);
    std::vector<int32_t> counts;
    for (const int32_t position : positions) {
      const int64_t first = position * kHeads;
      q_latent.insert(q_latent.end(), q_latent_.begin() + first * kLatent,
                      q_latent_.begin() + (first + kHeads) * kLatent);
      q_rope.insert(q_rope.end(), q_rope_.begin() + first * kRope,
                    q_rope_.begin() + (first + kHeads) * kRope);
      for (int32_t i = 0; i <= position; ++i) {
        selected[counts.size() * kRows + static_cast<size_t>(i)] = i;
      }
      counts.push_back(position + 1);
    }
    std::vector<int32_t> sequence(positions.size(), 0);
    std::vector<float> out(static_cast<size_t>(count * kHeads * kLatent), -1.0F);
    (*backend)->MlaAttention(
        **stream,
        {.q_latent = {q_latent.data(), DType::kF32, {count, kHeads, kLatent}},
         .q_rope = {q_rope.data(), DType::kF32, {count, kHeads, kRope}},
         .rows = TensorView(rows_.data(), DType::kF32,
                            {kRows / kBlock, kBlock, kLatent + kRope}),
         .index = {.block_tables = {blocks_.data(), DType::kI32, {1, kRows / kBlock}},
                   .sequence_of_row = {sequence.data(), DType::kI32, {count}},
                   .positions = {positions.data(), DType::kI32, {count}},
                   .block_size = kBlock},
         .selected = selects ? TensorView(selected.data(), DType::kI32, {count, kRows})
                             : TensorView(),
         .num_selected =
             selects ? TensorView(counts.data(), DType::kI32, {count}) : TensorView(),
         .scale = 0.25,
         .out = {out.data(), DType::kF32, {count, kHeads, kLatent}}});
    return out;
  }

  static constexpr int64_t kOutput = kHeads * kLatent;
  std::vector<float> rows_ = std::vector<float>(kRows * (kLatent + kRope));
  std::vector<float> q_latent_ = std::vector<float>(kRows * kHeads * kLatent);
  std::vector<float> q_rope_ = std::vector<float>(kRows * kHeads * kRope);
  std::vector<int32_t> blocks_ = std::vector<int32_t>(kRows / kBlock);
};

std::vector<int32_t> EveryPosition() {
  std::vector<int32_t> positions(kRows);
  for (size_t i = 0; i < positions.size(); ++i) {
    positions[i] = static_cast<int32_t>(i);
  }
  return positions;
}

TEST_P(LatentAttention, AQueryHasTheSameBitsAloneAndAmongOthersOnAnyThreads) {
  const std::vector<float> all = Run(EveryPosition(), 1, false);
  EXPECT_EQ(Run(EveryPosition(), 3, true), all);
  // Blocks of rows begin at multiples of 96.
  for (const int32_t position : {0, 1, 94, 95, 96, 97, 191, 192, 319}) {
    for (const int threads : {1, 3}) {
      for (const bool selects : {false, true}) {
        const std::vector<float> alone = Run({position}, threads, selects);
        EXPECT_EQ(std::memcmp(alone.data(), all.data() + position * kOutput,
                              static_cast<size_t>(kOutput) * sizeof(float)),
                  0)
            << "position " << position << ", " << threads << " threads, seed " << kSeed;
      }
    }
  }
}

TEST_P(LatentAttention, DamageReachesTheQueriesThatSeeItAndNoOthers) {
  constexpr int64_t kDamaged = 100;
  const std::vector<float> whole = Run(EveryPosition(), 1, false);
  RowAt(kDamaged)[kLatent - 1] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> damaged = Run(EveryPosition(), 2, false);
  EXPECT_EQ(std::memcmp(damaged.data(), whole.data(),
                        static_cast<size_t>(kDamaged * kOutput) * sizeof(float)),
            0);
  for (int64_t i = kDamaged * kOutput; i < kRows * kOutput; ++i) {
    ASSERT_TRUE(std::isnan(damaged[static_cast<size_t>(i)])) << "value " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, LatentAttention,
                         testing::Combine(testing::Values("scalar", "avx2", "avx512",
                                                          "avx512vnni"),
                                          testing::Values("f32", "w8a8-g32")),
                         [](const auto& of) {
                           return std::get<0>(of.param) +
                                  (std::get<1>(of.param) == "f32" ? "" : "Rounded");
                         });

}  // namespace
}  // namespace tessera::kernels
