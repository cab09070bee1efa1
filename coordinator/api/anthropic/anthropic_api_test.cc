#include "coordinator/api/anthropic/anthropic_api.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/anthropic/anthropic_answer.h"
#include "coordinator/api/anthropic/anthropic_conversation.h"
#include "tests/testing/api_fixture.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

constexpr char kRoute[] = "/v1/messages";
constexpr char kHi[] = R"("messages":[{"role":"user","content":"hi"}])";
constexpr char kTools[] =
    R"(,"tools":[{"name":"get_time","description":"now","input_schema":{}}])";

class Messages : public tessera::tests::ApiFixture {
 protected:
  // One user message "hi" and `rest`.
  std::shared_ptr<tessera::tests::MemoryWriter> Ask(const std::string& rest = "") {
    return Post(kRoute, std::string(R"({"max_tokens":9,)") + kHi + rest + "}");
  }

  // A conversation with more fields before it.
  std::shared_ptr<tessera::tests::MemoryWriter> Converse(const std::string& messages,
                                                         const std::string& rest = "") {
    return Post(kRoute, R"({"max_tokens":9,"messages":)" + messages + rest + "}");
  }

  std::string Prompt(size_t index) {
    return *tokenizer_.Decode(engine_.submitted(index).request.prompt_ids(), false);
  }

  static std::vector<std::string> Types(const std::vector<json>& events) {
    std::vector<std::string> types;
    for (const json& event : events) {
      types.push_back(event["type"]);
    }
    return types;
  }
};

TEST_F(Messages, AWholeAnswerIsAMessage) {
  const auto writer = Ask(R"(,"model":"alias")");
  EXPECT_EQ(Prompt(0), "user=hi;");
  EXPECT_EQ(engine_.submitted(0).request.max_tokens(), 9);
  engine_.Token(0, 0, "y");
  engine_.Token(0, 1, "es");
  engine_.Finish(0, 2);
  writer->Run();
  json body = json::parse(writer->answer->body);
  EXPECT_THAT(body["id"].get<std::string>(), testing::MatchesRegex("msg_[0-9a-f]{32}"));
  body.erase("id");
  EXPECT_EQ(body, json::parse(R"({"type":"message","role":"assistant","model":"demo",
      "content":[{"type":"text","text":"yes","citations":null}],
      "stop_reason":"end_turn","stop_sequence":null,
      "usage":{"input_tokens":6,"cache_read_input_tokens":2,
               "host_cached_tokens":1,"disk_cached_tokens":1,
               "cache_creation_input_tokens":0,"output_tokens":2,
               "output_tokens_details":{"thinking_tokens":0}}})"));
}

