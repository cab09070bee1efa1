// The tiers and the tenants' floors of the block manager.
#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "coordinator/scheduler/block_manager.h"
#include "coordinator/scheduler/test_content.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::Blocks;
using ::tessera::testing::Content;
using ::tessera::testing::kBlockSize;

std::unique_ptr<BlockManager> Make(BlockManagerOptions options) {
  options.block_size = kBlockSize;
  auto manager = BlockManager::Create(options);
  EXPECT_TRUE(manager.ok()) << manager.status();
  return *std::move(manager);
}

// Device and host memory as a worker would hold them: every block knows what is in it.
class Memory {
 public:
  explicit Memory(BlockManager* manager) : manager_(manager) {}

  // Takes a match, computes the rest, and gives everything back.
  void Run(const Content& content) {
    manager_->BeginPlan();
    PrefixMatch match = manager_->Match(content.query());
    ASSERT_GE(match.num_spare, std::ssize(content.keys) - std::ssize(match.blocks));
    PrefixCursor cursor = manager_->Acquire(content.tenant, &match);
    std::vector<BlockId> blocks = match.blocks;
    ASSERT_TRUE(manager_->Allocate(std::ssize(content.keys) - std::ssize(blocks), &blocks,
                                   content.tenant));
    // Over as many plans as it takes, and only then its own blocks are written.
    const auto restored = std::span(match.blocks);
    for (int64_t limit = restores_per_plan;
         manager_->NameRestores(restored, &limit) < std::ssize(restored);
         limit = restores_per_plan) {
      CopyAll();
      manager_->BeginPlan();
    }
    manager_->BeforeWrite(std::span(blocks).subspan(restored.size()));
    CopyAll();
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (i < match.blocks.size()) {
        ASSERT_EQ(device_[blocks[i]], content.keys[i].low) << "block " << i;
      } else {
        device_[blocks[i]] = content.keys[i].low;
        manager_->Register(content.query(), blocks[i], &cursor);
      }
    }
    num_hits += std::ssize(match.blocks);
    manager_->Release(blocks);
    const absl::Status status = manager_->CheckInvariants();
    ASSERT_TRUE(status.ok()) << status;
  }

  int64_t restores_per_plan = 100;
  int64_t num_hits = 0;
  int64_t num_offloads = 0;
  int64_t num_restores = 0;

 private:
  void CopyAll() {
    const TierCopies copies = manager_->TakeCopies();
    for (const auto& [device, host] : copies.blocks.offloads) {
      host_[host] = device_[device];
    }
    for (const auto& [device, host] : copies.blocks.restores) {
      device_[device] = host_.at(host);
    }
    num_offloads += std::ssize(copies.blocks.offloads);
    num_restores += std::ssize(copies.blocks.restores);
    ASSERT_LE(std::ssize(copies.blocks.restores), restores_per_plan);
  }

  BlockManager* const manager_;
  std::map<BlockId, uint64_t> device_;
  std::map<BlockId, uint64_t> host_;
};

TEST(BlockTiers, RefusesOptionsThatCannotWork) {
  BlockManagerOptions options{.num_blocks = 8, .num_host_blocks = 4};
  EXPECT_TRUE(BlockManager::Create(options).ok());
  options.num_host_blocks = -1;
  EXPECT_FALSE(BlockManager::Create(options).ok());
  options.num_host_blocks = int64_t{1} << 40;
  EXPECT_FALSE(BlockManager::Create(options).ok());
  options = {.num_blocks = 8, .enable_prefix_caching = false, .num_host_blocks = 4};
  EXPECT_FALSE(BlockManager::Create(options).ok()) << "nothing would be found there";
  options = {.num_blocks = 8, .floors = {{"a", 5}, {"b", 3}}};
  EXPECT_TRUE(BlockManager::Create(options).ok());
  options.floors[1].num_blocks = 4;
  EXPECT_FALSE(BlockManager::Create(options).ok());
}

