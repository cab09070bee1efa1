#include "coordinator/api/json/ordered_json.h"

#include <string>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tessera::coordinator {
namespace {

TEST(OrderedJson, MembersKeepTheOrderOfTheText) {
  const std::string text =
      R"({"z":[1,-2,3.5,{"y":null,"b":true}],"a":"x","m":{},"c":[]})";
  EXPECT_EQ(ParseOrderedJson(text).dump(), text);
  EXPECT_EQ(ParseOrderedJson(text), nlohmann::ordered_json::parse(text));
}

TEST(OrderedJson, OfEqualKeysTheLastValueCounts) {
  EXPECT_EQ(ParseOrderedJson(R"({"a":1,"b":2,"a":[3]})").dump(), R"({"a":[3],"b":2})");
}

TEST(OrderedJson, WhatIsNoJsonIsNull) {
  for (const char* text : {"", "{", R"({"a":})", "[1,]", "1 2", "1e999"}) {
    EXPECT_TRUE(ParseOrderedJson(text).is_null()) << text;
  }
}

// Quadratic time would be minutes here.
TEST(OrderedJson, AnObjectOfVeryManyMembersIsRead) {
  constexpr int kMembers = 300'000;
  std::string text = "{\"k\":0";
  for (int i = 0; i < kMembers; ++i) {
    text += fmt::format(",\"{}\":1", i);
  }
  EXPECT_EQ(ParseOrderedJson(text + "}").size(), kMembers + 1u);
}

}  // namespace
}  // namespace tessera::coordinator
