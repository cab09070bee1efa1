#include "coordinator/api/chat/chat_tools.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "model/chat/python_json.h"

namespace tessera::coordinator {
namespace {

// Neither the order of the alphabet nor numbers as a JSON library would print them.
constexpr char kSchema[] =
    R"({"type": "object", "properties": {"zone": {"minimum": 1.0, "maximum": 1e3},)"
    R"( "age": {"type": "integer", "maximum": 123456789012345678901234567890}},)"
    R"( "required": ["zone", "age"]})";

// What the encodings make of tools.
std::string Rendered(const std::vector<model::ChatMessage>& messages) {
  const auto tools = model::PythonJson::Parse(messages.at(0).tools_json);
  return tools.ok() ? tools->Dump() : tools.status().ToString();
}

TEST(ChatTools, ToolsKeepTheOrderAndTheSpellingOfTheClient) {
  const std::string tools =
      std::string(R"([{"type": "function", "function": {"name": "f", "parameters": )") +
      kSchema + R"(, "description": "d", "strict": true}}])";
  const std::string text = R"({"tools": )" + tools + R"(, "model": "demo"})";
  std::vector<model::ChatMessage> messages(1);
  messages[0].role = "system";
  ToolDemand demand;
  ASSERT_FALSE(
      ReadTools(nlohmann::json::parse(text), text, {}, &messages, &demand).has_value());
  EXPECT_EQ(messages[0].tools_json, tools);
  const auto as_python = model::PythonJson::Parse(tools);
  ASSERT_TRUE(as_python.ok());
  EXPECT_EQ(Rendered(messages), as_python->Dump());
}

TEST(ChatTools, FlatToolsKeepTheirSchemas) {
  const std::string text = std::string(R"({"tools":[{"name":"a"},{"input_schema": )") +
                           kSchema + R"(,"name":"f","description":"d \"q\""}]})";
  std::string tools_json;
  const auto refused =
      ReadFlatTools(nlohmann::json::parse(text), text,
                    {.schema_field = "input_schema", .type = "custom"}, {}, &tools_json);
  ASSERT_FALSE(refused.has_value()) << refused->message;
  EXPECT_EQ(
      tools_json,
      std::string(R"([{"type":"function","function":{"name":"a"}},{"type":"function",)"
                  R"("function":{"name":"f","description":"d \"q\"","parameters":)") +
          kSchema + "}}]");
}

TEST(ChatTools, NoToolsLeaveTheMessagesAlone) {
  for (const std::string text : {R"({})", R"({"tools":null})", R"({"tools":[]})"}) {
    std::vector<model::ChatMessage> messages;
    ToolDemand demand;
    EXPECT_FALSE(
        ReadTools(nlohmann::json::parse(text), text, {}, &messages, &demand).has_value());
    std::string tools_json = "x";
    EXPECT_FALSE(ReadFlatTools(nlohmann::json::parse(text), text, {}, {}, &tools_json)
                     .has_value());
    ShowTools(tools_json, &messages);
    EXPECT_TRUE(messages.empty()) << text;
  }
}

}  // namespace
}  // namespace tessera::coordinator
