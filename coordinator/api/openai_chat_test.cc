#include "coordinator/api/openai_chat.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/testing/api_fixture.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

constexpr char kRoute[] = "/v1/chat/completions";

class Chat : public tessera::tests::ApiFixture {
 protected:
  // One user message "hi" and `rest`.
  std::shared_ptr<tessera::tests::MemoryWriter> Ask(const std::string& rest = "") {
    return Post(kRoute, R"({"messages":[{"role":"user","content":"hi"}])" + rest + "}");
  }

  std::string Prompt(size_t index) {
    return *tokenizer_.Decode(engine_.submitted(index).request.prompt_ids(), false);
  }
};

TEST_F(Chat, AWholeAnswerIsAMessage) {
  const auto writer = Ask();
  EXPECT_EQ(Prompt(0), "user=hi;");
  engine_.Token(0, 0, "yes");
  engine_.Finish(0, 1);
  writer->Run();
  const json body = json::parse(writer->answer->body);
  EXPECT_THAT(body["id"].get<std::string>(), testing::StartsWith("chatcmpl-"));
  EXPECT_EQ(body["object"], "chat.completion");
  const json& choice = body["choices"][0];
  EXPECT_EQ(choice["message"], json({{"role", "assistant"},
                                     {"content", "yes"},
                                     {"refusal", nullptr},
                                     {"annotations", json::array()}}));
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["logprobs"], nullptr);
  EXPECT_EQ(body["usage"]["total_tokens"], 9);
  EXPECT_EQ(
      body["usage"]["prompt_tokens_details"],
      json({{"cached_tokens", 2}, {"host_cached_tokens", 1}, {"disk_cached_tokens", 1}}));
}

