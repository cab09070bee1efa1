#include "coordinator/scheduler/block_manager.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "gtest/gtest.h"

#include "coordinator/scheduler/test_content.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::Content;
using ::tessera::testing::kBlockSize;

std::unique_ptr<BlockManager> Make(int64_t num_blocks, bool caching = true) {
  return *BlockManager::Create({.num_blocks = num_blocks,
                                .block_size = kBlockSize,
                                .enable_prefix_caching = caching});
}

// Allocates and registers every full block of `content`.
std::vector<BlockId> Fill(BlockManager& manager, const Content& content) {
  PrefixMatch match = manager.Match(content.query());
  PrefixCursor cursor = manager.Acquire(content.tenant, &match);
  std::vector<BlockId> blocks = match.blocks;
  EXPECT_TRUE(manager.Allocate(std::ssize(content.keys) - std::ssize(blocks), &blocks));
  for (size_t i = match.blocks.size(); i < content.keys.size(); ++i) {
    manager.Register(content.query(), blocks[i], &cursor);
  }
  return blocks;
}

TEST(BlockManager, RefusesOptionsWithoutBlocksOrBeyondTheIdRange) {
  EXPECT_FALSE(BlockManager::Create({.num_blocks = 0}).ok());
  EXPECT_FALSE(BlockManager::Create({.num_blocks = 1, .block_size = 0}).ok());
  EXPECT_FALSE(BlockManager::Create({.num_blocks = int64_t{1} << 40}).ok());
}

TEST(BlockManager, AllocatesEachBlockOnceAndAllOrNothing) {
  auto manager = Make(5);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(manager->Allocate(3, &blocks));
  EXPECT_FALSE(manager->Allocate(3, &blocks));
  EXPECT_EQ(blocks.size(), 3u);
  ASSERT_TRUE(manager->Allocate(2, &blocks));
  EXPECT_EQ(std::set<BlockId>(blocks.begin(), blocks.end()).size(), 5u);
  EXPECT_EQ(manager->num_free(), 0);
  manager->Release(blocks);
  EXPECT_EQ(manager->num_free(), 5);
  EXPECT_TRUE(manager->CheckInvariants().ok());
}

TEST(BlockManager, ReleasedContentIsFoundAgainAndSharedWithReferences) {
  auto manager = Make(8);
  const Content content("t", {1, 2, 3, 4, 5, 6, 7, 8});
  const std::vector<BlockId> blocks = Fill(*manager, content);
  manager->Release(blocks);
  EXPECT_EQ(manager->num_cached(), 2);
  PrefixMatch match = manager->Match(content.query());
  EXPECT_EQ(match.blocks, blocks);
  EXPECT_EQ(match.num_spare, 6) << "both are free, and taken";
  manager->Acquire("t", &match);
  PrefixMatch second = manager->Match(content.query());
  EXPECT_EQ(second.num_spare, 6) << "no more of the free ones";
  manager->Acquire("t", &second);
  EXPECT_EQ(manager->reference_count(blocks[0]), 2);
  EXPECT_EQ(manager->num_used(), 2);
}

TEST(BlockManager, UnregisteredContentIsNeverFound) {
  auto manager = Make(8);
  const Content content("t", {1, 2, 3, 4});
  std::vector<BlockId> blocks;
  ASSERT_TRUE(manager->Allocate(1, &blocks));
  EXPECT_TRUE(manager->Match(content.query()).blocks.empty());
  manager->Release(blocks);
  EXPECT_TRUE(manager->Match(content.query()).blocks.empty());
}

TEST(BlockManager, TenantsDoNotShare) {
  auto manager = Make(8);
  Fill(*manager, Content("a", {1, 2, 3, 4}));
  EXPECT_TRUE(manager->Match(Content("b", {1, 2, 3, 4}).query()).blocks.empty());
}