TEST_F(Messages, AStreamOpensFillsAndClosesEachBlock) {
  const auto writer = Ask(R"(,"stream":true,"thinking":{"type":"enabled",)"
                          R"("budget_tokens":1024})" +
                          std::string(kTools));
  EXPECT_EQ(Prompt(0), "system=[tools];user=hi;[think]");
  for (const char* token : {"hm", "</think>", "ye", "s", "<call>"}) {
    engine_.Token(0, 0, token);
  }
  engine_.Finish(0, 5);
  writer->Run();
  EXPECT_EQ(writer->stream->content_type, "text/event-stream");
  EXPECT_EQ(writer->finished, false);
  const auto events = Events(*writer);
  EXPECT_THAT(Types(events),
              testing::ElementsAre(
                  "message_start", "ping", "content_block_start", "content_block_delta",
                  "content_block_delta", "content_block_stop", "content_block_start",
                  "content_block_delta", "content_block_delta", "content_block_stop",
                  "content_block_start", "content_block_delta", "content_block_stop",
                  "message_delta", "message_stop"));
  const json& message = events[0]["message"];
  EXPECT_EQ(message["content"], json::array());
  EXPECT_EQ(message["stop_reason"], nullptr);
  EXPECT_EQ(message["usage"]["input_tokens"], 30);
  EXPECT_EQ(events[2]["content_block"],
            json({{"type", "thinking"}, {"thinking", ""}, {"signature", ""}}));
  EXPECT_EQ(events[3]["delta"], json({{"type", "thinking_delta"}, {"thinking", "hm"}}));
  EXPECT_EQ(events[4]["delta"],
            json({{"type", "signature_delta"}, {"signature", message["id"]}}));
  EXPECT_EQ(events[6]["content_block"]["type"], "text");
  EXPECT_EQ(events[6]["content_block"]["text"], "");
  EXPECT_EQ(events[6]["index"], 1);
  EXPECT_EQ(events[8]["delta"], json({{"type", "text_delta"}, {"text", "s"}}));
  EXPECT_EQ(events[10]["index"], 2);
  EXPECT_EQ(events[10]["content_block"]["name"], "get_time");
  EXPECT_EQ(events[10]["content_block"]["input"], json::object());
  EXPECT_THAT(events[10]["content_block"]["id"].get<std::string>(),
              testing::StartsWith("toolu_"));
  EXPECT_EQ(events[11]["delta"],
            json({{"type", "input_json_delta"}, {"partial_json", "{}"}}));
  EXPECT_EQ(events[13]["delta"],
            json({{"stop_reason", "tool_use"}, {"stop_sequence", nullptr}}));
  EXPECT_EQ(events[13]["usage"]["output_tokens"], 5);
  EXPECT_EQ(events[13]["usage"]["input_tokens"], 28);
  EXPECT_EQ(events[13]["usage"]["cache_read_input_tokens"], 2);
  EXPECT_EQ(events[13]["usage"]["host_cached_tokens"], 1);
}

TEST_F(Messages, ThinkingAndCallsAreBlocksOfAWholeAnswer) {
  const auto writer = Ask(R"(,"thinking":{"type":"adaptive"})" + std::string(kTools));
  for (const char* token : {"hm", "</think>", "<call>", "<call>"}) {
    engine_.Token(0, 0, token);
  }
  engine_.Finish(0, 4);
  writer->Run();
  const json body = json::parse(writer->answer->body);
  const json& content = body["content"];
  ASSERT_EQ(content.size(), 3u);
  EXPECT_EQ(content[0]["thinking"], "hm");
  EXPECT_EQ(content[0]["signature"], body["id"]);
  EXPECT_EQ(content[1]["type"], "tool_use");
  EXPECT_NE(content[1]["id"], content[2]["id"]);
  EXPECT_EQ(body["stop_reason"], "tool_use");
  EXPECT_EQ(body["usage"]["output_tokens_details"]["thinking_tokens"], 3);
}

TEST_F(Messages, StopReasonsAreAnthropics) {
  const auto limit = Ask();
  engine_.Token(0, 0, "x");
  engine_.Finish(0, 1, FinishReason::kLength);
  limit->Run();
  EXPECT_EQ(json::parse(limit->answer->body)["stop_reason"], "max_tokens");
  const auto stop = Ask(R"(,"stop_sequences":["END","b"])");
  EXPECT_THAT(engine_.submitted(1).request.stop_strings(),
              testing::ElementsAre("END", "b"));
  ChoiceFinished finished;
  finished.stop_string = "END";
  engine_.submitted(1).sink->OnChoiceFinished(finished);
  engine_.submitted(1).sink->OnDone({8, 0, 1});
  stop->Run();
  const json body = json::parse(stop->answer->body);
  EXPECT_EQ(body["content"], json::array());
  EXPECT_EQ(body["stop_reason"], "stop_sequence");
  EXPECT_EQ(body["stop_sequence"], "END");
}

