#include "model/tensors/safetensors_writer.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "model/tensors/checkpoint.h"
#include "model/tensors/safetensors_header.h"

namespace tessera::model {
namespace {

using testing::HasSubstr;

template <typename T>
std::span<const T> Span(const std::vector<T>& values) {
  return values;
}

TEST(SafetensorsWriter, CheckpointReadsBackWhatWasWritten) {
  SafetensorsWriter writer;
  const std::vector<float> logits = {1.5F, -2.0F, 0.25F, 8.0F, 9.0F, 10.0F};
  const std::vector<double> wide = {0.1};
  const std::vector<int32_t> ids = {-7, 2147483647};
  const std::vector<int64_t> rows = {int64_t{1} << 40};
  const std::vector<std::byte> codes = {std::byte{1}, std::byte{2}, std::byte{3}};
  ASSERT_TRUE(writer.AddValues("logits", {2, 3}, Span(logits)).ok());
  ASSERT_TRUE(writer.AddValues("wide", {}, Span(wide)).ok());
  ASSERT_TRUE(writer.AddValues("ids", {2}, Span(ids)).ok());
  ASSERT_TRUE(writer.AddValues("rows", {1, 1}, Span(rows)).ok());
  ASSERT_TRUE(writer.Add("codes", DType::kF8E4M3, {3}, codes).ok());
  writer.SetMetadata("mode", "float32");
  const std::string path =
      testing::TempDir() + "safetensors_writer_round_trip.safetensors";
  ASSERT_TRUE(writer.Write(path).ok());
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));

  const auto checkpoint = Checkpoint::OpenFile(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->names(),
              testing::ElementsAre("codes", "ids", "logits", "rows", "wide"));
  const auto read =
      (*checkpoint)->Require("logits", DType::kF32, std::vector<int64_t>{2, 3});
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->data.size(), 24u);
  EXPECT_EQ(std::memcmp(read->data.data(), logits.data(), 24), 0);
  for (const std::string& name : (*checkpoint)->names()) {
    const TensorRef tensor = (*checkpoint)->Find(name).value();
    EXPECT_EQ(
        reinterpret_cast<uintptr_t>(tensor.data.data()) % (DTypeBits(tensor.dtype) / 8),
        0u)
        << name << " is not aligned";
  }
}

TEST(SafetensorsWriter, FileDoesNotDependOnTheOrderOfAdding) {
  const std::vector<float> one = {1.0F};
  const std::vector<int64_t> two = {2};
  SafetensorsWriter forward;
  ASSERT_TRUE(forward.AddValues("a", {1}, Span(one)).ok());
  ASSERT_TRUE(forward.AddValues("b", {1}, Span(two)).ok());
  SafetensorsWriter backward;
  ASSERT_TRUE(backward.AddValues("b", {1}, Span(two)).ok());
  ASSERT_TRUE(backward.AddValues("a", {1}, Span(one)).ok());
  EXPECT_EQ(forward.Serialize(), backward.Serialize());
}

TEST(SafetensorsWriter, FileWithoutTensorsIsValid) {
  const std::string file = SafetensorsWriter().Serialize();
  EXPECT_TRUE(ParseSafetensors(std::as_bytes(std::span(file))).ok());
}

TEST(SafetensorsWriter, RefusesWhatTheFormatCannotHold) {
  SafetensorsWriter writer;
  const std::vector<std::byte> bytes(4);
  ASSERT_TRUE(writer.Add("a", DType::kF32, {1}, bytes).ok());
  struct Case {
    const char* what;
    absl::Status status;
  };
  const std::vector<Case> cases = {
      {"taken", writer.Add("a", DType::kF32, {1}, bytes)},
      {"metadata", writer.Add("__metadata__", DType::kF32, {1}, bytes)},
      {"empty name", writer.Add("", DType::kF32, {1}, bytes)},
      {"fp4", writer.Add("b", DType::kFp4, {8}, bytes)},
      {"bytes", writer.Add("b", DType::kF32, {2}, bytes)},
      {"negative", writer.Add("b", DType::kF32, {-1}, bytes)},
      {"rank", writer.Add("b", DType::kF32, std::vector<int64_t>(9, 1), bytes)},
  };
  for (const Case& bad : cases) {
    EXPECT_EQ(bad.status.code(), absl::StatusCode::kInvalidArgument) << bad.what;
  }
  EXPECT_EQ(writer.num_tensors(), 1u);
}

TEST(SafetensorsWriter, UnwritablePathIsAnErrorWithTheReason) {
  const absl::Status status =
      SafetensorsWriter().Write(testing::TempDir() + "no_such_folder/x.safetensors");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("No such file"));
}

}  // namespace
}  // namespace tessera::model
