// Everything that a client can get wrong on the two generating routes, as a table: each
// row must be answered with the status, the field and the code of its line, and must
// never reach the engine.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/testing/api_fixture.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

struct BadBody {
  const char* name;
  std::string body;
  int status = 400;
  const char* param = "";
  const char* code = "";
};

void PrintTo(const BadBody& row, std::ostream* out) { *out << row.name; }

class BadBodies : public tessera::tests::ApiFixture,
                  public testing::WithParamInterface<BadBody> {
 protected:
  void Expect(const std::string& route, const std::string& body) {
    const auto writer = Post(route, body);
    ASSERT_TRUE(writer->answer.has_value()) << "no answer, or a stream";
    EXPECT_EQ(writer->answer->status, GetParam().status) << writer->answer->body;
    const json error = json::parse(writer->answer->body)["error"];
    EXPECT_EQ(error["param"].is_null() ? "" : error["param"].get<std::string>(),
              GetParam().param);
    EXPECT_EQ(error["code"].is_null() ? "" : error["code"].get<std::string>(),
              GetParam().code);
    EXPECT_FALSE(error["message"].get<std::string>().empty());
    EXPECT_EQ(engine_.num_submitted(), 0u);
  }
};

using BadAnything = BadBodies;

// `body` is completed with a good prompt for either route.
TEST_P(BadAnything, IsRefusedByBothRoutes) {
  const std::string& body = GetParam().body;
  const bool whole = body.empty() || body[0] != '"';
  Expect("/v1/completions", whole ? body : R"({"prompt":"hi",)" + body + "}");
  Expect("/v1/chat/completions",
         whole ? body : R"({"messages":[{"role":"user","content":"hi"}],)" + body + "}");
}

std::string Nested(int depth) {
  return "\"x\":" + std::string(static_cast<size_t>(depth), '[') +
         std::string(static_cast<size_t>(depth), ']');
}

