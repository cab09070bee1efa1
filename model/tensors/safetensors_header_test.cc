#include "model/tensors/safetensors_header.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

using testing::HasSubstr;

std::string File(std::string_view header, size_t data_bytes) {
  std::string file(8, '\0');
  const uint64_t size = header.size();
  std::memcpy(file.data(), &size, 8);
  return file + std::string(header) + std::string(data_bytes, 'x');
}

absl::StatusOr<SafetensorsLayout> Parse(const std::string& file) {
  return ParseSafetensors(std::as_bytes(std::span(file)));
}

constexpr std::string_view kTwoTensors =
    R"({"__metadata__":{"format":"pt"},)"
    R"("b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]},)"
    R"("a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}   )";

TEST(ParseSafetensors, GivesTheTensorsInTheOrderOfTheirBytes) {
  const std::string file = File(kTwoTensors, 11);
  const auto layout = Parse(file);
  ASSERT_TRUE(layout.ok()) << layout.status();
  ASSERT_EQ(layout->entries.size(), 2u);
  EXPECT_EQ(layout->entries[0].name, "a");
  EXPECT_EQ(layout->entries[0].dtype, DType::kBF16);
  EXPECT_THAT(layout->entries[0].shape, testing::ElementsAre(2, 2));
  EXPECT_EQ(layout->entries[1].begin, 8u);
  EXPECT_EQ(layout->entries[1].end, 11u);
  EXPECT_EQ(layout->data.size(), 11u);
}

TEST(ParseSafetensors, ScalarsAndEmptyTensorsAreTensors) {
  const auto layout =
      Parse(File(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                 R"("e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]}})",
                 4));
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->entries.size(), 2u);
  EXPECT_TRUE(Parse(File("{}", 0)).ok());
}

struct BadFile {
  const char* what;
  std::string file;
  const char* message;
};

std::string OneTensor(std::string_view fields, size_t data_bytes) {
  return File(R"({"t":{)" + std::string(fields) + "}}", data_bytes);
}

std::vector<BadFile> BadPlaces() {
  const std::string a = R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)";
  return {
      {"shorter than the length", std::string(7, '\0'), "7 bytes"},
      {"header over the file", File("{}", 0).substr(0, 9), "a header of 2 bytes"},
      {"header over 2^63", std::string(8, '\xff') + "{}",
       "a header of 18446744073709551615"},
      {"data too short",
       OneTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 7),
       "ends at byte 8 of the data, which has 7 bytes"},
      {"data too long", OneTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 9),
       "the data has 9 bytes, expected 8"},
      {"offsets fall", OneTensor(R"("dtype":"F32","shape":[0],"data_offsets":[8,0])", 8),
       "tensor t: data_offsets [8, 0]"},
      {"bytes differ from the shape",
       OneTensor(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])", 8),
       "expected 12 bytes for F32 [3]"},
      {"gap", File(a + R"("b":{"dtype":"I8","shape":[4],"data_offsets":[5,9]}})", 9),
       "tensor b: starts at byte 5 of the data, expected 4 (gap)"},
      {"overlap", File(a + R"("b":{"dtype":"I8","shape":[4],"data_offsets":[3,7]}})", 7),
       "tensor b: starts at byte 3 of the data, expected 4 (overlap)"},
      {"same bytes twice",
       File(a + R"("b":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}})", 4), "overlap"},
      {"does not start at 0",
       OneTensor(R"("dtype":"I8","shape":[1],"data_offsets":[1,2])", 2), "gap"},
      {"shape product wraps to the right value",
       OneTensor(R"("dtype":"I8","shape":[4294967296,4294967296],"data_offsets":[0,0])",
                 0),
       "more bytes than 2^63"},
      {"bytes wrap",
       OneTensor(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])",
                 0),
       "more bytes than 2^63"},
      {"dimension over 63 bits",
       OneTensor(R"("dtype":"I8","shape":[18446744073709551615],"data_offsets":[0,1])",
                 1),
       "dimension 18446744073709551615"},
  };
}

