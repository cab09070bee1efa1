#include "worker/runner/host_blocks.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "model/config/model_config.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/in_process/in_process_group.h"
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
    ASSERT_NO_FATAL_FAILURE(MakeRank(&pool_, &host_));
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

  // Empty caches of a rank, and host memory for them.
  void MakeRank(std::unique_ptr<KvPool>* pool, std::unique_ptr<HostBlocks>* host) {
    auto made = KvPool::Create(config_, backend_.get(),
                               {.num_blocks = kNumBlocks,
                                .num_tail_blocks = kNumBlocks,
                                .block_size = kBlockSize,
                                .dtype = GetParam()});
    ASSERT_THAT(made, IsOk());
    *pool = std::make_unique<KvPool>(*std::move(made));
    auto blocks =
        HostBlocks::Create(config_, backend_.get(), (*pool)->caches(),
                           {.num_blocks = 2, .num_tail_blocks = 2, .dtype = GetParam()});
    ASSERT_THAT(blocks, IsOk());
    *host = std::make_unique<HostBlocks>(*std::move(blocks));
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
  host_->Clear(1);
  EXPECT_THAT(Copy({}, {{0, 0, false}}), StatusIs(kInvalid)) << "of the epoch before";
}

// Two ranks with caches of their own; each makes the copies of its own plan.
class TransferTest : public HostBlocksTest {
 protected:
  static constexpr HostBlocks::Peers kNobody = {};

  // Rank 0 has the fixture's caches, rank 1 empty ones.
  void SetUp() override {
    HostBlocksTest::SetUp();
    ASSERT_NO_FATAL_FAILURE(MakeRank(&other_pool_, &other_));
    group_ = *CreateInProcessGroup("ep", 2, {}, Clock::Real());
    const int64_t bytes =
        std::max(std::ssize(host_->block(false, 0)), std::ssize(host_->block(true, 0)));
    for (const auto& rank : group_) {
      transfers_.push_back(*KvTransfer::Create(
          {.max_messages = 4, .max_payload_bytes = bytes}, rank.get()));
    }
  }

  HostBlocks::Peers PeersOf(size_t rank) const {
    return {.transfer = transfers_[rank].get(), .num_dp_ranks = 2};
  }

  // The first error of the two.
  absl::Status Run(proto::StepPlan first, proto::StepPlan second) {
    first.transfers = second.transfers = true;
    first.step = second.step = ++step_;
    absl::Status other;
    const auto stream = *backend_->CreateStream();
    std::thread rank1([&] {
      other = other_->Copy(*stream, second, PeersOf(1));
      other.Update(stream->Synchronize());
      if (!other.ok()) {
        group_[1]->Abort("test");
      }
    });
    absl::Status status = host_->Copy(*stream_, first, PeersOf(0));
    if (!status.ok()) {
      group_[0]->Abort("test");
    }
    rank1.join();
    return other.ok() || absl::IsAborted(other) ? status : other;
  }

  std::vector<std::byte> OtherBytesOf(bool tail, size_t block) {
    pool_.swap(other_pool_);
    std::vector<std::byte> bytes = BytesOf(tail, block);
    pool_.swap(other_pool_);
    return bytes;
  }

  std::unique_ptr<KvPool> other_pool_;
  std::unique_ptr<HostBlocks> other_;
  std::vector<std::unique_ptr<Communicator>> group_;
  std::vector<std::unique_ptr<KvTransfer>> transfers_;
  uint64_t step_ = 0;
};

TEST_P(TransferTest, WhatOneRankSendsAnotherRestoresInTheSameStep) {
  proto::StepPlan first;
  first.sends = {{1, 1, false, 7}, {2, 1, true, 8}, {0, 1, false, 9}};
  proto::StepPlan second;
  second.receives = {{0, 0, false, 7}, {1, 0, true, 8}, {1, 0, false, 9}};
  second.restores = {{3, 0, false}, {2, 1, false}, {0, 1, true}};
  ASSERT_THAT(Run(first, second), IsOk());
  EXPECT_EQ(OtherBytesOf(false, 3), BytesOf(false, 1));
  EXPECT_EQ(OtherBytesOf(false, 2), BytesOf(false, 0));
  EXPECT_EQ(OtherBytesOf(true, 0), BytesOf(true, 2));
  // A step in which nobody has a block.
  EXPECT_THAT(Run({}, {}), IsOk());
}

TEST_P(TransferTest, AReceivedBlockIsCheckedAgainBeforeItIsRestored) {
  proto::StepPlan first;
  first.sends = {{1, 1, false, 7}};
  proto::StepPlan second;
  second.receives = {{0, 0, false, 7}};
  ASSERT_THAT(Run(first, second), IsOk());
  other_->block(false, 0)[5] ^= std::byte{4};
  proto::StepPlan restore;
  restore.restores = {{3, 0, false}};
  EXPECT_THAT(other_->Copy(*stream_, restore), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_P(TransferTest, PlansThatDoNotAgreeAreDataLoss) {
  proto::StepPlan first;
  first.sends = {{1, 1, false, 7}};
  proto::StepPlan second;
  second.receives = {{0, 0, false, 8}};
  EXPECT_THAT(Run(first, second), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_P(TransferTest, RefusesTransfersThatCannotBe) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  proto::StepPlan plan;
  plan.transfers = true;
  EXPECT_THAT(host_->Copy(*stream_, plan, kNobody), StatusIs(kInvalid));
  const auto refuses = [&](proto::BlockTransfer send, proto::BlockTransfer receive) {
    plan.sends = {send};
    plan.receives = {receive};
    EXPECT_THAT(host_->Copy(*stream_, plan, PeersOf(0)), StatusIs(kInvalid));
  };
  refuses({kNumBlocks, 1, false, 1}, {0, 1, false, 1});
  refuses({0, 1, true, 1}, {2, 1, true, 1});
  refuses({0, 2, false, 1}, {0, 1, false, 1});
  refuses({0, 1, false, 1}, {0, 2, false, 1});
  refuses({0, 0, false, 1}, {0, 1, false, 1});  // to itself
}

INSTANTIATE_TEST_SUITE_P(Rows, TransferTest,
                         ::testing::Values(KvCacheDtype::kActivations,
                                           KvCacheDtype::kFp8));

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