TEST(BlockManager, EvictsTheEndOfTheLeastRecentlyUsedChainFirst) {
  auto manager = Make(4);
  const Content old_content("t", {1, 2, 3, 4, 5, 6, 7, 8});
  const Content new_content("t", {9, 9, 9, 9, 8, 8, 8, 8});
  manager->Release(Fill(*manager, old_content));
  manager->Release(Fill(*manager, new_content));
  std::vector<BlockId> blocks;
  ASSERT_TRUE(manager->Allocate(1, &blocks));
  EXPECT_EQ(manager->Match(old_content.query()).blocks.size(), 1u);
  EXPECT_EQ(manager->Match(new_content.query()).blocks.size(), 2u);
  ASSERT_TRUE(manager->Allocate(2, &blocks));
  EXPECT_EQ(manager->Match(old_content.query()).blocks.size(), 0u);
  EXPECT_EQ(manager->Match(new_content.query()).blocks.size(), 1u);
  EXPECT_EQ(manager->num_evictions(), 3u);
}

TEST(BlockManager, ASecondCopyOfContentLeavesTheFirstInTheIndex) {
  auto manager = Make(8);
  const Content content("t", {1, 2, 3, 4, 5, 6, 7, 8});
  std::vector<BlockId> twin;
  ASSERT_TRUE(manager->Allocate(2, &twin));
  const std::vector<BlockId> first = Fill(*manager, content);
  PrefixCursor cursor;
  manager->Register(content.query(), twin[0], &cursor);
  manager->Register(content.query(), twin[1], &cursor);
  EXPECT_EQ(manager->Match(content.query()).blocks, first);
  manager->Release(twin);
  EXPECT_EQ(manager->num_cached(), 0);
  EXPECT_TRUE(manager->CheckInvariants().ok());
}

TEST(BlockManager, ACursorWhoseChainWasEvictedRegistersNothingMore) {
  auto manager = Make(4);
  const Content content("t", {1, 2, 3, 4, 5, 6, 7, 8});
  std::vector<BlockId> twin;
  ASSERT_TRUE(manager->Allocate(2, &twin));
  const Content start("t", {1, 2, 3, 4});
  const std::vector<BlockId> first = Fill(*manager, start);
  PrefixCursor cursor;
  manager->Register(content.query(), twin[0], &cursor);
  manager->Release(first);
  std::vector<BlockId> others;
  ASSERT_TRUE(manager->Allocate(2, &others));  // evicts `first`
  manager->Register(content.query(), twin[1], &cursor);
  EXPECT_TRUE(cursor.broken);
  EXPECT_TRUE(manager->Match(content.query()).blocks.empty());
}

TEST(BlockManager, WithoutCachingNothingIsKept) {
  auto manager = Make(4, /*caching=*/false);
  const Content content("t", {1, 2, 3, 4});
  manager->Release(Fill(*manager, content));
  EXPECT_EQ(manager->num_cached(), 0);
  EXPECT_TRUE(manager->Match(content.query()).blocks.empty());
}

TEST(BlockManager, ResetForgetsReferencesAndContent) {
  auto manager = Make(4);
  const Content content("t", {1, 2, 3, 4});
  Fill(*manager, content);
  manager->Reset();
  EXPECT_EQ(manager->num_free(), 4);
  EXPECT_TRUE(manager->Match(content.query()).blocks.empty());
  EXPECT_TRUE(manager->CheckInvariants().ok());
}

// Tails of 6 tokens in blocks of 4: a prefix needs the tail blocks of its last two
// blocks.
std::unique_ptr<BlockManager> MakeWithTails(int64_t num_tail_blocks) {
  return *BlockManager::Create({.num_blocks = 16,
                                .block_size = kBlockSize,
                                .enable_prefix_caching = true,
                                .num_tail_blocks = num_tail_blocks,
                                .tail_tokens = 6});
}

// Registers `content` with a tail block for every block; returns the tail blocks, still
// held.
std::vector<BlockId> FillWithTails(BlockManager& manager, const Content& content) {
  std::vector<BlockId> blocks;
  std::vector<BlockId> tails;
  EXPECT_TRUE(manager.Allocate(std::ssize(content.keys), &blocks));
  EXPECT_TRUE(manager.AllocateTails(std::ssize(content.keys), &tails));
  PrefixCursor cursor;
  for (size_t i = 0; i < blocks.size(); ++i) {
    manager.Register(content.query(), blocks[i], &cursor);
    manager.KeepTail(cursor, tails[i]);
  }
  manager.Release(blocks);
  return tails;
}