TEST(BlockTiers, AnEvictedPrefixComesBackFromTheHost) {
  const auto manager = Make({.num_blocks = 4, .num_host_blocks = 8});
  Memory memory(manager.get());
  const Content first = Blocks("t", 100, 4);
  const Content second = Blocks("t", 500, 4);
  memory.Run(first);
  memory.Run(second);
  EXPECT_EQ(memory.num_offloads, 4);
  const PrefixMatch match = manager->Match(first.query());
  EXPECT_EQ(match.blocks, std::vector<BlockId>(4, kNoBlock));
  EXPECT_EQ(match.host_blocks.size(), 4u);
  EXPECT_EQ(match.num_spare, 0) << "each needs a block";
  memory.Run(first);
  EXPECT_EQ(memory.num_hits, 4);
  EXPECT_EQ(memory.num_restores, 4);
  EXPECT_EQ(memory.num_offloads, 8);
  memory.Run(second);
  EXPECT_EQ(memory.num_hits, 8);
  EXPECT_EQ(memory.num_offloads, 8) << "what was restored has its copy";
}

TEST(BlockTiers, AChainMayLieInBothTiers) {
  const auto manager = Make({.num_blocks = 4, .num_host_blocks = 8});
  Memory memory(manager.get());
  const Content content = Blocks("t", 100, 4);
  memory.Run(content);
  memory.Run(Blocks("t", 500, 2));  // evicts the end
  const PrefixMatch match = manager->Match(content.query());
  ASSERT_EQ(match.blocks.size(), 4u);
  EXPECT_NE(match.blocks[1], kNoBlock);
  EXPECT_EQ(match.blocks[2], kNoBlock);
  EXPECT_EQ(match.host_blocks.size(), 2u);
  memory.Run(content);
  EXPECT_EQ(memory.num_hits, 4);
}

TEST(BlockTiers, ARecomputedStartFindsItsEndOnTheHost) {
  const auto manager = Make({.num_blocks = 4, .num_host_blocks = 8});
  Memory memory(manager.get());
  const Content whole = Blocks("t", 100, 4);
  const Content start = Blocks("t", 100, 2);
  memory.Run(whole);
  memory.Run(Blocks("t", 500, 4));
  // Computed anew, without a look at the host: the same content as before.
  std::vector<BlockId> blocks;
  ASSERT_TRUE(manager->Allocate(2, &blocks));
  PrefixCursor cursor;
  manager->Register(start.query(), blocks[0], &cursor);
  manager->Register(start.query(), blocks[1], &cursor);
  manager->Release(blocks);
  const PrefixMatch match = manager->Match(whole.query());
  EXPECT_EQ(match.blocks.size(), 4u);
  EXPECT_EQ(match.host_blocks.size(), 2u);
}

TEST(BlockTiers, NoTenantFindsAnothersContentInEitherTier) {
  const auto manager = Make({.num_blocks = 4, .num_host_blocks = 8});
  Memory memory(manager.get());
  memory.Run(Blocks("a", 100, 3));
  EXPECT_TRUE(manager->Match(Blocks("b", 100, 3).query()).blocks.empty());
  memory.Run(Blocks("a", 500, 4));
  // The very keys of the other tenant: what a broken hash would give.
  Content forged = Blocks("a", 100, 3);
  forged.tenant = "b";
  EXPECT_EQ(manager->Match(Blocks("a", 100, 3).query()).host_blocks.size(), 3u);
  EXPECT_TRUE(manager->Match(forged.query()).blocks.empty());
}