std::vector<BadFile> BadStructures() {
  const std::string good = R"("dtype":"I8","shape":[1],"data_offsets":[0,1])";
  return {
      {"no json", File("{\"a\"", 0), "not valid json"},
      {"leading space", File(" {}", 0), "does not start with an object"},
      {"an array", File("[]", 0), "does not start with an object"},
      {"two objects", File("{}{}", 0), "not valid json"},
      {"invalid utf-8", File("{\"\xff\":1}", 0), "not valid json"},
      {"deep nesting", File("{\"t\":" + std::string(100000, '['), 0),
       "an array in a place"},
      {"a tensor that is a number", File(R"({"t":1})", 0), "tensor t: a number"},
      {"an empty name", File(R"({"":{)" + good + "}}", 1), "a tensor name has 0 bytes"},
      {"a very long name", File("{\"" + std::string(1025, 'n') + "\":{" + good + "}}", 1),
       "a tensor name has 1025 bytes"},
      {"a name twice", File(R"({"t":{)" + good + R"(},"t":{)" + good + "}}", 1),
       "tensor t occurs twice"},
      {"metadata twice", File(R"({"__metadata__":{},"__metadata__":{}})", 0), "twice"},
      {"metadata that is not text", File(R"({"__metadata__":{"a":1}})", 0), "a number"},
      {"unknown dtype",
       OneTensor(R"("dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1])", 1),
       "tensor t: unknown dtype \"F8_E5M2\""},
      {"no dtype", OneTensor(R"("shape":[1],"data_offsets":[0,1])", 1), "not all there"},
      {"no shape", OneTensor(R"("dtype":"I8","data_offsets":[0,1])", 1), "not all there"},
      {"no offsets", OneTensor(R"("dtype":"I8","shape":[1])", 1), "not all there"},
      {"dtype twice", OneTensor(R"("dtype":"I8",)" + good, 1), "dtype occurs twice"},
      {"shape twice", OneTensor(R"("shape":[1],)" + good, 1), "shape occurs twice"},
      {"offsets twice", OneTensor(R"("data_offsets":[0,1],)" + good, 1), "occurs twice"},
      {"another field", OneTensor(R"("strides":[1],)" + good, 1), "a field other than"},
      {"one offset", OneTensor(R"("dtype":"I8","shape":[1],"data_offsets":[0])", 1),
       "1 data offsets, expected 2"},
      {"three offsets",
       OneTensor(R"("dtype":"I8","shape":[1],"data_offsets":[0,1,2])", 1),
       "more than 2 data offsets"},
      {"negative dimension",
       OneTensor(R"("dtype":"I8","shape":[-1],"data_offsets":[0,1])", 1),
       "-1 is negative"},
      {"fraction", OneTensor(R"("dtype":"I8","shape":[1.5],"data_offsets":[0,1])", 1),
       "1.5 is not a 64-bit integer"},
      {"too many dimensions",
       OneTensor(R"("dtype":"I8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1])", 1),
       "more than 8 dimensions"},
      {"shape of text",
       OneTensor(R"("dtype":"I8","shape":["1"],"data_offsets":[0,1])", 1),
       "a string in a place"},
      {"null", OneTensor(R"("dtype":null,"shape":[1],"data_offsets":[0,1])", 1), "null"},
  };
}

void ExpectAllRefused(const std::vector<BadFile>& files) {
  for (const BadFile& bad : files) {
    const absl::Status status = Parse(bad.file).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << bad.what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message)) << bad.what;
  }
}

TEST(ParseSafetensors, RefusesSizesAndPlacesThatLie) { ExpectAllRefused(BadPlaces()); }

TEST(ParseSafetensors, RefusesAnyOtherStructure) { ExpectAllRefused(BadStructures()); }

TEST(ParseSafetensors, FlippedBytesNeverGiveATensorOutsideTheFile) {
  constexpr uint32_t kSeed = 20260711;
  SCOPED_TRACE(kSeed);
  std::mt19937 generator(kSeed);
  const std::string good = File(kTwoTensors, 11);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string file = good;
    for (auto flips = 1 + generator() % 4; flips > 0; --flips) {
      file[generator() % file.size()] = static_cast<char>(generator() % 256);
    }
    file.resize(file.size() - (generator() % 8 == 0 ? generator() % file.size() : 0));
    const auto layout = Parse(file);
    if (!layout.ok()) {
      ASSERT_EQ(layout.status().code(), absl::StatusCode::kDataLoss);
      continue;
    }
    ++accepted;
    for (const SafetensorsEntry& entry : layout->entries) {
      ASSERT_LE(entry.begin, entry.end);
      ASSERT_LE(entry.end, layout->data.size());
    }
  }
  // Flips inside names, metadata and data are no faults of the container.
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 10000);
}

TEST(FormatShape, ReadsLikeAList) {
  EXPECT_EQ(FormatShape(std::vector<int64_t>{2, 3}), "[2, 3]");
  EXPECT_EQ(FormatShape({}), "[]");
}

}  // namespace
}  // namespace tessera::model
