#include "engram_store/table/row_memory.h"

#include <fstream>

#include "gtest/gtest.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace tessera::engram_store {
namespace {

TEST(RowMemory, ASealedSegmentIsReadThroughItsDescriptor) {
  auto owner = RowMemory::AllocateShared(10000).value();
  owner->mutable_bytes()[9999] = std::byte{7};
  ASSERT_TRUE(owner->Seal().ok());
  EXPECT_EQ(owner->bytes()[9999], std::byte{7});

  const auto view = RowMemory::MapShared(getpid(), owner->file()).value();
  EXPECT_EQ(view->bytes().size(), 10000u);
  EXPECT_EQ(view->bytes()[9999], std::byte{7});
}

TEST(RowMemory, NobodyCanChangeOrShrinkASealedSegment) {
  auto owner = RowMemory::AllocateShared(8192).value();
  ASSERT_TRUE(owner->Seal().ok());
  EXPECT_NE(ftruncate(owner->file(), 0), 0);
  EXPECT_EQ(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, owner->file(), 0),
            MAP_FAILED);
  const char byte = 1;
  EXPECT_LT(pwrite(owner->file(), &byte, 1, 0), 0);
}

TEST(RowMemory, TheMappingOutlivesItsOwner) {
  auto owner = RowMemory::AllocateShared(4096).value();
  owner->mutable_bytes()[1] = std::byte{9};
  ASSERT_TRUE(owner->Seal().ok());
  const auto view = RowMemory::MapShared(getpid(), owner->file()).value();
  owner.reset();
  EXPECT_EQ(view->bytes()[1], std::byte{9});
}

TEST(RowMemory, AnUnsealedOrMissingSegmentIsRefused) {
  const auto owner = RowMemory::AllocateShared(4096).value();
  EXPECT_EQ(RowMemory::MapShared(getpid(), owner->file()).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(RowMemory::MapShared(getpid(), 1 << 20).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(RowMemory, SizesThatNoMemoryHasAreRefused) {
  EXPECT_FALSE(RowMemory::AllocatePrivate(0).ok());
  EXPECT_FALSE(RowMemory::AllocatePrivate(~uint64_t{0}).ok());
  EXPECT_EQ(RowMemory::AllocatePrivate(uint64_t{1} << 60).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(RowMemory, FilesAreMappedWholeAndOnlyFiles) {
  const std::string path = testing::TempDir() + "/row_memory_test.bin";
  std::ofstream(path) << "rows";
  const auto memory = RowMemory::MapFile(path).value();
  EXPECT_EQ(memory->bytes().size(), 4u);
  EXPECT_EQ(memory->bytes()[0], std::byte{'r'});
  unlink(path.c_str());
  EXPECT_EQ(RowMemory::MapFile(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(RowMemory::MapFile(testing::TempDir()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(RowMemoryDeathTest, WritingAfterTheSealIsABug) {
  auto memory = RowMemory::AllocatePrivate(4096).value();
  ASSERT_TRUE(memory->Seal().ok());
  EXPECT_DEATH(memory->mutable_bytes(), "sealed");
}

}  // namespace
}  // namespace tessera::engram_store