Content FourBlocks() {
  return Content("t", {1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4});
}

TEST(BlockManagerTails, RefusesTooFewTailBlocksForOneSequence) {
  BlockManagerOptions options{.num_blocks = 16,
                              .block_size = kBlockSize,
                              .enable_prefix_caching = true,
                              .num_tail_blocks = 3,
                              .tail_tokens = 6};
  EXPECT_TRUE(BlockManager::Create(options).ok());
  options.tail_tokens = 9;
  EXPECT_FALSE(BlockManager::Create(options).ok());
  options.tail_tokens = 0;
  EXPECT_FALSE(BlockManager::Create(options).ok());
  options = {.num_blocks = 16, .block_size = kBlockSize, .tail_tokens = 6};
  EXPECT_FALSE(BlockManager::Create(options).ok());
}

TEST(BlockManagerTails, AMatchBringsTheTailBlocksOfItsEnd) {
  auto manager = MakeWithTails(6);
  const Content content = FourBlocks();
  const std::vector<BlockId> tails = FillWithTails(*manager, content);
  PrefixMatch match = manager->Match(content.query());
  EXPECT_EQ(match.blocks.size(), 4u);
  EXPECT_EQ(match.tail_blocks, (std::vector<BlockId>{tails[2], tails[3]}));
  EXPECT_EQ(match.num_spare_tails, 2);
  manager->ReleaseTails(tails);
  EXPECT_EQ(manager->Match(content.query()).num_spare_tails, 4);
  PrefixQuery query = content.query();
  query.max_blocks = 1;
  EXPECT_EQ(manager->Match(query).tail_blocks, (std::vector<BlockId>{tails[0]}));
}

TEST(BlockManagerTails, AMatchIsShortenedToTheLongestPrefixWithItsTailBlocks) {
  auto manager = MakeWithTails(6);
  const Content content = FourBlocks();
  const std::vector<BlockId> tails = FillWithTails(*manager, content);
  // The third goes first, then the first.
  manager->ReleaseTails(std::vector<BlockId>{tails[2]});
  manager->ReleaseTails(std::vector<BlockId>{tails[0]});
  manager->ReleaseTails(std::vector<BlockId>{tails[1], tails[3]});
  std::vector<BlockId> others;
  ASSERT_TRUE(manager->AllocateTails(3, &others));  // two were free
  PrefixMatch match = manager->Match(content.query());
  EXPECT_EQ(match.blocks.size(), 2u);
  EXPECT_EQ(match.tail_blocks, (std::vector<BlockId>{tails[0], tails[1]}));
  EXPECT_EQ(match.num_shortened, 2);
  ASSERT_TRUE(manager->AllocateTails(1, &others));
  match = manager->Match(content.query());
  EXPECT_TRUE(match.blocks.empty()) << "no two neighbours are left";
  EXPECT_TRUE(match.tail_blocks.empty());
  EXPECT_EQ(match.num_spare, 16);
}

TEST(BlockManagerTails, TailBlocksInUseAreNotEvicted) {
  auto manager = MakeWithTails(4);
  const Content content = FourBlocks();
  manager->ReleaseTails(FillWithTails(*manager, content));
  PrefixMatch match = manager->Match(content.query());
  manager->Acquire(content.tenant, &match);
  std::vector<BlockId> others;
  EXPECT_FALSE(manager->AllocateTails(3, &others));
  ASSERT_TRUE(manager->AllocateTails(2, &others));
  EXPECT_EQ(manager->Match(content.query()).blocks.size(), 4u);
  EXPECT_TRUE(manager->CheckInvariants().ok());
}

TEST(BlockManagerTails, AnEvictedBlockTakesItsTailBlockAlong) {
  auto manager = MakeWithTails(6);
  const Content content = FourBlocks();
  manager->ReleaseTails(FillWithTails(*manager, content));
  EXPECT_EQ(manager->tail_pool().num_cached(), 4);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(manager->Allocate(16, &blocks));
  EXPECT_EQ(manager->tail_pool().num_cached(), 0);
  EXPECT_EQ(manager->tail_pool().num_free(), 6);
  EXPECT_TRUE(manager->CheckInvariants().ok());
}

