#include "coordinator/api/responses/responses_api.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/testing/api_fixture.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

constexpr char kRoute[] = "/v1/responses";
constexpr char kTools[] =
    R"(,"tools":[{"type":"function","name":"get_time","parameters":{},"strict":false}])";

class Responses : public tessera::tests::ApiFixture {
 protected:
  // The input "hi" and `rest`.
  std::shared_ptr<tessera::tests::MemoryWriter> Ask(const std::string& rest = "") {
    return Post(kRoute, R"({"input":"hi")" + rest + "}");
  }

  std::string Prompt(size_t index) {
    return *tokenizer_.Decode(engine_.submitted(index).request.prompt_ids(), false);
  }

  // Ends submission `index` after `tokens`.
  json Play(tessera::tests::MemoryWriter* writer, size_t index,
            const std::vector<const char*>& tokens,
            FinishReason reason = FinishReason::kStop) {
    for (const char* token : tokens) {
      engine_.Token(index, 0, token);
    }
    engine_.Finish(index, static_cast<int64_t>(tokens.size()), reason);
    writer->Run();
    return writer->answer.has_value() ? json::parse(writer->answer->body) : json();
  }
};

TEST_F(Responses, AWholeAnswerIsAResponseObject) {
  const auto writer =
      Ask(R"(,"instructions":"be","max_output_tokens":5,"temperature":0.5,"store":true,)"
          R"("metadata":{"a":"b"})");
  EXPECT_EQ(Prompt(0), "system=be;user=hi;");
  EXPECT_EQ(engine_.submitted(0).request.max_tokens(), 5);
  const json body = Play(writer.get(), 0, {"ye", "s"});
  EXPECT_THAT(body["id"].get<std::string>(), testing::StartsWith("resp_"));
  EXPECT_EQ(body["id"], engine_.submitted(0).request.request_id());
  EXPECT_EQ(body["object"], "response");
  EXPECT_EQ(body["status"], "completed");
  EXPECT_EQ(body["created_at"], 1000);
  EXPECT_EQ(body["model"], "demo");
  EXPECT_EQ(body["instructions"], "be");
  EXPECT_EQ(body["max_output_tokens"], 5);
  EXPECT_EQ(body["temperature"], 0.5);
  EXPECT_EQ(body["metadata"], json({{"a", "b"}}));
  EXPECT_EQ(body["store"], false) << "nothing is stored, whatever was asked";
  EXPECT_EQ(body["error"], nullptr);
  ASSERT_EQ(body["output"].size(), 1u);
  const json& item = body["output"][0];
  EXPECT_EQ(item["type"], "message");
  EXPECT_EQ(item["role"], "assistant");
  EXPECT_EQ(item["status"], "completed");
  EXPECT_EQ(item["content"], json::parse(R"([{"type":"output_text","text":"yes",
      "annotations":[],"logprobs":[]}])"));
  EXPECT_EQ(body["usage"], json::parse(R"({"input_tokens":18,
      "input_tokens_details":{"cached_tokens":2,"host_cached_tokens":1,
                              "disk_cached_tokens":1,
                              "cache_write_tokens":0},
      "output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},
      "total_tokens":20})"));
}