INSTANTIATE_TEST_SUITE_P(
    Bodies, BadAnything,
    testing::Values(BadBody{"empty", ""}, BadBody{"not_json", "{\"a\":"},
                    BadBody{"array", "[1]"}, BadBody{"number", "1"},
                    BadBody{"trailing_garbage", "{} x"},
                    BadBody{"bad_utf8", "{\"prompt\":\"\xC3\x28\"}"},
                    BadBody{"lone_surrogate", R"({"prompt":"\ud800"})"},
                    BadBody{"number_beyond_double", R"("temperature":1e999)"},
                    BadBody{"nan", R"("temperature":NaN)"},
                    BadBody{"depth_33", Nested(32)},
                    BadBody{"depth_100000", Nested(100000)},
                    BadBody{"unclosed_100000", std::string(100000, '[')}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Fields, BadAnything,
    testing::Values(
        BadBody{"unknown_model", R"("model":"gpt-9")", 404, "model", "model_not_found"},
        BadBody{"empty_model", R"("model":"")", 404, "model", "model_not_found"},
        BadBody{"model_type", R"("model":5)", 400, "model"},
        BadBody{"n_billion", R"("n":1000000000)", 400, "n"},
        BadBody{"n_1e18", R"("n":1e18)", 400, "n"},
        BadBody{"n_beyond_int64", R"("n":99999999999999999999)", 400, "n"},
        BadBody{"n_zero", R"("n":0)", 400, "n"},
        BadBody{"n_minus", R"("n":-1)", 400, "n"},
        BadBody{"n_string", R"("n":"2")", 400, "n"},
        BadBody{"n_fraction", R"("n":1.5)", 400, "n"},
        BadBody{"max_tokens_negative", R"("max_tokens":-1)", 400, "max_tokens"},
        BadBody{"max_tokens_type", R"("max_tokens":[])", 400, "max_tokens"},
        BadBody{"max_tokens_over", R"("max_tokens":100)", 400, "max_tokens",
                "context_length_exceeded"},
        BadBody{"min_tokens", R"("min_tokens":-1)", 400, "min_tokens"},
        BadBody{"temperature_low", R"("temperature":-1)", 400, "temperature"},
        BadBody{"temperature_high", R"("temperature":1e18)", 400, "temperature"},
        BadBody{"temperature_type", R"("temperature":"hot")", 400, "temperature"},
        BadBody{"temperature_bool", R"("temperature":true)", 400, "temperature"},
        BadBody{"top_p", R"("top_p":0)", 400, "top_p"},
        BadBody{"top_k", R"("top_k":-5)", 400, "top_k"},
        BadBody{"min_p", R"("min_p":2)", 400, "min_p"},
        BadBody{"repetition", R"("repetition_penalty":0)", 400, "repetition_penalty"},
        BadBody{"presence", R"("presence_penalty":3)", 400, "presence_penalty"},
        BadBody{"frequency", R"("frequency_penalty":-3)", 400, "frequency_penalty"},
        BadBody{"seed_type", R"("seed":"a")", 400, "seed"},
        BadBody{"stop_type", R"("stop":5)", 400, "stop"},
        BadBody{"stop_element", R"("stop":["a",5])", 400, "stop"},
        BadBody{"stop_empty", R"("stop":"")", 400, "stop"},
        BadBody{"stop_many",
                R"("stop":["1","2","3","4","5","6","7","8","9","10","11","12",)"
                R"("13","14","15","16","17"])",
                400, "stop"},
        BadBody{"stop_ids", R"("stop_token_ids":[-1])", 400, "stop_token_ids"},
        BadBody{"stop_ids_type", R"("stop_token_ids":["a"])", 400, "stop_token_ids"},
        BadBody{"bias_key", R"("logit_bias":{"x":1})", 400, "logit_bias"},
        BadBody{"bias_key_space", R"("logit_bias":{" 1":1})", 400, "logit_bias"},
        BadBody{"bias_value", R"("logit_bias":{"1":"x"})", 400, "logit_bias"},
        BadBody{"bias_range", R"("logit_bias":{"1":101})", 400, "logit_bias"},
        BadBody{"bias_id", R"("logit_bias":{"258":1})", 400, "logit_bias"},
        BadBody{"bias_type", R"("logit_bias":[])", 400, "logit_bias"},
        BadBody{"priority", R"("priority":1e15)", 400, "priority"}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Modes, BadAnything,
    testing::Values(
        BadBody{"stream_type", R"("stream":"yes")", 400, "stream"},
        BadBody{"stream_options", R"("stream_options":{})", 400, "stream_options"},
        BadBody{"include_usage", R"("stream":true,"stream_options":{"include_usage":1})",
                400, "stream_options.include_usage"},
        BadBody{"json_object", R"("response_format":{"type":"json_object"})", 400,
                "response_format", "unsupported_parameter"},
        BadBody{"json_schema", R"("response_format":{"type":"json_schema"})", 400,
                "response_format.json_schema.schema"},
        BadBody{"two_formats",
                R"("response_format":{"type":"json_object"},"guided_regex":"a")", 400,
                "guided_regex"},
        BadBody{"structured_type", R"("structured_outputs":3)", 400,
                "structured_outputs"},
        BadBody{"structured_key", R"("structured_outputs":{"xml":"a"})", 400,
                "structured_outputs.xml", "unsupported_parameter"},
        BadBody{"choice_type", R"("structured_outputs":{"choice":"a"})", 400,
                "structured_outputs.choice"},
        BadBody{"grammar_eos", R"("guided_regex":"a","ignore_eos":true)", 400,
                "ignore_eos"},
        BadBody{"grammar_min", R"("guided_regex":"a","min_tokens":2)", 400, "min_tokens"},
        BadBody{"format_type", R"("response_format":"text")", 400, "response_format"},
        BadBody{"format_unknown", R"("response_format":{"type":"xml"})", 400,
                "response_format"},
        BadBody{"guided", R"("guided_regex":"(a+)+b")", 400, "guided_regex",
                "unsupported_parameter"},
        BadBody{"prompt_logprobs", R"("prompt_logprobs":21)", 400, "prompt_logprobs"},
        BadBody{"prompt_logprobs_stream", R"("prompt_logprobs":1,"stream":true)", 400,
                "prompt_logprobs"},
        BadBody{"bad_words_text", R"("bad_words":"a")", 400, "bad_words"},
        BadBody{"bad_words_empty", R"("bad_words":[""])", 400, "bad_words"},
        BadBody{"allowed_none", R"("allowed_token_ids":[])", 400, "allowed_token_ids"},
        BadBody{"allowed_range", R"("allowed_token_ids":[1,100000])", 400,
                "allowed_token_ids"},
        BadBody{"chat_template", R"("chat_template":"{{ x }}")", 400, "chat_template",
                "unsupported_parameter"},
        BadBody{"cache_salt", "\"cache_salt\":\"" + std::string(129, 's') + "\"", 400,
                "cache_salt"}),
    [](const auto& row) { return row.param.name; });

using BadCompletions = BadBodies;

TEST_P(BadCompletions, IsRefused) { Expect("/v1/completions", GetParam().body); }

INSTANTIATE_TEST_SUITE_P(
    Prompts, BadCompletions,
    testing::Values(
        BadBody{"missing", "{}", 400, "prompt"},
        BadBody{"null", R"({"prompt":null})", 400, "prompt"},
        BadBody{"number", R"({"prompt":5})", 400, "prompt"},
        BadBody{"object", R"({"prompt":{}})", 400, "prompt"},
        BadBody{"empty_text", R"({"prompt":""})", 400, "prompt"},
        BadBody{"empty_list", R"({"prompt":[]})", 400, "prompt"},
        BadBody{"empty_ids", R"({"prompt":[[]]})", 400, "prompt"},
        BadBody{"mixed", R"({"prompt":[1,"a"]})", 400, "prompt"},
        BadBody{"mixed_lists", R"({"prompt":["a",5]})", 400, "prompt"},
        BadBody{"four_prompts", R"({"prompt":["a","b","c","d"]})", 400, "prompt"},
        BadBody{"second_too_long",
                "{\"prompt\":[\"a\",\"" + std::string(70, 'b') + "\"]}", 400, "prompt",
                "context_length_exceeded"},
        BadBody{"id_over_vocabulary", R"({"prompt":[258]})", 400, "prompt"},
        BadBody{"id_negative", R"({"prompt":[-1]})", 400, "prompt"},
        BadBody{"id_wraps_to_zero", R"({"prompt":[4294967296]})", 400, "prompt"},
        BadBody{"id_fraction", R"({"prompt":[1.5]})", 400, "prompt"},
        BadBody{"over_context", "{\"prompt\":\"" + std::string(64, 'a') + "\"}", 400,
                "prompt", "context_length_exceeded"},
        BadBody{"far_over_context", "{\"prompt\":\"" + std::string(1 << 20, 'a') + "\"}",
                400, "prompt", "context_length_exceeded"},
        BadBody{"logprobs_bool", R"({"prompt":"a","logprobs":true})", 400, "logprobs"},
        BadBody{"logprobs_129", R"({"prompt":"a","logprobs":129})", 400, "logprobs"},
        BadBody{"truncate_to_none", R"({"prompt":"a","truncate_prompt_tokens":0})", 400,
                "truncate_prompt_tokens"},
        BadBody{"truncate_to_more", R"({"prompt":"a","truncate_prompt_tokens":65})", 400,
                "truncate_prompt_tokens"},
        BadBody{"best_of_stream", R"({"prompt":"a","best_of":3,"stream":true})", 400,
                "best_of"},
        BadBody{"best_of_less", R"({"prompt":"a","best_of":1,"n":2})", 400, "best_of"},
        BadBody{"best_of_many", R"({"prompt":"a","best_of":99})", 400, "best_of"},
        BadBody{"suffix", R"({"prompt":"a","suffix":"b"})", 400, "suffix",
                "unsupported_parameter"},
        BadBody{"suffix_of_ids", R"({"prompt":[1],"suffix":"b"})", 400, "suffix"},
        BadBody{"suffix_echo", R"({"prompt":"a","suffix":"b","echo":true})", 400, "echo",
                "unsupported_parameter"}),
    [](const auto& row) { return row.param.name; });

using BadChats = BadBodies;

TEST_P(BadChats, IsRefused) { Expect("/v1/chat/completions", GetParam().body); }

std::string WithMessages(const std::string& messages, const std::string& rest = "") {
  return "{\"messages\":" + messages + rest + "}";
}

constexpr char kHi[] = R"([{"role":"user","content":"hi"}])";

INSTANTIATE_TEST_SUITE_P(
    Messages, BadChats,
    testing::Values(
        BadBody{"missing", "{}", 400, "messages"},
        BadBody{"empty", WithMessages("[]"), 400, "messages"},
        BadBody{"type", WithMessages("\"hi\""), 400, "messages"},
        BadBody{"element", WithMessages("[1]"), 400, "messages[0]"},
        BadBody{"no_role", WithMessages(R"([{"content":"x"}])"), 400, "messages[0].role"},
        BadBody{"role", WithMessages(R"([{"role":"root","content":"x"}])"), 400,
                "messages[0].role"},
        BadBody{"role_type", WithMessages(R"([{"role":1}])"), 400, "messages[0].role"},
        BadBody{"content_type", WithMessages(R"([{"role":"user","content":5}])"), 400,
                "messages[0].content"},
        BadBody{"part_type", WithMessages(R"([{"role":"user","content":[1]}])"), 400,
                "messages[0].content"},
        BadBody{"image",
                WithMessages(R"([{"role":"user","content":[{"type":"image_url"}]}])"),
                400, "messages[0].content", "unsupported_parameter"},
        BadBody{"video",
                WithMessages(R"([{"role":"user","content":[{"type":"video_url"}]}])"),
                400, "messages[0].content", "unsupported_parameter"},
        BadBody{"part_text",
                WithMessages(R"([{"role":"user","content":[{"type":"text","text":1}]}])"),
                400, "messages[0].content"},
        BadBody{"five",
                WithMessages(R"([{"role":"user"},{"role":"user"},{"role":"user"},)"
                             R"({"role":"user"},{"role":"user"}])"),
                400, "messages"},
        BadBody{"over_context",
                WithMessages("[{\"role\":\"user\",\"content\":\"" + std::string(64, 'a') +
                             "\"}]"),
                400, "messages", "context_length_exceeded"},
        BadBody{"far_over_context",
                WithMessages("[{\"role\":\"user\",\"content\":\"" +
                             std::string(1 << 20, 'a') + "\"}]"),
                400, "messages", "context_length_exceeded"},
        BadBody{"call_type",
                WithMessages(R"([{"role":"assistant","tool_calls":[{"id":"a"}]}])"), 400,
                "messages[0].tool_calls.function"},
        BadBody{"continue_user", WithMessages(kHi, R"(,"continue_final_message":true)"),
                400, "messages"}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Options, BadChats,
    testing::Values(
        BadBody{"effort_name", WithMessages(kHi, R"(,"reasoning_effort":"some")"), 400,
                "reasoning_effort"},
        BadBody{"effort_type", WithMessages(kHi, R"(,"reasoning_effort":[1])"), 400,
                "reasoning_effort"},
        BadBody{"effort_number", WithMessages(kHi, R"(,"reasoning_effort":50)"), 400,
                "reasoning_effort", "unsupported_parameter"},
        BadBody{"max_completion_tokens",
                WithMessages(kHi, R"(,"max_completion_tokens":0)"), 400,
                "max_completion_tokens"},
        BadBody{"logprobs_type", WithMessages(kHi, R"(,"logprobs":1)"), 400, "logprobs"},
        BadBody{"truncated", WithMessages(kHi, R"(,"truncate_prompt_tokens":5)"), 400,
                "truncate_prompt_tokens", "unsupported_parameter"},
        BadBody{"top_logprobs_alone", WithMessages(kHi, R"(,"top_logprobs":2)"), 400,
                "top_logprobs"},
        BadBody{"top_logprobs",
                WithMessages(kHi, R"(,"logprobs":true,"top_logprobs":21)"), 400,
                "top_logprobs"},
        BadBody{"tools_type", WithMessages(kHi, R"(,"tools":{})"), 400, "tools"},
        BadBody{"tool_shape", WithMessages(kHi, R"(,"tools":[{}])"), 400, "tools[0]"},
        BadBody{
            "tool_name",
            WithMessages(kHi,
                         R"(,"tools":[{"type":"function","function":{"name":"a b"}}])"),
            400, "tools[0].function.name"},
        BadBody{"three_tools", WithMessages(kHi, R"(,"tools":[{},{},{}])"), 400, "tools"},
        BadBody{"required", WithMessages(kHi, R"(,"tool_choice":"required")"), 400,
                "tool_choice"},
        BadBody{"named", WithMessages(kHi, R"(,"tool_choice":{"type":"function"})"), 400,
                "tool_choice"},
        BadBody{"choice", WithMessages(kHi, R"(,"tool_choice":"maybe")"), 400,
                "tool_choice"},
        BadBody{"thinking", WithMessages(kHi, R"(,"thinking":{"type":"on"})"), 400,
                "thinking.type"},
        BadBody{"thinking_type", WithMessages(kHi, R"(,"thinking":true)"), 400,
                "thinking"},
        BadBody{"effort", WithMessages(kHi, R"(,"reasoning_effort":"huge")"), 400,
                "reasoning_effort"},
        BadBody{"kwargs", WithMessages(kHi, R"(,"chat_template_kwargs":{"x":1})"), 400,
                "chat_template_kwargs", "unsupported_parameter"},
        BadBody{"kwargs_value",
                WithMessages(kHi, R"(,"chat_template_kwargs":{"thinking":"x"})"), 400,
                "chat_template_kwargs.thinking"}),
    [](const auto& row) { return row.param.name; });

using Api = tessera::tests::ApiFixture;

TEST_F(Api, CompressedBodiesAreRefused) {
  const auto writer =
      Send("POST", "/v1/completions", "x", {{"Content-Encoding", "gzip"}});
  EXPECT_EQ(writer->answer->status, 415);
}

TEST_F(Api, TimeoutHeaderIsChecked) {
  for (const char* bad : {"0", "-5", "soon", "1e3", "99999999999"}) {
    const auto writer = Send("POST", "/v1/completions", R"({"prompt":"a"})",
                             {{"x-request-timeout-ms", bad}});
    ASSERT_TRUE(writer->answer.has_value()) << bad;
    EXPECT_EQ(writer->answer->status, 400) << bad;
  }
  Send("POST", "/v1/completions", R"({"prompt":"a"})", {{"x-request-timeout-ms", "250"}});
  ASSERT_EQ(engine_.num_submitted(), 1u);
  EXPECT_EQ(engine_.submitted(0).request.deadline() - clock_.Now(),
            absl::Milliseconds(250));
}

TEST_F(Api, UnknownAndNullFieldsAreIgnored) {
  Post("/v1/completions", R"({"prompt":"a","model":null,"n":null,"stop":null,"user":"u",)"
                          R"("metadata":{"a":[1]},)"
                          R"("store":true,"prediction":{},"brand_new":{"x":1}})");
  EXPECT_EQ(engine_.num_submitted(), 1u);
}

TEST_F(Api, PublicErrorsNeverHoldTextOfTheEngine) {
  for (const auto code : {absl::StatusCode::kInternal, absl::StatusCode::kUnavailable,
                          absl::StatusCode::kAborted, absl::StatusCode::kDeadlineExceeded,
                          absl::StatusCode::kDataLoss}) {
    const size_t index = engine_.num_submitted();
    const auto writer = Post("/v1/completions", R"({"prompt":"a"})");
    engine_.submitted(index).sink->OnError(absl::Status(code, "secret /path 0x7f"));
    writer->Run();
    ASSERT_TRUE(writer->answer.has_value());
    EXPECT_GE(writer->answer->status, 500);
    EXPECT_THAT(writer->answer->body, testing::Not(testing::HasSubstr("secret")));
  }
}

}  // namespace
}  // namespace tessera::coordinator
