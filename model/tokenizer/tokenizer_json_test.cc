#include "model/tokenizer/tokenizer_json.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tessera::model {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

Json Minimal() {
  return Json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
    "added_tokens": [{"id": 3, "content": "<x>", "special": true, "normalized": false,
                      "lstrip": false, "rstrip": false, "single_word": false}],
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\p{N}"}, "behavior": "Isolated",
       "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
    "post_processor": null, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "vocab": {"a": 0, "b": 1, "ab": 2},
              "merges": ["a b", ["ab", "a"]]}})");
}

void ExpectRefused(const std::string& json, const std::string& message) {
  const auto spec = ParseTokenizerJson(json);
  ASSERT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << json;
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr(message));
}

TEST(TokenizerJson, ReadsEveryPart) {
  const auto spec = ParseTokenizerJson(Minimal().dump());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(spec->split_patterns, ElementsAre("\\p{N}"));
  ASSERT_EQ(spec->vocabulary.size(), 3U);
  EXPECT_EQ(spec->vocabulary[1].spelling, "ab");
  EXPECT_EQ(spec->vocabulary[1].id, 2);
  EXPECT_THAT(spec->merges, ElementsAre(Pair("a", "b"), Pair("ab", "a")));
  ASSERT_EQ(spec->added_tokens.size(), 1U);
  EXPECT_EQ(spec->added_tokens[0].content, "<x>");
  EXPECT_TRUE(spec->added_tokens[0].special);
}

TEST(TokenizerJson, OtherKindsAreRefusedByName) {
  struct Case {
    const char* pointer;
    Json value;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"/model/type", "WordPiece", "model is WordPiece"},
      {"/model/unk_token", "<unk>", "model.unk_token"},
      {"/model/byte_fallback", true, "model.byte_fallback"},
      {"/model/ignore_merges", true, "model.ignore_merges"},
      {"/model/dropout", 0.1, "model.dropout"},
      {"/normalizer", {{"type", "NFC"}}, "normalizer is NFC"},
      {"/pre_tokenizer/type", "Metaspace", "pre_tokenizer is Metaspace"},
      {"/pre_tokenizer/pretokenizers/0/behavior", "Removed", "pretokenizers[0]"},
      {"/pre_tokenizer/pretokenizers/0/invert", true, "pretokenizers[0]"},
      {"/pre_tokenizer/pretokenizers/1/use_regex", true, "pretokenizers[1]"},
      {"/post_processor", {{"type", "TemplateProcessing"}}, "post_processor"},
      {"/decoder", {{"type", "WordPiece"}}, "decoder is WordPiece"},
      {"/truncation", {{"max_length", 5}}, "truncation"},
      {"/added_tokens/0/lstrip", true, "added token 3.lstrip"},
      {"/added_tokens/0/content", "", "added_tokens"},
      {"/added_tokens/0/id", -1, "added_tokens"},
  };
  for (const Case& c : cases) {
    Json json = Minimal();
    json[Json::json_pointer(c.pointer)] = c.value;
    ExpectRefused(json.dump(), c.message);
  }
}

TEST(TokenizerJson, MalformedFilesAreRefused) {
  ExpectRefused("", "tokenizer.json");
  ExpectRefused("{\"model\": ", "tokenizer.json");
  ExpectRefused("[]", "no object");
  ExpectRefused(std::string(1000, '['), "nested too deeply");
  for (const char* model :
       {R"({"vocab": {"a": "b"}})", R"({"vocab": {"a": -1}})",
        R"({"vocab": {"a": 99999999}})", R"({"vocab": {"a": [1]}})",
        R"({"vocab": {"a": 1.5}})", R"({"merges": ["a"]})", R"({"merges": ["a b c"]})",
        R"({"merges": [["a"]]})", R"({"merges": [["a", "b", "c"]]})",
        R"({"merges": [[["a"]]]})", R"({"merges": [1]})", R"({"merges": [{"a": 1}]})"}) {
    ExpectRefused(std::string(R"({"model": )") + model + "}", "tokenizer.json");
  }
}

TEST(TokenizerJson, TheConfigDecidesWhatIsSpecial) {
  auto spec = ParseTokenizerJson(Minimal().dump());
  ASSERT_TRUE(spec.ok());
  const auto apply = [&spec](const std::string& json) {
    return ApplyTokenizerConfig(json, &*spec);
  };
  EXPECT_TRUE(apply("{}").ok());
  EXPECT_TRUE(spec->added_tokens[0].special);
  EXPECT_TRUE(
      apply(R"({"added_tokens_decoder": {"3": {"content": "<x>", "special": false}}})")
          .ok());
  EXPECT_FALSE(spec->added_tokens[0].special);
  EXPECT_EQ(apply(R"({"added_tokens_decoder": {"3": {"content": "<y>"}}})").code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(apply("{").code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::model