TEST(BlockManagerTails, ATwinBringsBackATailBlockThatWasEvicted) {
  auto manager = MakeWithTails(3);
  const Content content("t", {1, 2, 3, 4});
  manager->ReleaseTails(FillWithTails(*manager, content));
  std::vector<BlockId> others;
  ASSERT_TRUE(manager->AllocateTails(3, &others));
  EXPECT_TRUE(manager->Match(content.query()).blocks.empty());
  manager->ReleaseTails(others);
  const std::vector<BlockId> twin = FillWithTails(*manager, content);
  const PrefixMatch match = manager->Match(content.query());
  EXPECT_EQ(match.blocks.size(), 1u);
  EXPECT_EQ(match.tail_blocks, twin);
  EXPECT_TRUE(manager->CheckInvariants().ok());
}

TEST(BlockManagerTails, ATailBlockOfContentThatWasEvictedIsNotKept) {
  auto manager = MakeWithTails(3);
  const Content content("t", {1, 2, 3, 4});
  std::vector<BlockId> blocks;
  std::vector<BlockId> tails;
  ASSERT_TRUE(manager->Allocate(1, &blocks));
  ASSERT_TRUE(manager->AllocateTails(1, &tails));
  PrefixCursor cursor;
  manager->Register(content.query(), blocks[0], &cursor);
  manager->Release(blocks);
  std::vector<BlockId> others;
  ASSERT_TRUE(manager->Allocate(16, &others));
  manager->KeepTail(cursor, tails[0]);
  manager->ReleaseTails(tails);
  EXPECT_EQ(manager->tail_pool().num_cached(), 0);
  EXPECT_TRUE(manager->CheckInvariants().ok());
}

// Hashes cut to a few bits collide all the time; a match must still be the very content.
// `truth` is what was last written to each block.
TEST(BlockManager, CollidingKeysNeverReturnOtherContent) {
  for (const int key_bits : {0, 1, 3}) {
    const uint32_t seed = 17 + static_cast<uint32_t>(key_bits);
    SCOPED_TRACE(::testing::Message() << "key bits " << key_bits << " seed " << seed);
    std::mt19937 random(seed);
    auto manager = Make(12);
    std::map<BlockId, std::pair<std::string, std::vector<int32_t>>> truth;
    std::vector<std::vector<BlockId>> held;
    int64_t matched = 0;
    for (int round = 0; round < 4000; ++round) {
      std::vector<int32_t> tokens(kBlockSize * (1 + random() % 4));
      for (size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = i % kBlockSize == 0 ? static_cast<int32_t>(random() % 2) : 0;
      }
      const Content content(random() % 2 == 0 ? "a" : "b", tokens, key_bits);
      while (manager->num_free() < 4) {
        const size_t pick = random() % held.size();
        manager->Release(held[pick]);
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(pick));
      }
      const PrefixMatch match = manager->Match(content.query());
      for (size_t i = 0; i < match.blocks.size(); ++i) {
        const std::vector<int32_t> prefix(
            tokens.begin(),
            tokens.begin() + static_cast<std::ptrdiff_t>((i + 1) * kBlockSize));
        ASSERT_EQ(truth[match.blocks[i]], std::make_pair(content.tenant, prefix));
      }
      matched += std::ssize(match.blocks);
      held.push_back(Fill(*manager, content));
      for (size_t i = match.blocks.size(); i < held.back().size(); ++i) {
        truth[held.back()[i]] = {
            content.tenant,
            {tokens.begin(),
             tokens.begin() + static_cast<std::ptrdiff_t>((i + 1) * kBlockSize)}};
      }
      ASSERT_TRUE(manager->CheckInvariants().ok()) << manager->CheckInvariants();
    }
    EXPECT_GT(matched, 100);
  }
}

}  // namespace
}  // namespace tessera::coordinator
