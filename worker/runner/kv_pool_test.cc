#include "worker/runner/kv_pool.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <utility>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "model/config/model_config.h"
#include "worker/layers/cache_layout.h"

namespace tessera::worker {
namespace {

constexpr int64_t kBlockSize = 128;

class KvPoolTest : public ::testing::Test {
 protected:
  static model::ModelConfig Load(const char* folder) {
    auto config = model::LoadModelConfig(folder);
    EXPECT_TRUE(config.ok()) << config.status();
    return *std::move(config);
  }

  const model::ModelConfig v4_ = Load("tests/data/v4");
  const model::ModelConfig v3_ = Load("tests/data/v3");
  const std::unique_ptr<kernels::KernelBackend> backend_ =
      *kernels::CreateBackend({.name = "reference"});
};

TEST_F(KvPoolTest, HoldsAsManyBytesAsItsBlocksAndTailBlocks) {
  const auto pool =
      KvPool::Create(v4_, backend_.get(),
                     {.num_blocks = 5, .num_tail_blocks = 3, .block_size = kBlockSize});
  ASSERT_TRUE(pool.ok()) << pool.status();
  const KvPool::PageFormat page = {.block_size = kBlockSize};
  const size_t block = KvPool::BlockBytes(v4_, page);
  const size_t tail = KvPool::TailBlockBytes(v4_, page);
  EXPECT_EQ(pool->size_bytes(), 5 * block + 3 * tail);
  // Two CSA layers and one HCA layer; six layers with a window, the MTP layer included.
  EXPECT_EQ(block, sizeof(float) * (2 * (160 + 64) * kBlockSize / 4 + 160));
  EXPECT_EQ(tail,
            sizeof(float) * kBlockSize * (6 * 160 + 2 * 2 * 2 * (160 + 64) + 2 * 160));
}

// A CSA entry is 128 codes, 32 BF16 and 2 scales padded to 8, an index key 32 + 2; raw
// rows stay float32.
TEST_F(KvPoolTest, HoldsPackedRowsInTheirBytes) {
  const KvPool::PageFormat page = {.dtype = KvCacheDtype::kFp8, .block_size = kBlockSize};
  constexpr size_t kRow = 128 + 2 * 32 + 8;
  EXPECT_EQ(KvPool::BlockBytes(v4_, page), 2 * (kRow + 34) * kBlockSize / 4 + kRow);
  EXPECT_EQ(KvPool::TailBlockBytes(v4_, page),
            kBlockSize * (6 * kRow + sizeof(float) * (2 * 2 * 2 * (160 + 64) + 2 * 160)));
}

TEST_F(KvPoolTest, GivesEveryCacheAlignedMemoryOfItsOwn) {
  for (const KvCacheDtype dtype : {KvCacheDtype::kActivations, KvCacheDtype::kFp8}) {
    const auto pool = KvPool::Create(v4_, backend_.get(),
                                     {.num_blocks = 2,
                                      .num_tail_blocks = 3,
                                      .block_size = kBlockSize,
                                      .dtype = dtype});
    ASSERT_TRUE(pool.ok()) << pool.status();
    std::set<std::pair<std::byte*, std::byte*>> ranges;
    size_t bytes = 0;
    for (const CacheSpec& spec : DescribeCaches(v4_, dtype)) {
      const kernels::CacheView& cache =
          pool->caches()[static_cast<size_t>(spec.layer)][spec.role];
      ASSERT_EQ(cache.rows.rank, 3);
      EXPECT_EQ(cache.num_blocks(), spec.in_tail ? 3 : 2);
      EXPECT_EQ(cache.block_size(), kBlockSize / spec.ratio);
      EXPECT_EQ(cache.width(), spec.row.width);
      EXPECT_EQ(cache.format.code, spec.row.code);
      auto* const begin = static_cast<std::byte*>(cache.rows.data);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(begin) % 64, 0u);
      const size_t size = model::DTypeBytes(
          cache.rows.dtype, static_cast<size_t>(cache.rows.num_elements()));
      ranges.insert({begin, begin + size});
      bytes += size;
    }
    EXPECT_LE(bytes, pool->size_bytes());
    EXPECT_LT(pool->size_bytes() - bytes, 64 * ranges.size());
    const std::byte* end = nullptr;
    for (const auto& [begin, last] : ranges) {
      EXPECT_TRUE(end == nullptr || end <= begin);
      end = last;
    }
  }
}

TEST_F(KvPoolTest, RefusesBlocksThatCutEntriesAndTailsWithoutBlocks) {
  const auto code = [&](const model::ModelConfig& config,
                        const KvPool::Options& options) {
    return KvPool::Create(config, backend_.get(), options).status().code();
  };
  EXPECT_EQ(code(v4_, {.num_blocks = 1, .num_tail_blocks = 1, .block_size = 64}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(v4_, {.num_blocks = 1, .num_tail_blocks = 0, .block_size = 128}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(v3_, {.num_blocks = 1, .num_tail_blocks = 0, .block_size = 16}),
            absl::StatusCode::kOk);
  EXPECT_EQ(KvPool::TailBlockBytes(v3_, {.block_size = 16}), 0u);
}

}  // namespace
}  // namespace tessera::worker
