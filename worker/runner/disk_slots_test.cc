#include "worker/runner/disk_slots.h"

#include <cerrno>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engram_store/table/crc32c.h"
#include "tests/testing/status_matchers.h"

namespace tessera::worker {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;
using ::testing::HasSubstr;

constexpr size_t kBytes[2] = {5000, 300};
constexpr size_t kHeaderBytes = 48;

std::vector<std::byte> Content(uint64_t content, bool tail) {
  std::vector<std::byte> bytes(kBytes[tail ? 1 : 0]);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(content * 31 + i);
  }
  return bytes;
}

ssize_t FullDisk(int, const void*, size_t, off_t) {
  errno = ENOSPC;
  return -1;
}

// Writes half of what it is given, then nothing.
ssize_t HalfWritten(int fd, const void* data, size_t size, off_t offset) {
  return size > 400 ? ::pwrite(fd, data, size / 2, offset) : 0;
}

class DiskSlotsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "disk_slots_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    options_.path = folder_ + "/kv";
    options_.kinds[0] = {.num_slots = 4, .block_bytes = kBytes[0]};
    options_.kinds[1] = {.num_slots = 3, .block_bytes = kBytes[1]};
    options_.num_buffers = 2;
  }
  void TearDown() override {
    disk_.reset();
    EXPECT_EQ(::rmdir(folder_.c_str()), 0) << "the file was left behind";
  }

  void Start() {
    auto disk = DiskSlots::Create(options_);
    ASSERT_THAT(disk, IsOk());
    disk_ = *std::move(disk);
    disk_->Begin(1);
  }

  DiskSlots::Done Await() {
    DiskSlots::Done done;
    while (!disk_->Take(&done)) {
      std::this_thread::yield();
    }
    return done;
  }

  DiskSlots::Done Spill(uint32_t slot, uint64_t content, bool tail = false) {
    const std::vector<std::byte> bytes = Content(content, tail);
    EXPECT_THAT(disk_->Spill({.host = 9, .slot = slot, .content = content, .tail = tail},
                             bytes, engram_store::Crc32c(bytes)),
                IsOk());
    return Await();
  }

  DiskSlots::Done Fetch(uint32_t slot, uint64_t content, bool tail = false) {
    EXPECT_THAT(disk_->Fetch({.host = 9, .slot = slot, .content = content, .tail = tail}),
                IsOk());
    return Await();
  }

  void ExpectContent(const DiskSlots::Done& done, uint64_t content, bool tail) {
    ASSERT_TRUE(done.fetch && !done.failed);
    const std::vector<std::byte> expected = Content(content, tail);
    EXPECT_EQ(std::vector<std::byte>(done.bytes.begin(), done.bytes.end()), expected);
    EXPECT_EQ(done.crc, engram_store::Crc32c(expected));
  }

  // Flips a bit of the file.
  void Damage(off_t offset) {
    const int fd = ::open(options_.path.c_str(), O_RDWR);
    char byte = 0;
    ASSERT_EQ(::pread(fd, &byte, 1, offset), 1);
    byte ^= 1;
    ASSERT_EQ(::pwrite(fd, &byte, 1, offset), 1);
    ::close(fd);
  }

  std::string folder_;
  DiskSlots::Options options_;
  std::unique_ptr<DiskSlots> disk_;
};

