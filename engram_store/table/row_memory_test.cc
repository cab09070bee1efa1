#include "engram_store/table/row_memory.h"

#include <cstdint>
#include <fstream>
#include <string>

#include "fmt/format.h"
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

// Kilobytes that the kernel maps at `data` by huge pages, or -1 without such a mapping.
int64_t HugeKilobytes(const void* data) {
  std::ifstream maps("/proc/self/smaps");
  const std::string start = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(data));
  bool found = false;
  for (std::string line; std::getline(maps, line);) {
    found = found || line.starts_with(start);
    if (found && line.starts_with("ShmemPmdMapped:")) {
      return std::stoll(line.substr(line.find(':') + 1));
    }
  }
  return -1;
}

// Whether this machine gives shared memory huge pages on request just now: tried without
// RowMemory.
bool HugePagesAreToBeHad() {
  constexpr int kCollapse = 25;  // MADV_COLLAPSE
  constexpr size_t kHuge = size_t{2} << 20;
  const int file = memfd_create("probe", MFD_CLOEXEC);
  void* const room =
      mmap(nullptr, 2 * kHuge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (file < 0 || room == MAP_FAILED || ftruncate(file, kHuge) != 0) {
    return false;
  }
  const uintptr_t start = (reinterpret_cast<uintptr_t>(room) + kHuge - 1) / kHuge * kHuge;
  void* const data = mmap(reinterpret_cast<void*>(start), kHuge, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_FIXED, file, 0);
  static_cast<char*>(data)[0] = 1;
  const bool had = madvise(data, kHuge, kCollapse) == 0 && HugeKilobytes(data) > 0;
  munmap(room, 2 * kHuge);
  close(file);
  return had;
}

TEST(RowMemory, ASegmentAndItsMappingsLieOnHugePages) {
  constexpr size_t kBytes = (size_t{4} << 20) + 4096;
  if (!HugePagesAreToBeHad()) {
    GTEST_SKIP() << "this kernel gives shared memory no huge pages";
  }
  auto owner = RowMemory::AllocateShared(kBytes).value();
  EXPECT_EQ(owner->bytes()[kBytes - 1], std::byte{0});
  ASSERT_TRUE(owner->Seal().ok());
  const auto view = RowMemory::MapShared(getpid(), owner->file()).value();
  EXPECT_EQ(HugeKilobytes(owner->bytes().data()), 4096);
  EXPECT_EQ(HugeKilobytes(view->bytes().data()), 4096);
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