TEST_F(Messages, SystemIsTextOrBlocks) {
  Ask(R"(,"system":"be")");
  Ask(R"(,"system":[{"type":"text","text":"be","cache_control":{"type":"ephemeral"}},)"
      R"({"type":"text","text":"kind"}])");
  Ask(R"(,"system":"be")" + std::string(kTools));
  EXPECT_EQ(Prompt(0), "system=be;user=hi;");
  EXPECT_EQ(Prompt(1), "system=be\n\nkind;user=hi;");
  EXPECT_EQ(Prompt(2), "system=be[tools];user=hi;");
}

TEST_F(Messages, BlocksBecomeMessagesInTheirOrder) {
  Converse(R"([{"role":"user","content":[{"type":"text","text":"a"},)"
           R"({"type":"text","text":"b"}]},)"
           R"({"role":"assistant","content":[{"type":"thinking","thinking":"t",)"
           R"("signature":"s"},{"type":"text","text":"c"},)"
           R"({"type":"tool_use","id":"1","name":"f","input":{"x":1}}]},)"
           R"({"role":"user","content":[{"type":"tool_result","tool_use_id":"1",)"
           R"("content":[{"type":"text","text":"r"}]},{"type":"text","text":"d"}]}])");
  EXPECT_EQ(Prompt(0), "user=a\n\nb;assistant=c;tool=r;user=d;");
}

TEST_F(Messages, AnAnswerThatTheClientBeganIsContinued) {
  Converse(R"([{"role":"user","content":"hi"},{"role":"assistant","content":"we"}])");
  EXPECT_EQ(Prompt(0), "user=hi;assistant=we");
}

TEST_F(Messages, OnlyThinkingSwitchesThinking) {
  Ask(R"(,"output_config":{"effort":"max"})");
  Ask(R"(,"output_config":{"effort":"max"},"thinking":{"type":"enabled"})");
  Ask(R"(,"thinking":{"type":"disabled"})");
  EXPECT_EQ(Prompt(0), "user=hi;");
  EXPECT_EQ(Prompt(1), "user=hi;[think max]");
  EXPECT_EQ(Prompt(2), "user=hi;");
}

TEST_F(Messages, ToolsReachThePromptUnlessTheChoiceIsNone) {
  Ask(kTools + std::string(R"(,"tool_choice":{"type":"auto"})"));
  Ask(kTools + std::string(R"(,"tool_choice":{"type":"none"})"));
  EXPECT_EQ(Prompt(0), "system=[tools];user=hi;");
  EXPECT_EQ(Prompt(1), "user=hi;");
}

TEST_F(Messages, SamplingFieldsReachTheEngineAndADeadlineIsATimeout) {
  const auto writer = Ask(R"(,"metadata":{"user_id":"u"},"top_k":3,"temperature":0.5)");
  EXPECT_EQ(engine_.submitted(0).request.sampling(0).top_k, 3);
  EXPECT_EQ(engine_.submitted(0).request.sampling(0).temperature, 0.5f);
  engine_.submitted(0).sink->OnError(absl::DeadlineExceededError("x"));
  writer->Run();
  EXPECT_EQ(writer->answer->status, 504);
  EXPECT_EQ(json::parse(writer->answer->body)["error"]["type"], "timeout_error");
}