TEST_F(DiskSlotsTest, BlocksAndTailBlocksComeBackFromTheirSlots) {
  Start();
  for (uint32_t slot = 0; slot < 4; ++slot) {
    EXPECT_FALSE(Spill(slot, 100 + slot).failed);
  }
  for (uint32_t slot = 0; slot < 3; ++slot) {
    EXPECT_FALSE(Spill(slot, 200 + slot, /*tail=*/true).failed);
  }
  for (uint32_t slot = 0; slot < 4; ++slot) {
    ExpectContent(Fetch(slot, 100 + slot), 100 + slot, false);
  }
  for (uint32_t slot = 0; slot < 3; ++slot) {
    ExpectContent(Fetch(slot, 200 + slot, true), 200 + slot, true);
  }
  EXPECT_THAT(disk_->Fetch({.slot = 4}), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(DiskSlotsTest, OperationsAreDoneInTheirOrderAndBounded) {
  Start();
  const std::vector<std::byte> bytes = Content(1, false);
  const uint32_t crc = engram_store::Crc32c(bytes);
  ASSERT_THAT(disk_->Spill({.slot = 2, .content = 1}, bytes, crc), IsOk());
  ASSERT_THAT(disk_->Fetch({.slot = 2, .content = 1}), IsOk());
  EXPECT_THAT(disk_->Fetch({.slot = 2, .content = 1}),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_FALSE(Await().fetch);
  ExpectContent(Await(), 1, false);
}

TEST_F(DiskSlotsTest, ASlotOfAnotherContentOrEpochOrNeverWrittenFails) {
  Start();
  EXPECT_TRUE(Fetch(0, 5).failed);
  EXPECT_FALSE(Spill(0, 5).failed);
  EXPECT_TRUE(Fetch(0, 6).failed);
  ExpectContent(Fetch(0, 5), 5, false);
  disk_->Begin(2);
  EXPECT_TRUE(Fetch(0, 5).failed);
}

TEST_F(DiskSlotsTest, EveryFlippedByteOfARecordFails) {
  Start();
  const off_t begin = DiskSlots::SlotBytes(kBytes[0]);  // of slot 1
  EXPECT_FALSE(Spill(1, 7).failed);
  for (const off_t at : {0, 8, 16, 24, 28, 32, 40, 44, 47, 48, 2000, 5047}) {
    Damage(begin + at);
    EXPECT_TRUE(Fetch(1, 7).failed) << "byte " << at;
    Damage(begin + at);
    ExpectContent(Fetch(1, 7), 7, false);
  }
}

TEST_F(DiskSlotsTest, ATruncatedFileFails) {
  Start();
  EXPECT_FALSE(Spill(0, 7).failed);
  ASSERT_EQ(::truncate(options_.path.c_str(), kHeaderBytes + kBytes[0] - 1), 0);
  EXPECT_TRUE(Fetch(0, 7).failed);
  EXPECT_TRUE(Fetch(1, 8).failed);
}

TEST_F(DiskSlotsTest, AWriteThatFailsOrEndsEarlyFails) {
  options_.write = FullDisk;
  Start();
  EXPECT_TRUE(Spill(0, 7).failed);
  EXPECT_TRUE(Fetch(0, 7).failed);
  disk_.reset();
  options_.write = HalfWritten;
  Start();
  EXPECT_TRUE(Spill(0, 7).failed);
  EXPECT_TRUE(Fetch(0, 7).failed);
}

TEST_F(DiskSlotsTest, TheFileIsOfItsOwnerAloneAllocatedAndInUseOnce) {
  Start();
  struct stat file = {};
  ASSERT_EQ(::stat(options_.path.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u);
  const int64_t size =
      4 * DiskSlots::SlotBytes(kBytes[0]) + 3 * DiskSlots::SlotBytes(kBytes[1]);
  EXPECT_EQ(file.st_size, size);
  EXPECT_GE(file.st_blocks * 512, size);
  EXPECT_THAT(DiskSlots::Create(options_),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(::access(options_.path.c_str(), F_OK), 0);
}

TEST_F(DiskSlotsTest, RefusesWhatNoDiskHolds) {
  DiskSlots::Options options = options_;
  options.num_buffers = 0;
  EXPECT_THAT(DiskSlots::Create(options), StatusIs(absl::StatusCode::kInvalidArgument));
  options = options_;
  options.kinds[0].num_slots = int64_t{1} << 60;
  EXPECT_THAT(DiskSlots::Create(options), StatusIs(absl::StatusCode::kInvalidArgument));
  options.kinds[0].num_slots = int64_t{1} << 48;  // 2 EiB
  // Errors that stay: a group that retries them would never form.
  EXPECT_THAT(DiskSlots::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--kv-disk-gib")));
  options = options_;
  std::ofstream(folder_ + "/plain");
  for (const char* path : {"/none/kv", "/plain/kv", ""}) {
    options.path = folder_ + path;
    EXPECT_THAT(DiskSlots::Create(options),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--kv-disk-dir")))
        << path;
  }
  ::unlink((folder_ + "/plain").c_str());
}

}  // namespace
}  // namespace tessera::worker