TEST(BlockTiers, TailBlocksComeBackWithTheirPrefix) {
  const auto manager = Make({.num_blocks = 4,
                             .num_tail_blocks = 3,
                             .tail_tokens = 4,
                             .num_host_blocks = 8,
                             .num_host_tail_blocks = 2});
  const Content content = Blocks("t", 100, 2);
  std::vector<BlockId> blocks;
  std::vector<BlockId> tails;
  ASSERT_TRUE(manager->Allocate(2, &blocks));
  ASSERT_TRUE(manager->AllocateTails(2, &tails));
  PrefixCursor cursor;
  for (size_t i = 0; i < 2; ++i) {
    manager->Register(content.query(), blocks[i], &cursor);
    manager->KeepTail(cursor, tails[i]);
  }
  manager->Release(blocks);
  manager->ReleaseTails(tails);
  // The tail blocks go alone, then the blocks.
  std::vector<BlockId> others;
  std::vector<BlockId> other_tails;
  ASSERT_TRUE(manager->AllocateTails(3, &other_tails));
  EXPECT_TRUE(manager->TakeCopies().tails.offloads.empty()) << "nobody writes there yet";
  manager->BeforeTailWrite(other_tails);
  TierCopies copies = manager->TakeCopies();
  EXPECT_EQ(copies.tails.offloads.size(), 2u);
  EXPECT_TRUE(copies.blocks.offloads.empty());
  PrefixMatch match = manager->Match(content.query());
  EXPECT_EQ(match.tail_blocks, std::vector<BlockId>{kNoBlock});
  EXPECT_EQ(match.host_tail_blocks.size(), 1u);
  EXPECT_EQ(match.num_spare_tails, -1) << "no room for it";
  manager->ReleaseTails(other_tails);
  ASSERT_TRUE(manager->Allocate(4, &others));
  manager->BeforeWrite(others);
  EXPECT_EQ(manager->TakeCopies().blocks.offloads.size(), 2u);
  manager->Release(others);
  manager->BeginPlan();
  match = manager->Match(content.query());
  EXPECT_EQ(match.host_blocks.size(), 2u);
  manager->Acquire("t", &match);
  int64_t limit = 3;
  EXPECT_EQ(manager->NameRestores(match.blocks, &limit), 2);
  EXPECT_EQ(manager->NameTailRestores(match.tail_blocks, &limit), 1);
  EXPECT_EQ(limit, 0);
  copies = manager->TakeCopies();
  EXPECT_EQ(copies.blocks.restores.size(), 2u);
  ASSERT_EQ(copies.tails.restores.size(), 1u);
  EXPECT_EQ(copies.tails.restores[0].first, match.tail_blocks[0]);
  EXPECT_TRUE(manager->CheckInvariants().ok()) << manager->CheckInvariants();
  EXPECT_EQ(manager->Match(content.query()).blocks, match.blocks) << "found at once";
}

// Two blocks that were evicted to the host and are wanted again, of which a plan has
// restored the first.
class HalfRestored : public ::testing::Test {
 protected:
  void SetUp() override {
    Memory memory(manager_.get());
    memory.Run(content_);
    memory.Run(Blocks("t", 100, 4));
    manager_->BeginPlan();
    match_ = manager_->Match(content_.query());
    ASSERT_EQ(match_.host_blocks.size(), 2u);
    manager_->Acquire("t", &match_);
    int64_t limit = 1;
    EXPECT_EQ(manager_->NameRestores(match_.blocks, &limit), 1);
    EXPECT_EQ(manager_->TakeCopies().blocks.restores.size(), 1u);
  }

  const Content content_ = Blocks("t", 0, 2);
  const std::unique_ptr<BlockManager> manager_ =
      Make({.num_blocks = 4, .num_host_blocks = 4});
  PrefixMatch match_;
};

TEST_F(HalfRestored, AnotherWhoMatchesItWaitsForTheRestAndMayAskForIt) {
  manager_->BeginPlan();
  PrefixMatch second = manager_->Match(content_.query());
  EXPECT_EQ(second.blocks, match_.blocks);
  manager_->Acquire("t", &second);
  manager_->Release(match_.blocks);
  int64_t limit = 0;
  EXPECT_EQ(manager_->NameRestores(second.blocks, &limit), 1);
  limit = 5;
  EXPECT_EQ(manager_->NameRestores(second.blocks, &limit), 2);
  EXPECT_EQ(limit, 4);
  EXPECT_EQ(manager_->TakeCopies().blocks.restores.size(), 1u);
}

TEST_F(HalfRestored, TheRestStaysOnTheHostWhereNobodyWantsItAnyMore) {
  manager_->Release(match_.blocks);
  EXPECT_TRUE(manager_->CheckInvariants().ok()) << manager_->CheckInvariants();
  EXPECT_EQ(manager_->num_used(), 0);
  manager_->BeginPlan();
  const PrefixMatch again = manager_->Match(content_.query());
  EXPECT_EQ(again.blocks, (std::vector<BlockId>{match_.blocks[0], kNoBlock}));
  EXPECT_EQ(manager_->host().blocks().num_used(), 0) << "nothing is pinned";
}