TEST_F(Responses, AStreamIsNumberedEventsOfEachItem) {
  const auto writer =
      Ask(R"(,"stream":true,"reasoning":{"effort":"max"})" + std::string(kTools));
  EXPECT_EQ(Prompt(0), "system=[tools];user=hi;[think max]");
  Play(writer.get(), 0, {"hm", "</think>", "ye", "s", "<call>"});
  EXPECT_EQ(writer->finished, false);
  const auto events = Events(*writer);
  std::vector<std::string> types;
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i]["sequence_number"], i);
    types.push_back(events[i]["type"].get<std::string>().substr(9));  // "response."
  }
  EXPECT_THAT(types,
              testing::ElementsAre(
                  "created", "in_progress", "output_item.added", "content_part.added",
                  "reasoning_text.delta", "reasoning_text.done", "content_part.done",
                  "output_item.done", "output_item.added", "content_part.added",
                  "output_text.delta", "output_text.delta", "output_text.done",
                  "content_part.done", "output_item.done", "output_item.added",
                  "function_call_arguments.delta", "function_call_arguments.done",
                  "output_item.done", "completed"));
  EXPECT_EQ(events[0]["response"]["status"], "in_progress");
  EXPECT_EQ(events[0]["response"]["output"], json::array());
  EXPECT_EQ(events[2]["item"]["type"], "reasoning");
  EXPECT_EQ(events[2]["item"]["content"], json::array());
  EXPECT_EQ(events[4]["delta"], "hm");
  EXPECT_EQ(events[8]["output_index"], 1);
  EXPECT_EQ(events[10]["item_id"], events[8]["item"]["id"]);
  EXPECT_EQ(events[10]["content_index"], 0);
  EXPECT_EQ(events[10]["logprobs"], json::array());
  EXPECT_EQ(events[12]["text"], "yes");
  EXPECT_EQ(events[14]["item"]["content"][0]["text"], "yes");
  EXPECT_EQ(events[15]["item"]["arguments"], "");
  EXPECT_EQ(events[15]["item"]["status"], "in_progress");
  EXPECT_EQ(events[16]["delta"], "{}");
  EXPECT_FALSE(events[16].contains("content_index"));
  EXPECT_EQ(events[17]["arguments"], "{}");
  const json& response = events[19]["response"];
  EXPECT_EQ(response["id"], events[0]["response"]["id"]);
  ASSERT_EQ(response["output"].size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(response["output"][i], events[i == 0 ? 7 : i == 1 ? 14 : 18]["item"]);
  }
  EXPECT_THAT(response["output"][2]["id"].get<std::string>(), testing::StartsWith("fc_"));
  EXPECT_THAT(response["output"][2]["call_id"].get<std::string>(),
              testing::StartsWith("call_"));
  EXPECT_EQ(response["usage"]["output_tokens_details"]["reasoning_tokens"], 3);
}

TEST_F(Responses, LogprobsAreOfTheTokensOfTheText) {
  const std::string include = R"("include":["message.output_text.logprobs"])";
  const auto writer = Post(kRoute, R"({"input":"hi","reasoning":{"effort":"high"},)" +
                                       include + R"(,"top_logprobs":2,"stream":true})");
  EXPECT_EQ(engine_.submitted(0).request.sampling(0).num_logprobs, 2);
  int32_t position = 0;
  for (const char* token : {"hm", "</think>", "a", "", "b", "<call>"}) {
    engine_.Token(0, position++, token);
  }
  engine_.Finish(0, 6);
  writer->Run();
  std::vector<size_t> sizes;
  for (const json& event : Events(*writer)) {
    if (event["type"] == "response.output_text.delta") {
      sizes.push_back(event["logprobs"].size());
    } else if (event["type"] == "response.output_text.done") {
      sizes.push_back(event["logprobs"].size());
    } else if (event["type"] == "response.completed") {
      const json& response = event["response"];
      EXPECT_EQ(response["top_logprobs"], 2);
      const json& part = response["output"][1]["content"][0];
      EXPECT_EQ(part["text"], "ab");
      ASSERT_EQ(part["logprobs"].size(), sizes.back());
      EXPECT_EQ(part["logprobs"].back()["token"], "b");
      EXPECT_EQ(part["logprobs"].back()["logprob"], -0.5);
    }
  }
  // The second text brings the token before it, which had none of its own.
  EXPECT_THAT(sizes, testing::ElementsAre(1, 2, 3));
}

TEST_F(Responses, TheTokenLimitMakesAResponseIncomplete) {
  for (const bool stream : {false, true}) {
    const size_t index = engine_.num_submitted();
    const auto writer = Ask(stream ? R"(,"stream":true)" : "");
    json body = Play(writer.get(), index, {"x"}, FinishReason::kLength);
    if (stream) {
      const json last = Events(*writer).back();
      EXPECT_EQ(last["type"], "response.incomplete");
      body = last["response"];
    }
    EXPECT_EQ(body["status"], "incomplete");
    EXPECT_EQ(body["incomplete_details"], json({{"reason", "max_output_tokens"}}));
    EXPECT_EQ(body["output"][0]["status"], "incomplete");
  }
}

TEST_F(Responses, ABrokenStreamEndsWithAFailedResponse) {
  const auto writer = Ask(R"(,"stream":true)");
  engine_.Token(0, 0, "x");
  engine_.submitted(0).sink->OnError(absl::UnavailableError("rank 1 secret"));
  writer->Run();
  const json last = Events(*writer).back();
  EXPECT_EQ(last["type"], "response.failed");
  EXPECT_EQ(last["response"]["status"], "failed");
  EXPECT_EQ(last["response"]["error"]["code"], "server_error");
  EXPECT_EQ(last["response"]["output"][0]["content"][0]["text"], "x");
  EXPECT_EQ(last.dump().find("secret"), std::string::npos);
  EXPECT_EQ(writer->finished, true);
}

