#include "coordinator/scheduler/pending_copies.h"

#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(PendingCopies, AnOffloadIsNamedOnceAndWhenItsBlockIsWritten) {
  PendingCopies copies(4, 4);
  copies.Offload(1, 3);
  copies.NameOffload(0);
  EXPECT_THAT(copies.Take().offloads, IsEmpty());
  copies.NameOffload(1);
  copies.NameOffload(1);
  EXPECT_THAT(copies.Take().offloads, ElementsAre(Pair(1, 3)));
  EXPECT_TRUE(copies.CheckInvariants().ok());
}

TEST(PendingCopies, AnOffloadWhoseHostBlockIsTakenAwayIsGivenUp) {
  PendingCopies copies(4, 4);
  copies.Offload(1, 3);
  copies.Offload(2, 3);
  copies.NameOffload(1);
  copies.NameOffload(2);
  EXPECT_THAT(copies.Take().offloads, ElementsAre(Pair(2, 3)));
  EXPECT_TRUE(copies.CheckInvariants().ok());
}

TEST(PendingCopies, WhatComesFromElsewhereIsNotOverwrittenByAnOldOffload) {
  PendingCopies copies(4, 4);
  copies.Offload(1, 3);
  copies.GiveUpOffloadTo(2);
  copies.GiveUpOffloadTo(3);
  copies.NameOffload(1);
  EXPECT_THAT(copies.Take().offloads, IsEmpty());
  EXPECT_TRUE(copies.CheckInvariants().ok());
}

TEST(PendingCopies, ARestoreNamesTheOffloadOfItsBlockAndOfWhatItReads) {
  PendingCopies copies(4, 4);
  copies.Offload(0, 1);
  copies.Offload(2, 3);
  copies.Restore(2, 1);
  EXPECT_TRUE(copies.restoring(2));
  EXPECT_EQ(copies.NameRestore(2), 1u);
  EXPECT_FALSE(copies.restoring(2));
  const NamedCopies named = copies.Take();
  EXPECT_THAT(named.offloads, ElementsAre(Pair(2, 3), Pair(0, 1)));
  EXPECT_THAT(named.restores, ElementsAre(Pair(2, 1)));
}

TEST(PendingCopies, ARestoreThatIsGivenUpIsNeverNamed) {
  PendingCopies copies(4, 4);
  copies.Restore(2, 1);
  EXPECT_EQ(copies.num_restoring(), 1);
  EXPECT_EQ(copies.GiveUpRestore(2), 1u);
  EXPECT_EQ(copies.num_restoring(), 0);
  EXPECT_THAT(copies.Take().restores, IsEmpty());
  EXPECT_TRUE(copies.CheckInvariants().ok());
}

}  // namespace
}  // namespace tessera::coordinator
