#include "model/chat/strict_turn.h"

#include <algorithm>
#include <array>

#include "common/status.h"
#include "common/status_macros.h"
#include "model/chat/control_tokens.h"
#include "model/chat/prose_reader.h"

namespace tessera::model {
namespace {

constexpr std::array kControlTokens = {kBosToken, kEosToken, kThinkToken, kEndThinkToken,
                                       kDsmlToken};

}  // namespace

absl::StatusOr<std::string> ReadReasoning(
    std::span<const std::string_view> control_tokens, std::string_view* text) {
  const size_t end = text->find(kEndThinkToken);
  if (end == std::string_view::npos) {
    return InvalidArgumentF("the reasoning has no end, expected `{}`", kEndThinkToken);
  }
  std::string reasoning(text->substr(0, end));
  TESSERA_RETURN_IF_ERROR(RefuseControlTokens("reasoning", reasoning, control_tokens));
  text->remove_prefix(end + kEndThinkToken.size());
  return reasoning;
}

absl::StatusOr<ParsedTurn> ReadTurn(const EncodingGeneration& generation,
                                    const DsmlTags& tags, std::string_view text,
                                    bool thinking) {
  ParsedTurn turn;
  const bool has_eos = text.ends_with(kEosToken);
  if (has_eos) {
    text.remove_suffix(kEosToken.size());
  }
  if (thinking) {
    TESSERA_ASSIGN_OR_RETURN(turn.reasoning, ReadReasoning(kControlTokens, &text));
  }
  const std::string block_start = "\n\n" + tags.calls_open;
  const size_t block = text.find(block_start);
  turn.content = text.substr(0, block);
  TESSERA_RETURN_IF_ERROR(RefuseControlTokens("content", turn.content, kControlTokens));
  if (thinking && !generation.keeps_line_breaks) {
    // Models often put a blank line between the reasoning and the answer.
    turn.content.erase(
        0, std::min(turn.content.find_first_not_of('\n'), turn.content.size()));
  }
  if (block == std::string_view::npos) {
    // A lone "<" at the end is text; more of the tag than that is a cut-off block.
    if (OverlapWith(text, tags.calls_open) > 1) {
      return InvalidArgumentF("the turn ends inside `{}`", tags.calls_open);
    }
    if (generation.requires_eos && !has_eos) {
      return InvalidArgumentF("the turn has no end, expected `{}`", kEosToken);
    }
    return turn;
  }
  text.remove_prefix(block + 2);
  TESSERA_ASSIGN_OR_RETURN(turn.tool_calls,
                           ReadToolCalls(tags, generation.is_lenient_in_calls, &text));
  if (!text.empty()) {
    return InvalidArgumentF("`{}` after the tool block, expected the end of the turn",
                            text.substr(0, 40));
  }
  return turn;
}

}  // namespace tessera::model
