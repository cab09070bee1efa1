#include "worker/runner/host_blocks.h"

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "model/config/model_config.h"
#include "tests/testing/status_matchers.h"
#include "worker/runner/kv_pool.h"

namespace tessera::worker {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

constexpr int64_t kBlockSize = 128;
constexpr int64_t kNumBlocks = 4;

// The V4 model has caches of every role, in blocks and in tail blocks.
class HostBlocksTest : public ::testing::TestWithParam<KvCacheDtype> {
 protected:
  void SetUp() override {
    auto pool = KvPool::Create(config_, backend_.get(),
                               {.num_blocks = kNumBlocks,
                                .num_tail_blocks = kNumBlocks,
                                .block_size = kBlockSize,
                                .dtype = GetParam()});
    ASSERT_THAT(pool, IsOk());
    pool_ = std::make_unique<KvPool>(*std::move(pool));
    auto host =
        HostBlocks::Create(config_, backend_.get(), pool_->caches(),
                           {.num_blocks = 2, .num_tail_blocks = 2, .dtype = GetParam()});
    ASSERT_THAT(host, IsOk());
    host_ = std::make_unique<HostBlocks>(*std::move(host));
    stream_ = *backend_->CreateStream();
    std::mt19937_64 random(4);
    for (std::span<std::byte> page : Pages(false)) {
      for (std::byte& byte : page) {
        byte = static_cast<std::byte>(random());
      }
    }
    for (std::span<std::byte> page : Pages(true)) {
      for (std::byte& byte : page) {
        byte = static_cast<std::byte>(random());
      }
    }
  }

  // Of all blocks of one kind, cache by cache.
  std::vector<std::span<std::byte>> Pages(bool tail) const {
    std::vector<std::span<std::byte>> pages;
    for (const CacheSpec& spec : DescribeCaches(config_, GetParam())) {
      if (spec.in_tail != tail) {
        continue;
      }
      const kernels::TensorView& rows =
          pool_->caches()[static_cast<size_t>(spec.layer)][spec.role].rows;
      const size_t bytes =
          model::DTypeBytes(rows.dtype, static_cast<size_t>(rows.dim(1) * rows.dim(2)));
      for (int64_t block = 0; block < kNumBlocks; ++block) {
        pages.emplace_back(static_cast<std::byte*>(rows.Rows(block, 1).data), bytes);
      }
    }
    return pages;
  }

  // The bytes of one block.
  std::vector<std::byte> BytesOf(bool tail, size_t block) const {
    std::vector<std::byte> bytes;
    const auto pages = Pages(tail);
    for (size_t i = block; i < pages.size(); i += kNumBlocks) {
      bytes.insert(bytes.end(), pages[i].begin(), pages[i].end());
    }
    return bytes;
  }

  absl::Status Copy(std::vector<proto::BlockCopy> offloads,
                    std::vector<proto::BlockCopy> restores) {
    proto::StepPlan plan;
    plan.offloads = std::move(offloads);
    plan.restores = std::move(restores);
    const absl::Status status = host_->Copy(*stream_, plan);
    EXPECT_THAT(stream_->Synchronize(), IsOk());
    return status;
  }

  const model::ModelConfig config_ = *model::LoadModelConfig("tests/data/v4");
  const std::unique_ptr<kernels::KernelBackend> backend_ =
      *kernels::CreateBackend({.name = "reference"});
  std::unique_ptr<KvPool> pool_;
  std::unique_ptr<HostBlocks> host_;
  std::unique_ptr<kernels::Stream> stream_;
};

TEST_P(HostBlocksTest, ARestoredBlockHoldsEveryByteOfTheOffloadedOne) {
  for (const bool tail : {false, true}) {
    const std::vector<std::byte> first = BytesOf(tail, 1);
    const std::vector<std::byte> other = BytesOf(tail, 2);
    ASSERT_FALSE(first.empty());
    ASSERT_NE(first, other);
    EXPECT_THAT(Copy({{1, 0, tail}}, {{3, 0, tail}}), IsOk());
    EXPECT_EQ(BytesOf(tail, 3), first);
    EXPECT_EQ(BytesOf(tail, 1), first);
    EXPECT_EQ(BytesOf(tail, 2), other) << "another block changed";
  }
}

TEST_P(HostBlocksTest, OffloadsOfAPlanComeBeforeItsRestores) {
  const std::vector<std::byte> old = BytesOf(false, 0);
  const std::vector<std::byte> next = BytesOf(false, 1);
  ASSERT_THAT(Copy({{1, 1, false}}, {}), IsOk());
  // Block 0 takes the content of host block 1 and leaves its own in host block 0.
  ASSERT_THAT(Copy({{0, 0, false}}, {{0, 1, false}}), IsOk());
  EXPECT_EQ(BytesOf(false, 0), next);
  ASSERT_THAT(Copy({}, {{2, 0, false}}), IsOk());
  EXPECT_EQ(BytesOf(false, 2), old);
}

TEST_P(HostBlocksTest, ADamagedBlockIsNamedAndNotRestored) {
  for (const bool tail : {false, true}) {
    ASSERT_THAT(Copy({{1, 1, tail}}, {}), IsOk());
    const std::vector<std::byte> before = BytesOf(tail, 0);
    const std::span<std::byte> bytes = host_->block(tail, 1);
    for (const size_t at : {size_t{0}, bytes.size() / 2, bytes.size() - 1}) {
      bytes[at] ^= std::byte{1};
      EXPECT_THAT(Copy({}, {{0, 1, tail}}), StatusIs(absl::StatusCode::kDataLoss));
      EXPECT_EQ(BytesOf(tail, 0), before);
      bytes[at] ^= std::byte{1};
    }
    EXPECT_THAT(Copy({}, {{0, 1, tail}}), IsOk());
  }
}

TEST_P(HostBlocksTest, RefusesBlocksThatDoNotExistOrHoldNothing) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Copy({{kNumBlocks, 0, false}}, {}), StatusIs(kInvalid));
  EXPECT_THAT(Copy({{0, 2, true}}, {}), StatusIs(kInvalid));
  EXPECT_THAT(Copy({}, {{0, 0, false}}), StatusIs(kInvalid)) << "never written";
  ASSERT_THAT(Copy({{0, 0, false}}, {}), IsOk());
  EXPECT_THAT(Copy({}, {{0, 0, true}}), StatusIs(kInvalid)) << "the other kind";
  host_->Clear();
  EXPECT_THAT(Copy({}, {{0, 0, false}}), StatusIs(kInvalid)) << "of the epoch before";
}

INSTANTIATE_TEST_SUITE_P(Rows, HostBlocksTest,
                         ::testing::Values(KvCacheDtype::kActivations,
                                           KvCacheDtype::kFp8));

TEST(HostBlocks, AModelWithoutTailBlocksHasNoneOnTheHost) {
  const auto config = model::LoadModelConfig("tests/data/v3");
  ASSERT_THAT(config, IsOk());
  const auto backend = *kernels::CreateBackend({.name = "reference"});
  const auto pool =
      KvPool::Create(*config, backend.get(), {.num_blocks = 2, .block_size = 16});
  ASSERT_THAT(pool, IsOk());
  EXPECT_THAT(HostBlocks::Create(*config, backend.get(), pool->caches(),
                                 {.num_blocks = 1, .num_tail_blocks = 1}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(HostBlocks::Create(*config, backend.get(), pool->caches(), {}), IsOk())
      << "none at all";
}

}  // namespace
}  // namespace tessera::worker
