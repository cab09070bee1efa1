#include "coordinator/scheduler/sequence_blocks.h"

#include <memory>
#include <vector>

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

SchedulerOptions SmallOptions(int64_t num_tail_blocks) {
  SchedulerOptions options;
  options.max_model_len = 32;
  options.block_size = 4;
  options.num_blocks = 8;
  options.num_tail_blocks = num_tail_blocks;
  options.tail_tokens = num_tail_blocks > 0 ? 4 : 0;
  return options;
}

Sequence MakeSequence(size_t length) {
  Sequence sequence;
  sequence.tokens.assign(length, 7);
  sequence.prompt_length = static_cast<int64_t>(length);
  return sequence;
}

TEST(SequenceBlocks, AnAdmissionTakesBlocksForAllTokensAndOneTailBlock) {
  const auto blocks = *SequenceBlocks::Create(SmallOptions(4));
  Sequence sequence = MakeSequence(10);
  blocks->Admit(&sequence, {});
  EXPECT_EQ(sequence.blocks.size(), 3u);
  EXPECT_EQ(sequence.tail.blocks.size(), 1u);
  EXPECT_EQ(blocks->manager().num_used(), 3);
}

TEST(SequenceBlocks, ABlockIsTakenOnlyWhereTheNextPositionHasNone) {
  const auto blocks = *SequenceBlocks::Create(SmallOptions(0));
  Sequence sequence = MakeSequence(4);
  blocks->Admit(&sequence, {});
  sequence.planned = 3;
  EXPECT_TRUE(blocks->GrowByOne(&sequence));
  EXPECT_EQ(sequence.blocks.size(), 1u);
  sequence.planned = 4;
  EXPECT_TRUE(blocks->GrowByOne(&sequence));
  EXPECT_EQ(sequence.blocks.size(), 2u);
}

TEST(SequenceBlocks, BlocksThatAPlanNamesComeFreeWithItsAnswer) {
  const auto blocks = *SequenceBlocks::Create(SmallOptions(0));
  Sequence sequence = MakeSequence(32);
  blocks->Admit(&sequence, {});
  sequence.steps_in_flight = 1;
  sequence.last_step = 5;
  blocks->Release(&sequence);
  EXPECT_EQ(blocks->manager().num_free(), 0);
  EXPECT_EQ(blocks->num_deferred(), 8);
  Sequence next = MakeSequence(4);
  EXPECT_FALSE(blocks->GrowByOne(&next));
  EXPECT_TRUE(blocks->AwaitGrowth(next));
  blocks->ReleaseDeferred(4);
  EXPECT_EQ(blocks->manager().num_free(), 0);
  blocks->ReleaseDeferred(5);
  EXPECT_EQ(blocks->manager().num_free(), 8);
  EXPECT_TRUE(blocks->GrowByOne(&next));
}

TEST(SequenceBlocks, WhatIsAwaitedByOneIsNotThereForAnother) {
  const auto blocks = *SequenceBlocks::Create(SmallOptions(0));
  Sequence holder = MakeSequence(28);
  Sequence ended = MakeSequence(4);
  blocks->Admit(&holder, {});
  blocks->Admit(&ended, {});
  ended.steps_in_flight = 1;
  ended.last_step = 1;
  blocks->Release(&ended);
  const Sequence first = MakeSequence(4);
  EXPECT_TRUE(blocks->AwaitGrowth(first));
  EXPECT_FALSE(blocks->AwaitGrowth(first));
  blocks->BeginStep();
  EXPECT_TRUE(blocks->AwaitGrowth(first));
}

TEST(SequenceBlocks, DraftsTakeNoBlockThatIsKeptBack) {
  const auto blocks = *SequenceBlocks::Create(SmallOptions(0));
  Sequence sequence = MakeSequence(4);
  blocks->Admit(&sequence, {});
  sequence.planned = 3;
  EXPECT_EQ(blocks->GrowForDrafts(&sequence, 6, /*num_kept=*/7), 0);
  EXPECT_EQ(blocks->GrowForDrafts(&sequence, 6, /*num_kept=*/6), 4);
  EXPECT_EQ(sequence.blocks.size(), 2u);
}

TEST(SequenceBlocks, TailBlocksThatNoTokenSeesAnyMoreAreGivenBack) {
  const auto blocks = *SequenceBlocks::Create(SmallOptions(4));
  Sequence sequence = MakeSequence(16);
  blocks->Admit(&sequence, {});
  EXPECT_EQ(blocks->GrowTail(&sequence, 12, /*num_kept=*/0), 12);
  SequenceBlocks::TakeUnnamedTail(&sequence);
  sequence.planned = sequence.computed = 12;
  blocks->TakeComputed(PrefixHash({1, 2}), &sequence);
  EXPECT_EQ(sequence.tail.begin, 2);
  std::vector<Sequence*> running = {&sequence};
  EXPECT_THAT(blocks->CheckInvariants(running), IsOk());
}

TEST(SequenceBlocks, TheRecountFindsABlockThatNobodyHolds) {
  const auto blocks = *SequenceBlocks::Create(SmallOptions(0));
  Sequence sequence = MakeSequence(10);
  blocks->Admit(&sequence, {});
  EXPECT_THAT(blocks->CheckInvariants({}), StatusIs(absl::StatusCode::kInternal));
}

}  // namespace
}  // namespace tessera::coordinator
