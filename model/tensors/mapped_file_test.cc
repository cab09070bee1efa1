#include "model/tensors/mapped_file.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

std::string TemporaryFile(std::string_view name, std::string_view content) {
  const std::string path = testing::TempDir() + std::string(name);
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

TEST(MappedFile, ShowsTheBytesOfTheFile) {
  const std::string path = TemporaryFile("mapped_file_bytes", "abc");
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto bytes = (*file)->bytes();
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
            "abc");
}

TEST(MappedFile, EmptyFileIsAnEmptySpan) {
  const auto file = MappedFile::Open(TemporaryFile("mapped_file_empty", ""));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->bytes().empty());
}

TEST(MappedFile, MissingFilesAndFoldersAreTypedErrors) {
  EXPECT_EQ(MappedFile::Open(testing::TempDir() + "mapped_file_absent").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(MappedFile::Open(testing::TempDir()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::model
