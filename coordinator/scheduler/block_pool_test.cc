#include "coordinator/scheduler/block_pool.h"

#include <cstdint>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

using Blocks = std::vector<BlockId>;

// Allocates `count` blocks; the evicted ones go to `evicted`.
Blocks Take(BlockPool& pool, int64_t count, Blocks* evicted = nullptr) {
  Blocks blocks;
  EXPECT_TRUE(pool.Allocate(count, &blocks, [&](BlockId block) {
    ASSERT_NE(evicted, nullptr) << "block " << block << " evicted";
    evicted->push_back(block);
  }));
  return blocks;
}

TEST(BlockPool, GivesEachBlockOnceAndAllOrNothing) {
  BlockPool pool(3);
  const Blocks two = Take(pool, 2);
  Blocks more;
  EXPECT_FALSE(pool.Allocate(2, &more, [](BlockId) {}));
  EXPECT_TRUE(more.empty());
  const Blocks last = Take(pool, 1);
  EXPECT_EQ((std::set<BlockId>{two[0], two[1], last[0]}).size(), 3u);
  EXPECT_EQ(pool.num_used(), 3);
}

TEST(BlockPool, ABlockIsFreeAfterItsLastReference) {
  BlockPool pool(1);
  const Blocks blocks = Take(pool, 1);
  pool.Reference(blocks[0]);
  pool.Release(blocks);
  EXPECT_EQ(pool.num_free(), 0);
  pool.Release(blocks);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_EQ(pool.release_count(), 3u) << "that of the start included";
}

TEST(BlockPool, EvictsContentInTheOrderOfItsLastUse) {
  BlockPool pool(3);
  const Blocks blocks = Take(pool, 3);
  for (const BlockId block : blocks) {
    pool.SetContent(block);
  }
  pool.Release(Blocks{blocks[1]});
  pool.Release(Blocks{blocks[0], blocks[2]});
  pool.Reference(blocks[1]);
  pool.Release(Blocks{blocks[1]});
  EXPECT_EQ(pool.num_cached(), 3);
  Blocks evicted;
  Take(pool, 3, &evicted);
  EXPECT_EQ(evicted, (Blocks{blocks[2], blocks[0], blocks[1]}));
  EXPECT_EQ(pool.num_evictions(), 3u);
  EXPECT_TRUE(pool.CheckInvariants().ok());
}

TEST(BlockPool, ContentThatIsClearedIsNotEvicted) {
  BlockPool pool(2);
  const Blocks blocks = Take(pool, 2);
  pool.SetContent(blocks[0]);
  pool.SetContent(blocks[1]);
  pool.ClearContent(blocks[1]);
  pool.Release(blocks);
  pool.ClearContent(blocks[0]);
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_TRUE(pool.CheckInvariants().ok());
  Take(pool, 2);
}

TEST(BlockPool, APoolOfNoBlocksGivesNone) {
  BlockPool pool(0);
  Blocks blocks;
  EXPECT_FALSE(pool.Allocate(1, &blocks, [](BlockId) {}));
  EXPECT_EQ(pool.num_free(), 0);
}

}  // namespace
}  // namespace tessera::coordinator