TEST_F(Responses, ErrorsBeforeTheAnswerAreOpenAis) {
  engine_.Refuse(absl::ResourceExhaustedError("full"));
  const auto full = Ask();
  EXPECT_EQ(full->answer->status, 429);
  EXPECT_EQ(json::parse(full->answer->body)["error"]["code"], "overloaded");
  service_->SetDraining();
  EXPECT_EQ(Ask()->answer->status, 503);
}

TEST_F(Responses, ItemsOfOneTurnAreOneMessage) {
  Post(kRoute, R"({"input":[{"role":"user","content":[{"type":"input_text","text":"a"},)"
               R"({"type":"input_text","text":"b"}]},)"
               R"({"type":"reasoning","id":"rs","summary":[],"content":)"
               R"([{"type":"reasoning_text","text":"t"}]},)"
               R"({"type":"message","role":"assistant","id":"msg","status":"completed",)"
               R"("content":[{"type":"output_text","text":"c","annotations":[]}]},)"
               R"({"type":"function_call","call_id":"1","name":"f","arguments":"{}"}]})");
  Post(kRoute, R"({"input":[{"role":"developer","content":"d"},)"
               R"({"type":"function_call","call_id":"1","name":"f","arguments":"{}"},)"
               R"({"type":"function_call_output","call_id":"1","output":"r"},)"
               R"({"role":"assistant","content":"e"}]})");
  EXPECT_EQ(Prompt(0), "user=a\n\nb;assistant=c;");
  EXPECT_EQ(Prompt(1), "system=d;assistant=;tool=r;assistant=e;");
}

TEST_F(Responses, AnAnswerSentBackIsTheSameTurn) {
  auto options = tessera::tests::SmallApiOptions();
  options.max_messages = 9;
  Build(options);
  const auto writer = Ask(R"(,"reasoning":{"effort":"high"})" + std::string(kTools));
  const json answer = Play(writer.get(), 0, {"hm", "</think>", "yes", "<call>"});
  json input = {{{"role", "user"}, {"content", "hi"}}};
  for (const json& item : answer["output"]) {
    input.push_back(item);
  }
  input.push_back({{"type", "function_call_output"},
                   {"call_id", answer["output"][2]["call_id"]},
                   {"output", "12"}});
  Post(kRoute, json({{"input", input}}).dump());
  EXPECT_EQ(Prompt(1), "user=hi;assistant=yes;tool=12;");
}

TEST_F(Responses, EffortSwitchesThinking) {
  Ask(R"(,"reasoning":{"effort":"none"})");
  Ask(R"(,"reasoning":{"effort":"low","summary":"auto"})");
  Ask(R"(,"reasoning":{"effort":null})");
  EXPECT_EQ(Prompt(0), "user=hi;");
  EXPECT_EQ(Prompt(1), "user=hi;[think]");
  EXPECT_EQ(Prompt(2), "user=hi;");
}

TEST_F(Responses, ToolsReachThePromptUnlessTheChoiceIsNone) {
  Ask(kTools + std::string(R"(,"tool_choice":"auto")"));
  Ask(kTools + std::string(R"(,"tool_choice":"none")"));
  EXPECT_EQ(Prompt(0), "system=[tools];user=hi;");
  EXPECT_EQ(Prompt(1), "user=hi;");
}

struct BadBody {
  const char* name;
  std::string body;  // without the braces
  const char* param;
  const char* code = "";
};

void PrintTo(const BadBody& row, std::ostream* out) { *out << row.name; }

class BadResponses : public tessera::tests::ApiFixture,
                     public testing::WithParamInterface<BadBody> {};

TEST_F(Responses, AResponseBeforeIsNeverFound) {
  const auto writer = Post(kRoute, R"({"input":"hi","previous_response_id":"resp_1"})");
  ASSERT_TRUE(writer->answer.has_value());
  EXPECT_EQ(writer->answer->status, 404);
  const json error = json::parse(writer->answer->body)["error"];
  EXPECT_EQ(error["param"], "previous_response_id");
  EXPECT_EQ(error["code"], "previous_response_not_found");
  EXPECT_EQ(engine_.num_submitted(), 0u);
}

