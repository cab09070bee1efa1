#include "coordinator/grammar/schema_rules.h"

#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tessera::coordinator {
namespace {

// The reason why a schema is refused; empty: it is not.
std::string Refusal(const std::string& schema) {
  const absl::Status status =
      CheckSchema(nlohmann::ordered_json::parse(schema), GrammarLimits());
  return std::string(status.message());
}

TEST(SchemaRules, WhatPydanticWritesPasses) {
  EXPECT_EQ(Refusal(R"({"$defs": {"Step": {"properties": {"text": {"title": "Text",
      "type": "string", "maxLength": 80}, "kind": {"enum": ["a", "b"], "type": "string"}},
      "required": ["text"], "title": "Step", "type": "object"}}, "properties": {
      "steps": {"items": {"$ref": "#/$defs/Step"}, "type": "array", "maxItems": 4},
      "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null}},
      "required": ["steps"], "title": "Plan", "type": "object",
      "additionalProperties": false})"),
            "");
}

TEST(SchemaRules, ARefusalNamesTheKeywordAndItsPlace) {
  const std::string refusal = Refusal(
      R"({"type": "object", "properties": {"a": {"type": "array",
      "uniqueItems": true}}})");
  EXPECT_NE(refusal.find("schema.properties.a"), std::string::npos) << refusal;
  EXPECT_NE(refusal.find("uniqueItems"), std::string::npos) << refusal;
}

TEST(SchemaRules, WhatTheLibraryWouldDropIsRefused) {
  for (const char* schema :
       {R"({"not": {"type": "string"}})",
        R"({"oneOf": [{"type": "string"}]})",
        R"({"allOf": [{"type": "string"}, {"type": "object"}]})",
        R"({"type": "string", "if": {}})",
        R"({"minimum": 3})",
        R"({"type": "string", "enum": ["a", 3]})",
        R"({"enum": []})",
        R"({"$ref": "#/$defs/a", "minLength": 3, "$defs": {"a": {"type": "string"}}})",
        R"({"$ref": "https://example.com/schema"})",
        R"({"$ref": "#/$defs/b"})",
        R"({"type": "string", "pattern": "a", "minLength": 3})",
        R"({"type": "array", "contains": {"type": "string"}})",
        R"({"type": "object", "patternProperties": {"a": {}}})",
        R"({"anyOf": [{"type": "string"}], "type": "string"})",
        R"({"type": "text"})",
        R"({"type": "object", "required": ["a"]})",
        R"({"type": "object", "properties": {"b": {}}, "required": ["b", "a"]})",
        R"({"type": "array", "items": 3})",
        R"(false)",
        R"([])"}) {
    EXPECT_NE(Refusal(schema), "") << schema;
  }
}

TEST(SchemaRules, PatternsThatJsonWouldEscapeAreRefused) {
  const auto pattern = [](const char* text) {
    return Refusal(nlohmann::json({{"type", "string"}, {"pattern", text}}).dump());
  };
  for (const char* good :
       {"^[a-z]+$", "(?:ab){2}", "[^a]{3}", "\\d{4}-\\d\\d", "a\\.b"}) {
    EXPECT_EQ(pattern(good), "") << good;
  }
  for (const char* bad : {"a\"b", "a\\\\b", "a\nb", "\\n", "\\x22", "\\u0022", "\\cA",
                          "(?=a)b", "(?<!a)b", "[ -~]", "[A-z]", "\\", "\\W", "a\\D"}) {
    EXPECT_NE(pattern(bad), "") << bad;
  }
}

TEST(SchemaRules, LimitsBoundDepthAndCounts) {
  std::string deep = R"({"type": "string"})";
  for (int i = 0; i < 70; ++i) {
    deep = R"({"type": "array", "items": )" + deep + "}";
  }
  EXPECT_NE(Refusal(deep).find("nested deeper"), std::string::npos);
  EXPECT_NE(Refusal(R"({"type": "string", "maxLength": 100000000})"), "");
  EXPECT_NE(Refusal(R"({"type": "array", "minItems": -1})"), "");
  EXPECT_NE(Refusal(R"({"type": "string", "pattern": "(a{1000}){1000}"})"), "");
}

// Each alone is allowed; together they would take minutes to compile.
TEST(SchemaRules, TheRepetitionsOfAllPatternsAreBoundedTogether) {
  const auto schema = [](int count) {
    std::string properties;
    for (int i = 0; i < count; ++i) {
      properties += (i == 0 ? "\"p" : ",\"p") + std::to_string(i) +
                    R"(": {"type": "string", "pattern": "(a|b){1,60}[0-9]{1,60}"})";
    }
    return R"({"type": "object", "properties": {)" + properties + "}}";
  };
  EXPECT_EQ(Refusal(schema(30)), "");
  EXPECT_NE(Refusal(schema(60)).find("whole schema"), std::string::npos);
}

TEST(CheckPattern, BoundsCannotBeHidden) {
  const auto bad = [](std::string_view text, PatternSyntax syntax) {
    return !CheckPattern(text, syntax, GrammarLimits()).ok();
  };
  for (const char* text :
       {"root ::= \"a\"{100000 }", "root ::= \"a\"{ 0 , 100000 }",
        "root ::= \"a\"{4294967297 }", "root ::= \"a\"{# why\n100000#\n}",
        "root ::= \"a\" # \\\nb ::= \"a\"{100000}", "root ::= [\"] | \"a\"{100000}"}) {
    EXPECT_TRUE(bad(text, PatternSyntax::kEbnf)) << text;
  }
  std::string deep;
  for (int i = 0; i < 100; ++i) {
    deep += "([)]";
  }
  EXPECT_TRUE(bad(deep, PatternSyntax::kRegex));
  EXPECT_TRUE(bad("\"a{100000}\"", PatternSyntax::kRegex));
  EXPECT_FALSE(bad("root ::= \"{100000}\" | [(((]", PatternSyntax::kEbnf));
}

}  // namespace
}  // namespace tessera::coordinator
