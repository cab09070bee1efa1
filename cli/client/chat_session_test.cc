#include "cli/client/chat_session.h"

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "cli/client/reply_printer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mutex.h"
#include "tests/testing/scripted_http_server.h"
#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::nlohmann::json;
using ::tessera::testing::IsOkAndHolds;
using ::tessera::testing::ReceivedRequest;
using ::tessera::testing::ScriptedAnswer;
using ::tessera::testing::ScriptedHttpServer;
using ::tessera::testing::StatusIs;
using ::tessera::testing::StreamAnswer;
using ::tessera::testing::WholeAnswer;
using ::testing::HasSubstr;

std::string Delta(const json& delta) {
  return json{{"choices", {{{"index", 0}, {"delta", delta}}}}}.dump();
}

// Answers every message with the next of `answers` and keeps the bodies.
class ChatSessionTest : public ::testing::Test {
 protected:
  void Start(std::vector<ScriptedAnswer> answers, ChatSessionOptions options = {}) {
    answers_ = std::move(answers);
    server_ =
        std::make_unique<ScriptedHttpServer>([this](const ReceivedRequest& request) {
          bodies_.push_back(json::parse(request.body));
          return answers_.at(bodies_.size() - 1);
        });
    HttpClientOptions http;
    http.url = server_->url();
    http.cancel_descriptor = cancel_;
    client_ = *OpenAiClient::Create(http, "");
    options.settings.model = "demo";
    session_ =
        std::make_unique<ChatSession>(options, client_.get(), &out_, &notes_, &clock_);
  }

  ~ChatSessionTest() override {
    server_.reset();
    ::close(cancel_);
  }

  const int cancel_ = ::eventfd(0, EFD_CLOEXEC);
  std::vector<ScriptedAnswer> answers_;
  std::vector<json> bodies_;
  std::unique_ptr<ScriptedHttpServer> server_;
  std::unique_ptr<OpenAiClient> client_;
  std::ostringstream out_;
  std::ostringstream notes_;
  SimulatedClock clock_{absl::UnixEpoch()};
  std::unique_ptr<ChatSession> session_;
};

ScriptedAnswer Reply(const std::string& text) {
  return StreamAnswer({Delta({{"role", "assistant"}, {"content", ""}}),
                       Delta({{"content", text}}), Delta(json::object()),
                       R"({"choices":[],"usage":{}})", "[DONE]"});
}

TEST_F(ChatSessionTest, SendsTheWholeConversation) {
  Start({Reply("one"), Reply("two")}, {.settings = {.system = "be brief"}});
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("b"), IsOkAndHolds(true));
  EXPECT_EQ(out_.str(), "one\ntwo\n");
  const json expected = {{{"role", "system"}, {"content", "be brief"}},
                         {{"role", "user"}, {"content", "a"}},
                         {{"role", "assistant"}, {"content", "one"}},
                         {{"role", "user"}, {"content", "b"}}};
  EXPECT_EQ(bodies_.at(1).at("messages"), expected);
  EXPECT_EQ(bodies_.at(1).at("stream"), true);
  EXPECT_EQ(bodies_.at(1).at("model"), "demo");
}

