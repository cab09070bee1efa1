#include "cli/access/file_stamps.h"

#include <cstdio>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace tessera::cli {
namespace {

void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}

TEST(FileStamps, AReplacedFileIsAChangeOnce) {
  const std::string path = ::testing::TempDir() + "stamped";
  WriteFile(path, "one");
  FileStamps stamps({"", path});
  EXPECT_FALSE(stamps.Changed());
  WriteFile(path + ".new", "two!");
  ASSERT_EQ(std::rename((path + ".new").c_str(), path.c_str()), 0);
  EXPECT_TRUE(stamps.Changed());
  EXPECT_FALSE(stamps.Changed());
}

TEST(FileStamps, AFileThatIsAwayIsNoChangeUntilAnotherIsThere) {
  const std::string path = ::testing::TempDir() + "gone";
  WriteFile(path, "one");
  FileStamps stamps({path});
  ASSERT_EQ(std::remove(path.c_str()), 0);
  EXPECT_FALSE(stamps.Changed());
  WriteFile(path, "longer than before");
  EXPECT_TRUE(stamps.Changed());
}

TEST(FileStamps, NoPathsNeverChange) {
  FileStamps stamps({""});
  EXPECT_TRUE(stamps.empty());
  EXPECT_FALSE(stamps.Changed());
}

}  // namespace
}  // namespace tessera::cli
