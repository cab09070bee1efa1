#include "model/chat/conversation.h"

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

ChatMessage User(std::string text, std::string task = "") {
  return {.role = "user", .content = std::move(text), .task = std::move(task)};
}
ChatMessage Result(std::string id, std::string text) {
  return {.role = "tool", .content = std::move(text), .tool_call_id = std::move(id)};
}
ChatMessage Calls(const std::vector<std::string>& ids) {
  ChatMessage message{.role = "assistant"};
  for (const std::string& id : ids) {
    message.tool_calls.push_back({.id = id, .name = "f", .arguments = "{}"});
  }
  return message;
}

std::string Shown(const std::vector<ChatMessage>& messages) {
  const auto turns = MakeTurns(messages);
  EXPECT_TRUE(turns.ok()) << turns.status();
  std::string shown;
  for (const Turn& turn : *turns) {
    shown += "|";
    for (const TurnBlock& block : turn.blocks) {
      shown += (block.is_tool_result ? "=" : "-") + std::string(block.text);
    }
  }
  return shown;
}

void ExpectRefused(const std::vector<ChatMessage>& messages) {
  EXPECT_EQ(MakeTurns(messages).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Conversation, NeighbouringUserMessagesAndResultsAreOneTurn) {
  EXPECT_EQ(Shown({User("a"), User("b")}), "|-a-b");
  EXPECT_EQ(Shown({Calls({"x"}), Result("x", "r"), User("b")}), "||=r-b");
}

TEST(Conversation, ATaskEndsItsTurn) {
  EXPECT_EQ(Shown({User("a", "title"), User("b")}), "|-a|-b");
}

TEST(Conversation, ResultsStandInTheOrderOfTheirCalls) {
  EXPECT_EQ(Shown({Calls({"x", "y", "z"}), Result("z", "3"), User("t"), Result("x", "1"),
                   Result("y", "2")}),
            "||=1-t=2=3");
}

TEST(Conversation, ResultsAreSortedByTheirOwnAssistantMessage) {
  EXPECT_EQ(Shown({Calls({"x", "y"}), Result("y", "2"), Result("x", "1"),
                   Calls({"y", "x"}), Result("x", "4"), Result("y", "3")}),
            "||=1=2||=3=4");
}

TEST(Conversation, ResultsWithoutACallAreRefused) {
  ExpectRefused({User("a"), Result("x", "r")});
  ExpectRefused({Calls({"x"}), Result("y", "r")});
  ExpectRefused(
      {Calls({"x"}), {.role = "assistant", .content = "done"}, Result("x", "r")});
}

TEST(Conversation, UnknownWordsAndEmptinessAreRefused) {
  ExpectRefused({});
  ExpectRefused({{.role = "robot"}});
  ExpectRefused({User("a", "dance")});
}

TEST(Conversation, OnlyDeveloperTurnsBeforeTheLastUserTurnAreDropped) {
  const std::vector<ChatMessage> messages = {
      {.role = "developer"}, User("a"), {.role = "assistant"}, {.role = "developer"}};
  auto turns = MakeTurns(messages);
  ASSERT_TRUE(turns.ok());
  EXPECT_EQ(LastUserTurn(*turns, {}), 3);
  DropOldDeveloperTurns({}, &*turns);
  ASSERT_EQ(turns->size(), 3U);
  EXPECT_EQ(turns->front().role, TurnRole::kUser);
  EXPECT_EQ(LastUserTurn(*turns, {}), 2);
  EXPECT_EQ(LastUserTurn({}, {}), -1);
}

TEST(Conversation, TheRulesSayWhatCountsAsTheUsers) {
  const std::vector<ChatMessage> messages = {User("a"), Calls({"x"}), Result("x", "r")};
  const auto turns = MakeTurns(messages);
  ASSERT_TRUE(turns.ok());
  EXPECT_EQ(LastUserTurn(*turns, {}), 2);
  EXPECT_EQ(LastUserTurn(*turns, {.results_continue_turn = true}), 0);
  const std::vector<ChatMessage> late = {
      {.role = "system"}, {.role = "assistant"}, {.role = "system"}};
  const auto systems = MakeTurns(late);
  ASSERT_TRUE(systems.ok());
  EXPECT_EQ(LastUserTurn(*systems, {}), -1);
  EXPECT_EQ(LastUserTurn(*systems, {.late_system_opens_turn = true}), 2);
  EXPECT_EQ(LastUserTurn({systems->front()}, {.late_system_opens_turn = true}), -1);
}

}  // namespace
}  // namespace tessera::model