TEST(BlockTiers, RandomRunsFindOnlyWhatTheyWrote) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const auto manager = Make({.num_blocks = static_cast<int64_t>(6 + random() % 6),
                               .num_host_blocks = static_cast<int64_t>(random() % 12),
                               .floors = {{"a", static_cast<int64_t>(random() % 3)}}});
    Memory memory(manager.get());
    memory.restores_per_plan = static_cast<int64_t>(1 + random() % 3);
    for (int run = 0; run < 200; ++run) {
      // Prompts of a small tree: a common start, then one of several ends.
      Content content = Blocks(random() % 2 == 0 ? "a" : "b", 100, 4);
      const auto branch = static_cast<int32_t>(random() % 5);
      std::vector<int32_t> tokens = content.tokens;
      tokens.resize(static_cast<size_t>(kBlockSize) * (1 + random() % 4));
      tokens[tokens.size() - 1] += branch;
      memory.Run(Content(content.tenant, tokens));
      if (::testing::Test::HasFatalFailure()) {
        return;
      }
    }
    EXPECT_GT(memory.num_hits, 20);
  }
}

TEST(TenantFloors, NobodyElseEvictsTheCachedBlocksOfAFloor) {
  const auto manager = Make({.num_blocks = 8, .floors = {{"a", 3}}});
  Memory memory(manager.get());
  const Content kept = Blocks("a", 100, 4);
  memory.Run(kept);
  EXPECT_EQ(manager->num_free_for("b"), 5);
  EXPECT_EQ(manager->num_free_for("a"), 8);
  std::vector<BlockId> blocks;
  EXPECT_FALSE(manager->Allocate(6, &blocks, "b"));
  EXPECT_TRUE(manager->Allocate(5, &blocks, "b"));
  EXPECT_EQ(manager->Match(kept.query()).blocks.size(), 3u);
  EXPECT_EQ(manager->num_free_for("b"), 0);
  EXPECT_TRUE(manager->Allocate(1, &blocks, "a")) << "of its own";
  EXPECT_TRUE(manager->CheckInvariants().ok());
}

TEST(TenantFloors, AFloorKeepsNothingFreeThatIsNotCached) {
  const auto manager = Make({.num_blocks = 4, .floors = {{"a", 3}}});
  EXPECT_EQ(manager->num_free_for("b"), 4);
  std::vector<BlockId> blocks;
  EXPECT_TRUE(manager->Allocate(4, &blocks, "b"));
}

TEST(TenantFloors, TheOldestThatMayGoIsEvictedFirst) {
  const auto manager = Make({.num_blocks = 4, .floors = {{"a", 1}}});
  Memory memory(manager.get());
  const Content old = Blocks("a", 100, 2);
  const Content newer = Blocks("b", 200, 2);
  memory.Run(old);
  memory.Run(newer);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(manager->Allocate(2, &blocks, "c"));
  EXPECT_EQ(manager->Match(old.query()).blocks.size(), 1u) << "above the floor";
  EXPECT_EQ(manager->Match(newer.query()).blocks.size(), 1u) << "then the next oldest";
}

TEST(TenantFloors, TailBlocksAreKeptInProportion) {
  const auto manager = Make(
      {.num_blocks = 8, .num_tail_blocks = 6, .tail_tokens = 4, .floors = {{"a", 4}}});
  const Content content = Blocks("a", 100, 4);
  std::vector<BlockId> blocks;
  std::vector<BlockId> tails;
  ASSERT_TRUE(manager->Allocate(4, &blocks, "a"));
  ASSERT_TRUE(manager->AllocateTails(4, &tails, "a"));
  PrefixCursor cursor;
  for (size_t i = 0; i < 4; ++i) {
    manager->Register(content.query(), blocks[i], &cursor);
    manager->KeepTail(cursor, tails[i]);
  }
  manager->Release(blocks);
  manager->ReleaseTails(tails);
  // Half of the four that one sequence can spare.
  EXPECT_EQ(manager->num_free_tails_for("b"), 4);
  EXPECT_EQ(manager->num_free_tails_for("a"), 6);
}

}  // namespace
}  // namespace tessera::coordinator