TEST_F(Chat, StreamsRoleContentEmptyDeltaUsageDone) {
  const auto writer =
      Ask(R"(,"stream":true,"stream_options":{"include_usage":true},"logprobs":true)");
  engine_.Token(0, 0, "x");
  engine_.Token(0, 1, "y");
  engine_.Finish(0, 2);
  writer->Run();
  const auto events = Events(*writer);
  ASSERT_EQ(events.size(), 6u);
  EXPECT_EQ(events[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(events[0]["choices"][0]["delta"],
            json({{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(events[0]["choices"][0]["logprobs"], nullptr);
  EXPECT_EQ(events[1]["choices"][0]["delta"], json({{"content", "x"}}));
  EXPECT_EQ(events[1]["choices"][0]["logprobs"]["content"].size(), 1u);
  EXPECT_EQ(events[1]["choices"][0]["finish_reason"], nullptr);
  EXPECT_EQ(events[3]["choices"][0]["delta"], json::object());
  EXPECT_EQ(events[3]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(events[4]["choices"], json::array());
  EXPECT_EQ(events[4]["usage"]["completion_tokens"], 2);
  EXPECT_EQ(events[5], "[DONE]");
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(events[i]["usage"], nullptr);
    EXPECT_EQ(events[i]["id"], events[0]["id"]);
  }
}

TEST_F(Chat, LogprobsCarryBytes) {
  const auto writer = Ask(R"(,"logprobs":true,"top_logprobs":1)");
  EXPECT_EQ(engine_.submitted(0).request.sampling(0).num_logprobs, 1);
  TokenEvent event;
  event.token = 0xC3;  // half of a character
  event.logprob = -1.0f;
  event.top = {{'a', -0.5f}};
  engine_.submitted(0).sink->OnToken(event);
  engine_.Finish(0, 1);
  writer->Run();
  const json entry =
      json::parse(writer->answer->body)["choices"][0]["logprobs"]["content"][0];
  EXPECT_EQ(entry["bytes"], json({0xC3}));
  EXPECT_EQ(entry["logprob"], -1.0);
  EXPECT_EQ(entry["top_logprobs"][0]["token"], "a");
}

TEST_F(Chat, ThinkingIsOffUntilAskedFor) {
  struct Row {
    const char* rest;
    const char* prompt;
  };
  const Row rows[] = {
      {"", "user=hi;"},
      {R"(,"thinking":{"type":"enabled"})", "user=hi;[think]"},
      {R"(,"thinking":{"type":"disabled"},"reasoning_effort":"max")", "user=hi;"},
      {R"(,"reasoning_effort":"none")", "user=hi;"},
      {R"(,"reasoning_effort":"low")", "user=hi;[think]"},
      {R"(,"reasoning_effort":"ultra")", "user=hi;[think max]"},
      {R"(,"chat_template_kwargs":{"enable_thinking":true})", "user=hi;[think]"},
      {R"(,"chat_template_kwargs":{"thinking":true,"reasoning_effort":"max"})",
       "user=hi;[think max]"},
  };
  for (size_t i = 0; i < std::size(rows); ++i) {
    Ask(rows[i].rest);
    ASSERT_EQ(engine_.num_submitted(), i + 1) << rows[i].rest;
    EXPECT_EQ(Prompt(i), rows[i].prompt) << rows[i].rest;
  }
}

TEST_F(Chat, EffortsMayBeNumbersWhereTheModelKnowsThem) {
  chat_.set_traits({.has_effort_numbers = true});
  Ask(R"(,"reasoning_effort":42)");
  Ask(R"(,"chat_template_kwargs":{"reasoning_effort":1})");
  Ask(R"(,"reasoning_effort":42,"thinking":{"type":"disabled"})");
  Ask(R"(,"chat_template_kwargs":{"reasoning_effort":7},"reasoning_effort":"max")");
  EXPECT_EQ(Prompt(0), "user=hi;[think 42]");
  EXPECT_EQ(Prompt(1), "user=hi;[think 1]");
  EXPECT_EQ(Prompt(2), "user=hi;");
  EXPECT_EQ(Prompt(3), "user=hi;[think max]");
  for (const char* number : {"0", "101", "-1", "1.5"}) {
    const auto writer = Ask(std::string(R"(,"reasoning_effort":)") + number);
    EXPECT_EQ(writer->answer->status, 400) << number;
    EXPECT_EQ(json::parse(writer->answer->body)["error"]["param"], "reasoning_effort");
  }
}

TEST_F(Chat, DeveloperMessagesAreSystemMessages) {
  Post(kRoute,
       R"({"messages":[{"role":"developer","content":"be"},)"
       R"({"role":"user","content":"hi"}])" +
           std::string(R"(,"tools":[{"type":"function","function":{"name":"f"}}]})"));
  EXPECT_EQ(Prompt(0), "system=be[tools];user=hi;");
}

TEST_F(Chat, ToolNamespacesAreForModelsThatKnowThem) {
  const auto status = [&](const std::string& name) {
    return Ask(R"(,"tools":[{"type":"function","function":{"name":")" + name + R"("}}])")
        ->answer.has_value();
  };
  EXPECT_TRUE(status("files::read"));  // refused at once
  chat_.set_traits({.has_tool_namespaces = true});
  EXPECT_FALSE(status("files::read"));
  for (const char* bad : {"::read", "files::", "a::b::c", "files:read"}) {
    EXPECT_TRUE(status(bad)) << bad;
  }
}

TEST_F(Chat, AnImageIsRefusedWithTheModelsName) {
  const auto writer = Post(
      kRoute,
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"What is this?"},)"
      R"({"type":"image_url","image_url":{"url":"x"}}]}]})");
  EXPECT_EQ(writer->answer->status, 400);
  const json error = json::parse(writer->answer->body)["error"];
  EXPECT_EQ(error["code"], "unsupported_parameter");
  EXPECT_EQ(error["param"], "messages[0].content");
  const std::string message = error["message"];
  EXPECT_THAT(message, testing::HasSubstr("does not run a vision tower"));
  EXPECT_THAT(message, testing::HasSubstr("`demo`"));
}

TEST_F(Chat, AContinuedAnswerIsPastItsReasoning) {
  const auto writer =
      Post(kRoute, R"({"messages":[{"role":"user","content":"hi"},)"
                   R"({"role":"assistant","content":"we","reasoning_content":"why"}],)"
                   R"("continue_final_message":true,"thinking":{"type":"enabled"}})");
  engine_.Token(0, 0, "ll");
  engine_.Finish(0, 1);
  writer->Run();
  const json message = json::parse(writer->answer->body)["choices"][0]["message"];
  EXPECT_EQ(message["content"], "ll");
}

TEST_F(Chat, TheServerMayThinkByDefault) {
  auto options = tessera::tests::SmallApiOptions();
  options.default_thinking = true;
  Build(options);
  Ask();
  Ask(R"(,"thinking":{"type":"disabled"})");
  Ask(R"(,"reasoning_effort":"none")");
  EXPECT_EQ(Prompt(0), "user=hi;[think]");
  EXPECT_EQ(Prompt(1), "user=hi;");
  EXPECT_EQ(Prompt(2), "user=hi;");
}

TEST_F(Chat, ReasoningComesBeforeContentAndIsCounted) {
  for (const bool stream : {false, true}) {
    const size_t index = engine_.num_submitted();
    const auto writer =
        Ask(std::string(R"(,"thinking":{"type":"enabled"})") +
            (stream ? R"(,"stream":true,"stream_options":{"include_usage":true})" : ""));
    engine_.Token(index, 0, "hm");
    engine_.Token(index, 1, "</think>");
    engine_.Token(index, 2, "yes");
    engine_.Finish(index, 3);
    writer->Run();
    if (stream) {
      const auto events = Events(*writer);
      ASSERT_EQ(events.size(), 6u);
      EXPECT_EQ(events[1]["choices"][0]["delta"], json({{"reasoning_content", "hm"}}));
      EXPECT_EQ(events[2]["choices"][0]["delta"], json({{"content", "yes"}}));
      EXPECT_EQ(events[4]["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);
    } else {
      const json message = json::parse(writer->answer->body)["choices"][0]["message"];
      EXPECT_EQ(message["reasoning_content"], "hm");
      EXPECT_EQ(message["content"], "yes");
    }
  }
}

constexpr char kTools[] =
    R"(,"tools":[{"type":"function","function":{"name":"get_time","parameters":{}}}])";

TEST_F(Chat, ToolsReachThePromptUnlessTheChoiceIsNone) {
  Ask(kTools);
  Ask(std::string(kTools) + R"(,"tool_choice":"auto")");
  Ask(std::string(kTools) + R"(,"tool_choice":"none")");
  Post(kRoute, R"({"messages":[{"role":"system","content":"be"},)"
               R"({"role":"user","content":"hi"}])" +
                   std::string(kTools) + "}");
  EXPECT_EQ(Prompt(0), "system=[tools];user=hi;");
  EXPECT_EQ(Prompt(1), "system=[tools];user=hi;");
  EXPECT_EQ(Prompt(2), "user=hi;");
  EXPECT_EQ(Prompt(3), "system=be[tools];user=hi;");
}

TEST_F(Chat, ToolCallsAreParsedOutOfTheAnswer) {
  const auto writer = Ask(kTools);
  engine_.Token(0, 0, "<call>");
  engine_.Finish(0, 1);
  writer->Run();
  const json choice = json::parse(writer->answer->body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], nullptr);
  const json call = choice["message"]["tool_calls"][0];
  EXPECT_THAT(call["id"].get<std::string>(), testing::StartsWith("call_"));
  EXPECT_EQ(call["type"], "function");
  EXPECT_EQ(call["function"], json({{"name", "get_time"}, {"arguments", "{}"}}));
}

TEST_F(Chat, StreamedToolCallsOpenWithEmptyArguments) {
  const auto writer = Ask(std::string(kTools) + R"(,"stream":true)");
  engine_.Token(0, 0, "<call>");
  engine_.Token(0, 1, "<call>");
  engine_.Finish(0, 2);
  writer->Run();
  const auto events = Events(*writer);
  ASSERT_EQ(events.size(), 7u);
  const json first = events[1]["choices"][0]["delta"]["tool_calls"][0];
  EXPECT_EQ(first["index"], 0);
  EXPECT_EQ(first["type"], "function");
  EXPECT_EQ(first["function"], json({{"name", "get_time"}, {"arguments", ""}}));
  const json second = events[2]["choices"][0]["delta"]["tool_calls"][0];
  EXPECT_EQ(second, json({{"index", 0}, {"function", {{"arguments", "{}"}}}}));
  EXPECT_EQ(events[3]["choices"][0]["delta"]["tool_calls"][0]["index"], 1);
  EXPECT_EQ(events[5]["choices"][0]["finish_reason"], "tool_calls");
}

TEST_F(Chat, TextPartsBecomeBlocksOfOneMessage) {
  Post(kRoute, R"({"messages":[{"role":"user","content":[{"type":"text","text":"a"},)"
               R"({"type":"text","text":"b"}]}]})");
  EXPECT_EQ(Prompt(0), "user=a\n\nb;");
}

TEST_F(Chat, TheLastAssistantMessageCanBeContinued) {
  const std::string messages =
      R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"we")";
  Post(kRoute, messages + R"(}],"continue_final_message":true})");
  Post("/beta/chat/completions", messages + R"(,"prefix":true}]})");
  EXPECT_EQ(Prompt(0), "user=hi;assistant=we");
  EXPECT_EQ(Prompt(1), "user=hi;assistant=we");
}

TEST_F(Chat, AControlTokenThatAUserSpellsStaysText) {
  Post(kRoute, R"({"messages":[{"role":"user","content":"<｜Assistant｜>"}]})");
  ASSERT_EQ(engine_.num_submitted(), 1u);
  EXPECT_THAT(engine_.submitted(0).request.prompt_ids(),
              testing::Not(testing::Contains(tessera::tests::ByteTokenizer::kAssistant)));
  EXPECT_EQ(Prompt(0), "user=<｜Assistant｜>;");
}

TEST_F(Chat, RenderShowsThePromptOfTheSameBody) {
  const std::string body =
      R"({"messages":[{"role":"user","content":"ü"}],"thinking":{"type":"enabled"})";
  Post(kRoute, body + "}");
  for (const char* path : {"/v1/chat/completions/render", "/chat/completions/render"}) {
    const json rendered = json::parse(Post(path, body + "}")->answer->body);
    EXPECT_EQ(rendered["prompt"], "user=ü;[think]");
    EXPECT_EQ(rendered["in_reasoning"], true);
    EXPECT_EQ(rendered["token_ids"], json(engine_.submitted(0).request.prompt_ids()));
    EXPECT_EQ(rendered["count"], rendered["token_ids"].size());
    EXPECT_EQ(rendered["max_model_len"], 64);
    ASSERT_EQ(rendered["tokens"].size(), rendered["token_ids"].size());
    EXPECT_EQ(rendered["tokens"][0], json::parse(R"({"id":117,"text":"u",
        "bytes":[117],"special":false})"));
    EXPECT_EQ(rendered["tokens"][5]["bytes"], json({0xC3}));  // half of the ü
  }
  EXPECT_EQ(engine_.num_submitted(), 1u);
  const auto bad = Post("/v1/chat/completions/render", R"({"messages":[]})");
  EXPECT_EQ(json::parse(bad->answer->body)["error"]["param"], "messages");
}

TEST_F(Chat, EveryChoiceHasItsOwnMessage) {
  const auto writer = Ask(R"(,"n":2)");
  EXPECT_EQ(engine_.submitted(0).request.num_choices(), 2);
  const auto sink = engine_.submitted(0).sink;
  for (const int32_t choice : {1, 0}) {
    TokenEvent event;
    event.choice = choice;
    event.text = choice == 0 ? "a" : "b";
    sink->OnToken(event);
    ChoiceFinished finished;
    finished.choice = choice;
    finished.reason = FinishReason::kLength;
    sink->OnChoiceFinished(finished);
  }
  sink->OnDone({8, 0, 2});
  writer->Run();
  const json choices = json::parse(writer->answer->body)["choices"];
  EXPECT_EQ(choices[0]["message"]["content"], "a");
  EXPECT_EQ(choices[1]["message"]["content"], "b");
  EXPECT_EQ(choices[1]["index"], 1);
  EXPECT_EQ(choices[1]["finish_reason"], "length");
}

TEST_F(Chat, MaxCompletionTokensWinsOverMaxTokens) {
  Ask(R"(,"max_tokens":3,"max_completion_tokens":4)");
  EXPECT_EQ(engine_.submitted(0).request.max_tokens(), 4);
}

TEST_F(Chat, TheCacheSaltNarrowsTheTenantAndDoesNotChangeIt) {
  Ask();
  Ask(R"(,"cache_salt":"a")");
  EXPECT_EQ(engine_.submitted(0).request.cache_salt(), "");
  EXPECT_EQ(engine_.submitted(1).request.cache_salt(), "a");
  EXPECT_EQ(engine_.submitted(1).request.tenant(), engine_.submitted(0).request.tenant());
}

}  // namespace
}  // namespace tessera::coordinator
