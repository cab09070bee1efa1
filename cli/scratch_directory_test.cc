#include "cli/scratch_directory.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::tessera::testing::IsOk;

std::string MakeParent(const std::string& name) {
  const std::string parent = ::testing::TempDir() + "/scratch_" + name;
  std::filesystem::remove_all(parent);
  std::filesystem::create_directories(parent);
  return parent;
}

int64_t NumEntries(const std::string& directory) {
  return std::distance(std::filesystem::directory_iterator(directory), {});
}

TEST(ScratchDirectory, IsThisUsersAloneAndGoesWithItsOwner) {
  const std::string parent = MakeParent("owner");
  {
    const auto scratch = ScratchDirectory::Create(parent);
    ASSERT_THAT(scratch, IsOk());
    struct stat facts = {};
    ASSERT_EQ(::stat((*scratch)->path().c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777U, 0700U);
    std::ofstream((*scratch)->path() + "/segment") << "x";
    (*scratch)->Clear();
    EXPECT_FALSE(std::filesystem::exists((*scratch)->path() + "/segment"));
    EXPECT_TRUE(std::filesystem::exists((*scratch)->path()));
  }
  EXPECT_EQ(NumEntries(parent), 0);
}

TEST(ScratchDirectory, OfALiveProcessStays) {
  const std::string parent = MakeParent("live");
  const auto first = ScratchDirectory::Create(parent);
  const auto second = ScratchDirectory::Create(parent);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  EXPECT_TRUE(std::filesystem::exists((*first)->path()));
  EXPECT_EQ(NumEntries(parent), 2);
}

TEST(ScratchDirectory, OfADeadProcessIsRemovedByTheNext) {
  const std::string parent = MakeParent("dead");
  const pid_t child = ::fork();
  if (child == 0) {
    // Ends as a killed process does, without destructors.
    ::_exit(ScratchDirectory::Create(parent).ok() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  ASSERT_EQ(NumEntries(parent), 1);
  const auto scratch = ScratchDirectory::Create(parent);
  ASSERT_THAT(scratch, IsOk());
  EXPECT_EQ(NumEntries(parent), 1);
}

TEST(ScratchDirectory, APlaceThatCannotBeWrittenIsAnError) {
  EXPECT_EQ(ScratchDirectory::Create("/no/such/place").status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tessera::cli
