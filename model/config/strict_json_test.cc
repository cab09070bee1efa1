#include "model/config/strict_json.h"

#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

using testing::HasSubstr;

TEST(ParseStrictJson, GivesTheSameDocumentAsThePlainParser) {
  const char* text = R"({"a":[1,-2,3.5,null,true,"x",[],{}],"b":{"c":{"d":[{"e":1}]}},)"
                     R"("":18446744073709551615})";
  const auto parsed = ParseStrictJson(text);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, nlohmann::json::parse(text));
}

TEST(ParseStrictJson, RefusesDuplicateKeysAtEveryLevel) {
  for (const char* text : {R"({"a":1,"a":2})", R"({"b":[{"a":1,"c":{},"a":null}]})"}) {
    const absl::Status status = ParseStrictJson(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("\"a\" occurs twice"));
  }
  EXPECT_TRUE(ParseStrictJson(R"([{"a":1},{"a":2}])").ok());
}

TEST(ParseStrictJson, BoundsDepthAndSize) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(ParseStrictJson(nested(32)).ok());
  EXPECT_THAT(std::string(ParseStrictJson(nested(33)).status().message()),
              HasSubstr("deeper than 32"));
  EXPECT_FALSE(ParseStrictJson(std::string(1000000, '[')).ok());
  EXPECT_FALSE(ParseStrictJson("[1,2]", {.bytes = 4, .depth = 32}).ok());
}

TEST(ParseStrictJson, NamesTheByteOfASyntaxError) {
  EXPECT_THAT(std::string(ParseStrictJson("{\"a\":}").status().message()),
              HasSubstr("not valid json at byte 6"));
  EXPECT_FALSE(ParseStrictJson("").ok());
  EXPECT_FALSE(ParseStrictJson("{} x").ok());
  EXPECT_FALSE(ParseStrictJson("NaN").ok());
}

TEST(ReadSmallFile, ReadsUpToTheLimit) {
  const std::string path = testing::TempDir() + "strict_json_read_small_file";
  std::ofstream(path) << "12345";
  EXPECT_EQ(ReadSmallFile(path, 5).value(), "12345");
  EXPECT_EQ(ReadSmallFile(path, 4).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadSmallFile(path + ".absent", 5).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadSmallFile(testing::TempDir(), 5).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::model
