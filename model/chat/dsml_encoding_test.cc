#include "model/chat/dsml_encoding.h"

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

// The prompt is what the generations do differently.
class NoPrompt final : public DsmlEncoding {
 public:
  explicit NoPrompt(const EncodingGeneration& generation)
      : DsmlEncoding(generation, nullptr, {}) {}
  absl::StatusOr<EncodedChat> Encode(const std::vector<ChatMessage>& /*messages*/,
                                     const ChatOptions& /*options*/) const override {
    return EncodedChat();
  }
};

std::string Block(std::string_view calls, std::string_view invoke) {
  const std::string dsml = "｜DSML｜";
  return "\n\n<" + dsml + std::string(calls) + ">\n<" + dsml + std::string(invoke) +
         " name=\"ns::f\">\n</" + dsml + std::string(invoke) + ">\n</" + dsml +
         std::string(calls) + ">";
}

TEST(DsmlEncoding, EachGenerationReadsItsOwnTagsInBothReaders) {
  const std::string eos = "<｜end▁of▁sentence｜>";
  for (const auto& [generation, text] :
       {std::pair(&kV32, Block("function_calls", "invoke")),
        std::pair(&kV4Preview, Block("tool_calls", "invoke")),
        std::pair(&kV41, Block(" calls", " invoke"))}) {
    const NoPrompt encoding(*generation);
    const auto turn = encoding.ParseTurn("a" + text + eos, false);
    ASSERT_TRUE(turn.ok()) << turn.status();
    ASSERT_EQ(turn->tool_calls.size(), 1U) << generation->name;
    EXPECT_EQ(turn->tool_calls[0].name, "ns::f");
    const auto delta = encoding.NewTurnParser(false)->Push("a" + text);
    EXPECT_EQ(delta.content, "a");
    ASSERT_EQ(delta.tool_calls.size(), 1U) << generation->name;
    EXPECT_EQ(delta.tool_calls[0].name, "ns::f");
  }
  const NoPrompt v4(kV4Preview);
  EXPECT_TRUE(v4.NewTurnParser(false)
                  ->Push(Block("function_calls", "invoke"))
                  .tool_calls.empty());
}

TEST(DsmlEncoding, BothReadersTreatLineBreaksAfterTheReasoningAlike) {
  for (const EncodingGeneration* generation : {&kV32, &kV4July}) {
    const NoPrompt encoding(*generation);
    const std::string text = "why</think>\n\ntext";
    const auto turn = encoding.ParseTurn(text + "<｜end▁of▁sentence｜>", true);
    ASSERT_TRUE(turn.ok()) << turn.status();
    EXPECT_EQ(encoding.NewTurnParser(true)->Push(text).content, turn->content);
  }
}

}  // namespace
}  // namespace tessera::model