TEST(AnthropicAnswer, TheInputOfACallStaysInTheModelsWords) {
  AnthropicAnswer answer({"msg_1", "demo", "req-1", 3});
  TurnBlock text;
  text.text = "so";
  TurnBlock call;
  call.kind = TurnBlock::Kind::kCall;
  call.call = {"toolu_1", "f", R"({"z": 1.0, "a": {"y": 2, "b": []}})"};
  const std::string body = answer.Whole({text, call}, {}).body;
  EXPECT_THAT(body, testing::HasSubstr("\"input\":" + call.call.arguments + "}"));
  const json content = json::parse(body)["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0]["text"], "so");
  EXPECT_EQ(content[1]["input"], json::parse(call.call.arguments));
}

TEST_F(Messages, CallsAndSchemasReachTheEncodingAsTheyAreWritten) {
  const std::string input = R"({"z": 1.0, "a": [2, {"y": 1, "b": 0}]})";
  const std::string body =
      R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[)"
      R"({"type":"tool_use","input":)" +
      input + R"(,"id":"1","name":"f"}]},{"role":"user","content":[)" +
      R"({"type":"tool_result","tool_use_id":"1","content":"r"}]}],)"
      R"("tools":[{"name":"f","input_schema":)" +
      input + "}]}";
  ChatConversation conversation;
  const auto refused = ReadAnthropicConversation(service_->context(), json::parse(body),
                                                 body, &conversation);
  ASSERT_FALSE(refused.has_value()) << refused->message;
  EXPECT_THAT(conversation.messages[0].tools_json, testing::HasSubstr(input));
  EXPECT_EQ(conversation.messages[2].tool_calls[0].arguments, input);
}

TEST(AnthropicAnswer, ACallThatTheLimitCutOffKeepsItsText) {
  AnthropicAnswer answer({"msg_1", "demo", "req-1", 3});
  TurnBlock call;
  call.kind = TurnBlock::Kind::kCall;
  call.call = {"toolu_1", "f", R"({"x": "unfin)"};
  TurnEnd end;
  end.finished.reason = FinishReason::kLength;
  const json body = json::parse(answer.Whole({call}, end).body);
  EXPECT_EQ(body["content"][0]["input"], json({{"INVALID_JSON", R"({"x": "unfin)"}}));
  EXPECT_EQ(body["stop_reason"], "max_tokens");
}

TEST_F(Messages, CountTokensCountsThePromptOfTheSameMessage) {
  const std::string fields = std::string(kHi) + R"(,"system":"be")" + kTools;
  Post(kRoute, R"({"max_tokens":9,)" + fields + "}");
  for (const char* path :
       {"/v1/messages/count_tokens?beta=true", "/anthropic/v1/messages/count_tokens"}) {
    const auto counted = Post(path, "{" + fields + "}");
    EXPECT_EQ(json::parse(counted->answer->body),
              json({{"input_tokens", engine_.submitted(0).request.prompt_ids().size()}}));
  }
  EXPECT_EQ(engine_.num_submitted(), 1u);
}

TEST_F(Messages, AnErrorInAStreamIsAnEventAndClosesTheConnection) {
  const auto writer = Ask(R"(,"stream":true)");
  engine_.Token(0, 0, "x");
  engine_.submitted(0).sink->OnError(absl::UnavailableError("rank 1 secret"));
  writer->Run();
  const auto events = Events(*writer);
  EXPECT_EQ(events.back()["type"], "error");
  EXPECT_EQ(events.back()["error"]["type"], "api_error");
  EXPECT_EQ(events.back()["request_id"],
            FindHeader(writer->stream->headers, "request-id"));
  EXPECT_EQ(events.back().dump().find("secret"), std::string::npos);
  EXPECT_EQ(writer->finished, true);
}

TEST_F(Messages, AFullQueueIsOverloaded) {
  engine_.Refuse(absl::ResourceExhaustedError("full"));
  const auto writer = Ask(R"(,"stream":true)");
  EXPECT_EQ(writer->answer->status, 529);
  EXPECT_EQ(json::parse(writer->answer->body)["error"]["type"], "overloaded_error");
  EXPECT_EQ(FindHeader(writer->answer->headers, "retry-after"), "3");
  EXPECT_EQ(FindHeader(writer->answer->headers, "x-should-retry"), "true");
}

TEST_F(Messages, ErrorsBeforeTheRouteHaveAnthropicsShapeToo) {
  auto options = tessera::tests::SmallApiOptions();
  options.access.keys = tests::PlainKeys({"key"});
  Build(options);
  const auto denied = Ask();
  EXPECT_EQ(denied->answer->status, 401);
  EXPECT_EQ(json::parse(denied->answer->body)["error"]["type"], "authentication_error");
  const auto lost = Send("GET", "/v1/nowhere", "", {{"anthropic-version", "2023-06-01"}});
  const json body = json::parse(lost->answer->body);
  EXPECT_EQ(body["type"], "error");
  EXPECT_EQ(body["error"]["type"], "not_found_error");
  EXPECT_EQ(body["request_id"], FindHeader(lost->answer->headers, "request-id"));
  EXPECT_FALSE(json::parse(Get("/v1/nowhere").body).contains("type"));
  service_->SetDraining();
  const auto late = Send("POST", kRoute, "{}", {{"x-api-key", "key"}});
  EXPECT_EQ(late->answer->status, 503);
  EXPECT_EQ(json::parse(late->answer->body)["type"], "error");
}

TEST_F(Messages, ModelsLookAsTheClientOfEachDialectWantsThem) {
  const HttpHeaders anthropic = {{"anthropic-version", "2023-06-01"}};
  const json list = json::parse(Send("GET", "/v1/models", "", anthropic)->answer->body);
  EXPECT_EQ(list["data"][1]["id"], "alias");
  EXPECT_EQ(list["data"][0]["type"], "model");
  EXPECT_EQ(list["data"][0]["created_at"], "1970-01-01T00:00:00Z");
  EXPECT_EQ(list["has_more"], false);
  EXPECT_EQ(list["last_id"], "alias");
  const auto none = Send("GET", "/v1/models/none", "", anthropic);
  EXPECT_EQ(none->answer->status, 404);
  EXPECT_EQ(json::parse(none->answer->body)["error"]["type"], "not_found_error");
  EXPECT_EQ(json::parse(Get("/v1/models").body)["object"], "list");
}

struct BadBody {
  const char* name;
  std::string body;   // without the braces
  std::string field;  // that the message names
  int status = 400;
};

void PrintTo(const BadBody& row, std::ostream* out) { *out << row.name; }

class BadMessages : public tessera::tests::ApiFixture,
                    public testing::WithParamInterface<BadBody> {};

TEST_P(BadMessages, AreRefusedWithTheField) {
  const auto writer = Post(kRoute, "{" + GetParam().body + "}");
  ASSERT_TRUE(writer->answer.has_value());
  EXPECT_EQ(writer->answer->status, GetParam().status) << writer->answer->body;
  const json body = json::parse(writer->answer->body);
  EXPECT_EQ(body["type"], "error");
  EXPECT_EQ(body["error"]["type"],
            GetParam().status == 404 ? "not_found_error" : "invalid_request_error");
  EXPECT_THAT(body["error"]["message"].get<std::string>(),
              testing::StartsWith(GetParam().field));
  EXPECT_EQ(body["request_id"], FindHeader(writer->answer->headers, "request-id"));
  EXPECT_EQ(engine_.num_submitted(), 0u);
}

std::string Fields(const std::string& rest) {
  return std::string(R"("max_tokens":9,)") + kHi + "," + rest;
}

std::string UserBlock(const std::string& block) {
  return R"("max_tokens":9,"messages":[{"role":"user","content":[)" + block + "]}]";
}

std::string AssistantBlock(const std::string& block) {
  return R"("max_tokens":9,"messages":[{"role":"user","content":"a"},)"
         R"({"role":"assistant","content":[)" +
         block + "]}]";
}

INSTANTIATE_TEST_SUITE_P(
    Bodies, BadMessages,
    testing::Values(
        BadBody{"no_max_tokens", kHi, "max_tokens"},
        BadBody{"zero_max_tokens", std::string(R"("max_tokens":0,)") + kHi, "max_tokens"},
        BadBody{"over_context", std::string(R"("max_tokens":99,)") + kHi, "max_tokens"},
        BadBody{"no_messages", R"("max_tokens":9)", "messages"},
        BadBody{"empty_messages", R"("max_tokens":9,"messages":[])", "messages"},
        BadBody{"many_messages", R"("max_tokens":9,"messages":[{},{},{},{},{}])",
                "messages: 5 messages"},
        BadBody{"message_type", R"("max_tokens":9,"messages":[1])", "messages[0]"},
        BadBody{"system_role",
                R"("max_tokens":9,"messages":[{"role":"system","content":"x"}])",
                "messages[0].role"},
        BadBody{"no_content", R"("max_tokens":9,"messages":[{"role":"user"}])",
                "messages[0].content"},
        BadBody{"long_text",
                R"("max_tokens":9,"messages":[{"role":"user","content":")" +
                    std::string(1 << 16, 'a') + "\"}]",
                "messages"},
        BadBody{"unknown_model", Fields(R"("model":"no-such-model")"), "model", 404},
        BadBody{"system_type", Fields(R"("system":5)"), "system"},
        BadBody{"system_block", Fields(R"("system":[{"type":"image"}])"), "system[0]"},
        BadBody{"stops", Fields(R"("stop_sequences":"x")"), "stop_sequences"},
        BadBody{"stop", Fields(R"("stop_sequences":[1])"), "stop_sequences"},
        BadBody{"empty_stop", Fields(R"("stop_sequences":[""])"), "stop_sequences"},
        BadBody{"metadata", Fields(R"("metadata":1)"), "metadata"},
        BadBody{"temperature", Fields(R"("temperature":9)"), "temperature"},
        BadBody{"thinking", Fields(R"("thinking":{"type":"on"})"), "thinking.type"},
        BadBody{"budget", Fields(R"("thinking":{"type":"enabled","budget_tokens":0})"),
                "thinking.budget_tokens"},
        BadBody{"effort", Fields(R"("output_config":{"effort":"huge"})"),
                "output_config.effort"},
        BadBody{"format", Fields(R"("output_config":{"format":{"type":"json_schema"}})"),
                "output_config.format.schema"},
        BadBody{"any", Fields(R"("tool_choice":{"type":"any"})"), "tool_choice"},
        BadBody{"named", Fields(R"("tool_choice":{"type":"tool","name":"f"})"),
                "tool_choice"},
        BadBody{"choice", Fields(R"("tool_choice":{"type":"maybe"})"),
                "tool_choice.type"},
        BadBody{"server_tool",
                Fields(R"("tools":[{"type":"web_search_20250305","name":"web"}])"),
                "tools[0].type"},
        BadBody{"tool_name", Fields(R"("tools":[{"name":"a b"}])"), "tools[0].name"},
        BadBody{"tool_schema", Fields(R"("tools":[{"name":"a","input_schema":1}])"),
                "tools[0].input_schema"},
        BadBody{"three_tools", Fields(R"("tools":[{},{},{}])"), "tools: 3 tools"},
        BadBody{"image", UserBlock(R"({"type":"image","source":{}})"),
                "messages[0].content[0]"},
        BadBody{"block_type", UserBlock("5"), "messages[0].content[0]"},
        BadBody{"user_tool_use", UserBlock(R"({"type":"tool_use"})"),
                "messages[0].content[0]"},
        BadBody{"no_text", UserBlock(R"({"type":"text"})"),
                "messages[0].content[0].text"},
        BadBody{"result_id", UserBlock(R"({"type":"tool_result"})"),
                "messages[0].content[0].tool_use_id"},
        BadBody{"result_image",
                UserBlock(R"({"type":"tool_result","tool_use_id":"1",)"
                          R"("content":[{"type":"image"}]})"),
                "messages[0].content[0].content[0]"},
        BadBody{"redacted", AssistantBlock(R"({"type":"redacted_thinking","data":"x"})"),
                "messages[1].content[0]"},
        BadBody{"no_input", AssistantBlock(R"({"type":"tool_use","id":"1","name":"f"})"),
                "messages[1].content[0].input"},
        BadBody{"open_call",
                AssistantBlock(R"({"type":"tool_use","id":"1","name":"f","input":{}})"),
                "messages: a tool_use"}),
    [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace tessera::coordinator
