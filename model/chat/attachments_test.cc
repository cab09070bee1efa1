#include "model/chat/attachments.h"

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

TEST(Attachments, FunctionsAndTheFormatKeepTheirShape) {
  const auto read = ParseAttachments(
      {.role = "system",
       .tools_json = R"([{"function": {"name":"f"}}, {"function": {"b": 1e3, "a": []}}])",
       .response_format_json = R"({"type":"object"})"});
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->functions.size(), 2U);
  EXPECT_EQ(read->functions[0].Dump(), R"({"name": "f"})");
  EXPECT_EQ(read->functions[1].Dump(), R"({"b": 1000.0, "a": []})");
  EXPECT_EQ(read->response_format, R"({"type": "object"})");
}

TEST(Attachments, NothingAndAnEmptyFormatAreNone) {
  for (const char* format : {"", "{}", "null"}) {
    const auto read =
        ParseAttachments({.role = "system", .response_format_json = format});
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_TRUE(read->functions.empty());
    EXPECT_TRUE(read->response_format.empty()) << format;
  }
}

TEST(Attachments, BadJsonIsRefused) {
  for (const char* tools :
       {"[", "{}", "[1]", R"([{"type": "function"}])", R"([{"function": "f"}])"}) {
    EXPECT_EQ(ParseAttachments({.role = "system", .tools_json = tools}).status().code(),
              absl::StatusCode::kInvalidArgument)
        << tools;
  }
  EXPECT_EQ(
      ParseAttachments({.role = "system", .response_format_json = "x"}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST(Attachments, SectionsAreWrittenWithABlankLineInFront) {
  const AddedTokenTrie no_tokens({});
  const auto tokenizer = Tokenizer::Load("models/demo");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto read =
      ParseAttachments({.role = "system",
                        .tools_json = R"([{"function": {"a": 1}}, {"function": {}}])",
                        .response_format_json = "[1]"});
  ASSERT_TRUE(read.ok()) << read.status();
  PromptWriter writer(tokenizer->get(), &no_tokens);
  WriteAttachments({.before_schemas = "<", .after_schemas = ">"}, *read, &writer);
  EXPECT_EQ(writer.Finish().text,
            "\n\n<{\"a\": 1}\n{}>\n\n" + std::string(kResponseFormatText) + "[1]");
}

}  // namespace
}  // namespace tessera::model
