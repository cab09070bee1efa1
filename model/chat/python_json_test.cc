#include "model/chat/python_json.h"

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

// What Python prints for `json.dumps(json.loads(text), ensure_ascii=False)`.
std::string Reprinted(const std::string& text) {
  const auto value = PythonJson::Parse(text);
  EXPECT_TRUE(value.ok()) << text << ": " << value.status();
  return value.ok() ? value->Dump() : "";
}

TEST(PythonJson, SeparatorsAndKeyOrderAreThoseOfPython) {
  EXPECT_EQ(Reprinted(R"({"b":[1,true,null],"a":{"y":{},"x":[]}})"),
            R"({"b": [1, true, null], "a": {"y": {}, "x": []}})");
}

TEST(PythonJson, NumbersPrintAsInPython) {
  EXPECT_EQ(Reprinted("[1.0, -0.0, 1e5, 0.1, 3.50]"), "[1.0, -0.0, 100000.0, 0.1, 3.5]");
  EXPECT_EQ(Reprinted("[0.00001, 1E-7, 0.0001]"), "[1e-05, 1e-07, 0.0001]");
  EXPECT_EQ(Reprinted("[1e16, 1e15, 1.5e300, 123456789012345.6]"),
            "[1e+16, 1000000000000000.0, 1.5e+300, 123456789012345.6]");
  EXPECT_EQ(Reprinted("[-0, 18446744073709551615, -9223372036854775808]"),
            "[0, 18446744073709551615, -9223372036854775808]");
  EXPECT_EQ(Reprinted("123456789012345678901234567890"),
            "123456789012345678901234567890");
}

TEST(PythonJson, OnlyWhatMustBeIsEscaped) {
  EXPECT_EQ(PythonJsonString("\"\\\n\r\t\b\f\x01\x7F/é中😀"),
            "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\x7F/é中😀\"");
  EXPECT_EQ(Reprinted(R"("\u00e9\u4e2d\ud83d\ude00\/")"), "\"é中😀/\"");
}

TEST(PythonJson, TheLastOfEqualKeysCountsInThePlaceOfTheFirst) {
  EXPECT_EQ(Reprinted(R"({"a": 1, "b": 2, "a": 3})"), R"({"a": 3, "b": 2})");
}

TEST(PythonJson, WhatIsNotJsonIsRefused) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[1,]"), std::string("\"\\ud800\""),
        std::string("1e999"), std::string("{} {}"), std::string("\"\xFF\""),
        std::string(101, '['), std::string(4301, '1')}) {
    EXPECT_EQ(PythonJson::Parse(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text.substr(0, 20);
  }
}

TEST(PythonJson, TruthIsThatOfPython) {
  for (const char* text : {"null", "false", "0", "0.0", "\"\"", "[]", "{}"}) {
    EXPECT_FALSE(PythonJson::Parse(text)->IsTruthy()) << text;
  }
  for (const char* text : {"true", "-1", "0.5", "\"0\"", "[null]", "{\"a\": 0}"}) {
    EXPECT_TRUE(PythonJson::Parse(text)->IsTruthy()) << text;
  }
}

TEST(PythonJson, FindsMembersOfObjectsOnly) {
  const auto value = PythonJson::Parse(R"({"a": {"b": 1}})");
  ASSERT_TRUE(value.ok());
  ASSERT_NE(value->Find("a"), nullptr);
  EXPECT_EQ(value->Find("a")->Find("b")->text, "1");
  EXPECT_EQ(value->Find("c"), nullptr);
  EXPECT_EQ(PythonJson::Parse("[1]")->Find("a"), nullptr);
}

}  // namespace
}  // namespace tessera::model
