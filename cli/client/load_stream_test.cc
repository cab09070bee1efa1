#include "cli/client/load_stream.h"

#include <optional>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tessera::cli {
namespace {

using ::nlohmann::json;

TEST(LoadStream, WhatTheUserAddsWinsOverThePlan) {
  LoadRunOptions options;
  options.model = "demo";
  options.continuous_usage = true;
  const json extra = {{"max_tokens", 1}, {"top_k", 5}};
  const json body = LoadRequestBody(options, extra, PlannedRequest{{1, 2}, 9, {}});
  EXPECT_EQ(body["max_tokens"], 1);
  EXPECT_EQ(body["top_k"], 5);
  EXPECT_EQ(body["prompt"], json({1, 2}));
  EXPECT_EQ(body["stream_options"]["continuous_usage_stats"], true);
}

TEST(LoadStream, TextOfACompletionIsAToken) {
  const auto content = ReadChunk(json::parse(R"({"choices":[{"text":"a"}]})"));
  EXPECT_TRUE(content.brings_tokens);
  EXPECT_FALSE(content.finishes);
  EXPECT_EQ(content.text, "a");
  EXPECT_EQ(content.num_tokens, 0);
}

TEST(LoadStream, HalfACharacterIsATokenAndAnEmptyEndIsNot) {
  EXPECT_TRUE(ReadChunk(json::parse(R"({"choices":[{"text":""}]})")).brings_tokens);
  EXPECT_TRUE(
      ReadChunk(json::parse(R"({"choices":[{"delta":{"content":""}}]})")).brings_tokens);
  const auto end =
      ReadChunk(json::parse(R"({"choices":[{"text":"","finish_reason":"stop"}]})"));
  EXPECT_FALSE(end.brings_tokens);
  EXPECT_TRUE(end.finishes);
}

TEST(LoadStream, OnlyARoleIsNoToken) {
  for (const char* delta :
       {R"({"role":"assistant"})", R"({"role":"assistant","content":""})",
        R"({"role":"assistant","content":null})", "{}"}) {
    EXPECT_FALSE(
        ReadChunk({{"choices", {{{"delta", json::parse(delta)}}}}}).brings_tokens)
        << delta;
  }
}

TEST(LoadStream, ReasoningAndToolCallsAreTokens) {
  for (const char* delta :
       {R"({"reasoning_content":"x"})", R"({"reasoning":"x","content":null})",
        R"({"role":"assistant","content":"x"})", R"({"tool_calls":[{"index":0}]})"}) {
    EXPECT_TRUE(ReadChunk({{"choices", {{{"delta", json::parse(delta)}}}}}).brings_tokens)
        << delta;
  }
}

TEST(LoadStream, TokensAreCountedWhereTheServerListsThem) {
  EXPECT_EQ(ReadChunk(json::parse(R"({"choices":[{"text":"ab","token_ids":[1,2]}]})"))
                .num_tokens,
            2);
  EXPECT_EQ(ReadChunk(json::parse(
                          R"({"choices":[{"text":"abc",
                              "logprobs":{"tokens":["a","b","c"]}}]})"))
                .num_tokens,
            3);
  EXPECT_EQ(ReadChunk(json::parse(R"({"choices":[{"delta":{"content":"a"},
                                     "logprobs":{"content":[{"token":"a"}]}}]})"))
                .num_tokens,
            1);
}

TEST(LoadStream, WhatHasNoChoiceBringsNothing) {
  for (const char* text : {"{}", R"({"choices":[]})", R"({"choices":null})",
                           R"({"choices":[7]})", R"({"choices":[{"text":7}]})"}) {
    const auto content = ReadChunk(json::parse(text));
    EXPECT_FALSE(content.brings_tokens) << text;
    EXPECT_FALSE(content.finishes) << text;
  }
}

TEST(LoadStream, UsageMayBeMissingOrNull) {
  EXPECT_EQ(UsageCount(json::parse(R"({"usage":null})"), "prompt_tokens"), std::nullopt);
  EXPECT_EQ(
      UsageCount(json::parse(R"({"usage":{"prompt_tokens":"3"}})"), "prompt_tokens"),
      std::nullopt);
  EXPECT_EQ(UsageCount(json::parse(R"({"usage":{"prompt_tokens":3}})"), "prompt_tokens"),
            std::optional<int64_t>(3));
}

}  // namespace
}  // namespace tessera::cli