TEST_P(BadResponses, AreRefusedWithTheField) {
  const auto writer = Post(kRoute, "{" + GetParam().body + "}");
  ASSERT_TRUE(writer->answer.has_value());
  EXPECT_EQ(writer->answer->status, 400) << writer->answer->body;
  const json error = json::parse(writer->answer->body)["error"];
  EXPECT_EQ(error["param"], GetParam().param);
  EXPECT_EQ(error["code"].is_null() ? "" : error["code"].get<std::string>(),
            GetParam().code);
  EXPECT_EQ(engine_.num_submitted(), 0u);
}

std::string Hi(const std::string& rest) { return R"("input":"hi",)" + rest; }

constexpr char kUnsupported[] = "unsupported_parameter";

INSTANTIATE_TEST_SUITE_P(
    Fields, BadResponses,
    testing::Values(
        BadBody{"conversation", Hi(R"("conversation":"c")"), "conversation",
                kUnsupported},
        BadBody{"prompt", Hi(R"("prompt":{"id":"p"})"), "prompt", kUnsupported},
        BadBody{"background", Hi(R"("background":true)"), "background", kUnsupported},
        BadBody{"truncation", Hi(R"("truncation":"auto")"), "truncation", kUnsupported},
        BadBody{"format", Hi(R"("text":{"format":{"type":"json_schema"}})"),
                "text.format.schema"},
        BadBody{"text_type", Hi(R"("text":"x")"), "text"},
        BadBody{"prompt_logprobs", Hi(R"("prompt_logprobs":1)"), "prompt_logprobs",
                kUnsupported},
        BadBody{"top_logprobs", Hi(R"("top_logprobs":21)"), "top_logprobs"},
        BadBody{"metadata", Hi(R"("metadata":[])"), "metadata"},
        BadBody{"max_output_tokens", Hi(R"("max_output_tokens":0)"), "max_output_tokens"},
        BadBody{"over_context", Hi(R"("max_output_tokens":99)"), "max_output_tokens",
                "context_length_exceeded"},
        BadBody{"instructions", Hi(R"("instructions":["x"])"), "instructions"},
        BadBody{"effort", Hi(R"("reasoning":{"effort":"huge"})"), "reasoning.effort"},
        BadBody{"reasoning", Hi(R"("reasoning":"high")"), "reasoning"},
        BadBody{"required", Hi(R"("tool_choice":"required")"), "tool_choice"},
        BadBody{"named", Hi(R"("tool_choice":{"type":"function","name":"f"})"),
                "tool_choice"},
        BadBody{"web_search", Hi(R"("tools":[{"type":"web_search"}])"), "tools[0].type",
                kUnsupported},
        BadBody{"untyped_tool", Hi(R"("tools":[{"name":"f"}])"), "tools[0].type"},
        BadBody{"tool_name", Hi(R"("tools":[{"type":"function","name":"a b"}])"),
                "tools[0].name"},
        BadBody{"tool_schema",
                Hi(R"("tools":[{"type":"function","name":"f","parameters":1}])"),
                "tools[0].parameters"}),
    [](const auto& row) { return row.param.name; });

std::string Item(const std::string& item) { return R"("input":[)" + item + "]"; }

INSTANTIATE_TEST_SUITE_P(
    Items, BadResponses,
    testing::Values(
        BadBody{"missing", R"("model":"demo")", "input"},
        BadBody{"empty", R"("input":[])", "input"},
        BadBody{"number", R"("input":5)", "input"},
        BadBody{"five", Item("{},{},{},{},{}"), "input"},
        BadBody{"long_text", R"("input":")" + std::string(1 << 16, 'a') + "\"", "input",
                "context_length_exceeded"},
        BadBody{"item", Item("5"), "input[0]"},
        BadBody{"no_role", Item("{}"), "input[0].role"},
        BadBody{"role", Item(R"({"role":"root","content":"x"})"), "input[0].role"},
        BadBody{"no_content", Item(R"({"role":"user"})"), "input[0].content"},
        BadBody{"image", Item(R"({"role":"user","content":[{"type":"input_image"}]})"),
                "input[0].content[0]", kUnsupported},
        BadBody{"part", Item(R"({"role":"user","content":[{"type":"input_text"}]})"),
                "input[0].content[0]"},
        BadBody{"reference", Item(R"({"type":"item_reference","id":"x"})"),
                "input[0].type", kUnsupported},
        BadBody{"call_id", Item(R"({"type":"function_call","name":"f"})"),
                "input[0].call_id"},
        BadBody{"output", Item(R"({"type":"function_call_output","call_id":"1"})"),
                "input[0].output"}),
    [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace tessera::coordinator
