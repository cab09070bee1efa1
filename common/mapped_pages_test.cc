#include "common/mapped_pages.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace tessera {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kPages = 4;

class MappedPagesTest : public ::testing::Test {
 protected:
  MappedPagesTest() : path_(::testing::TempDir() + "/mapped_pages_test.bin") {
    std::ofstream(path_, std::ios::binary) << std::string(kPages * kPageBytes, 'x');
    file_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    at_ = mmap(nullptr, kPages * kPageBytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file_,
               0);
  }
  ~MappedPagesTest() override {
    munmap(at_, kPages * kPageBytes);
    close(file_);
    unlink(path_.c_str());
  }

  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(at_), kPages * kPageBytes};
  }
  // What this process has mapped, by /proc/self/smaps.
  size_t ResidentBytes() const {
    std::ifstream maps("/proc/self/smaps");
    bool ours = false;
    for (std::string line; std::getline(maps, line);) {
      if (line.find('-') != std::string::npos && line.find(" r") != std::string::npos) {
        ours = line.find("mapped_pages_test.bin") != std::string::npos;
      } else if (ours && line.starts_with("Rss:")) {
        return std::stoul(line.substr(4)) * 1024;
      }
    }
    return 0;
  }

  std::string path_;
  int file_ = -1;
  void* at_ = nullptr;
};

TEST_F(MappedPagesTest, WholePagesGoAndComeBackAsTheyWere) {
  ASSERT_EQ(ResidentBytes(), kPages * kPageBytes);
  DropPages(bytes().subspan(100, 2 * kPageBytes + 200));  // It holds one whole page.
  EXPECT_EQ(ResidentBytes(), (kPages - 1) * kPageBytes);
  EXPECT_TRUE(
      std::ranges::all_of(bytes(), [](std::byte b) { return b == std::byte{'x'}; }));
}

TEST_F(MappedPagesTest, AStretchWithoutAWholePageIsLeft) {
  DropPages(bytes().subspan(1, kPageBytes));
  DropPages({});
  EXPECT_EQ(ResidentBytes(), kPages * kPageBytes);
}

}  // namespace
}  // namespace tessera