TEST_F(ChatSessionTest, SendsOnlyTheSettingsThatWereGiven) {
  Start({Reply("x"), Reply("x")}, {.settings = {.max_tokens = 5, .temperature = 0.5}});
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_EQ(bodies_.at(0).at("max_tokens"), 5);
  EXPECT_EQ(bodies_.at(0).at("temperature"), 0.5);
  EXPECT_FALSE(bodies_.at(0).contains("chat_template_kwargs"));
  EXPECT_FALSE(bodies_.at(0).contains("seed"));
  EXPECT_THAT(session_->Handle("/thinking off"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_EQ(bodies_.at(1).at("chat_template_kwargs"), (json{{"thinking", false}}));
}

TEST_F(ChatSessionTest, ReasoningIsDimmedOnATerminalAndNeverSentBack) {
  const ScriptedAnswer answer = StreamAnswer({Delta({{"reasoning_content", "hm"}}),
                                              Delta({{"reasoning_content", "m"}}),
                                              Delta({{"content", "yes"}}), "[DONE]"});
  Start({answer, Reply("x")}, {.terminal = true, .styled = true});
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_EQ(out_.str(), "\x1b[2mhmm\x1b[0m\n\nyes\n");
  EXPECT_THAT(session_->Handle("b"), IsOkAndHolds(true));
  EXPECT_EQ(bodies_.at(1).at("messages").at(1),
            (json{{"role", "assistant"}, {"content", "yes"}}));
}

TEST_F(ChatSessionTest, APipeGetsTheAnswerAlone) {
  Start({StreamAnswer(
      {Delta({{"reasoning_content", "hm"}}), Delta({{"content", "y\x1b"}}), "[DONE]"})});
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_EQ(out_.str(), "y\x1b\n");
}

TEST_F(ChatSessionTest, AFailedMessageIsForgotten) {
  Start({WholeAnswer(429, "application/json", R"({"error":{"message":"queue is full"}})"),
         Reply("x")});
  EXPECT_THAT(session_->Handle("a"),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("queue is full")));
  EXPECT_EQ(session_->num_messages(), 0U);
  EXPECT_THAT(session_->Handle("b"), IsOkAndHolds(true));
  EXPECT_EQ(bodies_.at(1).at("messages"), json({{{"role", "user"}, {"content", "b"}}}));
}

TEST_F(ChatSessionTest, AReplyWithoutItsEndIsAnError) {
  Start({StreamAnswer({Delta({{"content", "half"}})}),
         StreamAnswer(
             {Delta({{"content", "half"}}),
              R"({"error":{"message":"a worker was lost","code":"worker_lost"}})"})});
  EXPECT_THAT(session_->Handle("a"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(session_->Handle("a"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("a worker was lost")));
  EXPECT_EQ(session_->num_messages(), 0U);
}

TEST_F(ChatSessionTest, WhatCameOfAStoppedReplyIsKept) {
  Notification over;
  ScriptedAnswer answer = StreamAnswer({Delta({{"content", "half"}}), "[DONE]"});
  answer.after_piece = [this, &over](size_t written) {
    if (written == 2) {
      // Stops the client when the text is on its way.
      const uint64_t value = 1;
      EXPECT_EQ(::write(cancel_, &value, sizeof(value)), ssize_t{sizeof(value)});
      over.WaitForNotification();
    }
  };
  Start({answer, Reply("x")});
  absl::StatusOr<bool> stopped = session_->Handle("a");
  EXPECT_THAT(stopped, StatusIs(absl::StatusCode::kCancelled));
  over.Notify();
  uint64_t value = 0;
  ASSERT_EQ(::read(cancel_, &value, sizeof(value)), ssize_t{sizeof(value)});
  // The cancellation may overtake the text; the message is forgotten then.
  const bool arrived = out_.str() == "half\n";
  EXPECT_EQ(session_->num_messages(), arrived ? 2U : 0U);
  EXPECT_THAT(session_->Handle("b"), IsOkAndHolds(true));
  EXPECT_EQ(bodies_.at(1).at("messages").size(), arrived ? 3U : 1U);
}

TEST_F(ChatSessionTest, AnEmptyReplyIsSaidOnATerminal) {
  Start({Reply("")}, {.terminal = true, .styled = true});
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_THAT(notes_.str(), HasSubstr("the reply is empty"));
}

TEST_F(ChatSessionTest, CommandsChangeTheConversation) {
  Start({Reply("x"), Reply("y")});
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/reset"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/system  talk like a pirate"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("b"), IsOkAndHolds(true));
  const json expected = {{{"role", "system"}, {"content", "talk like a pirate"}},
                         {{"role", "user"}, {"content", "b"}}};
  EXPECT_EQ(bodies_.at(1).at("messages"), expected);
}

TEST_F(ChatSessionTest, WhatIsNoMessageSendsNothing) {
  Start({});
  EXPECT_THAT(session_->Handle("  "), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/hepl"), IsOkAndHolds(true));
  EXPECT_THAT(notes_.str(), HasSubstr("/hepl is no command"));
  EXPECT_THAT(session_->Handle("/thinking"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/help"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/quit"), IsOkAndHolds(false));
  EXPECT_EQ(bodies_.size(), 0U);
}

TEST_F(ChatSessionTest, InputThatIsNotUtf8IsSentReplaced) {
  Start({Reply("x")});
  EXPECT_THAT(session_->Handle("a\xff"), IsOkAndHolds(true));
  EXPECT_EQ(bodies_.at(0).at("messages").at(0).at("content"), "a\xEF\xBF\xBD");
}

TEST(ForTerminal, DropsControlCharactersAndKeepsText) {
  EXPECT_EQ(ForTerminal("a\tb\nc"), "a\tb\nc");
  EXPECT_EQ(ForTerminal("a\x1b[2Jb\rc\x07\x7f"), "a[2Jbc");
  EXPECT_EQ(ForTerminal("\xC2\x9B"
                        "2J \xC2\xA0\xC3\xA9"),
            "2J \xC2\xA0\xC3\xA9");
}

TEST_F(ChatSessionTest, RetryAsksAgainAndUndoForgets) {
  Start({Reply("one"), Reply("two"), Reply("three")});
  EXPECT_THAT(session_->Handle("/retry"), IsOkAndHolds(true));
  EXPECT_THAT(notes_.str(), HasSubstr("no question"));
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/retry"), IsOkAndHolds(true));
  EXPECT_EQ(bodies_.at(1).at("messages"), bodies_.at(0).at("messages"));
  EXPECT_EQ(session_->num_messages(), 2u);
  EXPECT_THAT(session_->Handle("/undo"), IsOkAndHolds(true));
  EXPECT_EQ(session_->num_messages(), 0u);
  EXPECT_THAT(session_->Handle("b"), IsOkAndHolds(true));
  EXPECT_EQ(bodies_.at(2).at("messages"), (json{{{"role", "user"}, {"content", "b"}}}));
}

TEST_F(ChatSessionTest, SetChangesWhatIsSentAndRefusesNonsense) {
  Start({Reply("x"), Reply("y")});
  for (const char* command : {"/set temperature 0.25", "/set max_tokens 9", "/set seed 7",
                              "/set top_p 2", "/set nonsense 1", "/set temperature x"}) {
    EXPECT_THAT(session_->Handle(command), IsOkAndHolds(true)) << command;
  }
  EXPECT_THAT(notes_.str(), HasSubstr("2 is not between 0 and 1"));
  EXPECT_THAT(notes_.str(), HasSubstr("nonsense is none of"));
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_EQ(bodies_.at(0).at("temperature"), 0.25);
  EXPECT_EQ(bodies_.at(0).at("max_tokens"), 9);
  EXPECT_EQ(bodies_.at(0).at("seed"), 7);
  EXPECT_FALSE(bodies_.at(0).contains("top_p"));
  EXPECT_THAT(session_->Handle("/set temperature default"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/model other"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("b"), IsOkAndHolds(true));
  EXPECT_FALSE(bodies_.at(1).contains("temperature"));
  EXPECT_EQ(bodies_.at(1).at("model"), "other");
}

TEST_F(ChatSessionTest, ASavedConversationGoesOnElsewhere) {
  const std::string path = ::testing::TempDir() + "/conversation.json";
  Start({Reply("one"), Reply("two")}, {.settings = {.system = "be brief"}});
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/save " + path), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/reset"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/system"), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("/load " + path), IsOkAndHolds(true));
  EXPECT_THAT(session_->Handle("b"), IsOkAndHolds(true));
  const json expected = {{{"role", "system"}, {"content", "be brief"}},
                         {{"role", "user"}, {"content", "a"}},
                         {{"role", "assistant"}, {"content", "one"}},
                         {{"role", "user"}, {"content", "b"}}};
  EXPECT_EQ(bodies_.at(1).at("messages"), expected);
  EXPECT_THAT(session_->Handle("/load /nowhere"), IsOkAndHolds(true));
  EXPECT_THAT(notes_.str(), HasSubstr("cannot read /nowhere"));
  EXPECT_EQ(session_->num_messages(), 4u);
}

TEST_F(ChatSessionTest, StatsAreOfTheLastReply) {
  Start(
      {StreamAnswer({Delta({{"content", "yes"}}),
                     R"({"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]})",
                     R"({"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,)"
                     R"("prompt_tokens_details":{"cached_tokens":8}}})",
                     "[DONE]"})});
  EXPECT_THAT(session_->Handle("/stats"), IsOkAndHolds(true));
  EXPECT_THAT(notes_.str(), HasSubstr("no reply yet"));
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_EQ(bodies_.at(0).at("stream_options"), (json{{"include_usage", true}}));
  EXPECT_THAT(session_->Handle("/stats"), IsOkAndHolds(true));
  EXPECT_THAT(notes_.str(), HasSubstr("prompt 12 (8 cached), generated 3; stop"));
}

TEST_F(ChatSessionTest, MarkdownIsStyledOnlyWhereColoursAreOn) {
  Start({Reply("**b**"), Reply("**b**")}, {.terminal = true, .styled = true});
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_EQ(out_.str(), "\x1b[0m\x1b[1mb\x1b[0m\n");
  Start({Reply("**b**")}, {.terminal = true});
  out_.str("");
  bodies_.clear();
  EXPECT_THAT(session_->Handle("a"), IsOkAndHolds(true));
  EXPECT_EQ(out_.str(), "**b**\n");
}

}  // namespace
}  // namespace tessera::cli
