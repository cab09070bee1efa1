// AnthropicAnswer: the answer of POST /v1/messages, as named events (message_start,
// content_block_*, message_delta, message_stop) or as one message.
#ifndef TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_ANSWER_H_
#define TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_ANSWER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/chat/block_responder.h"
#include "coordinator/api/http/event_template.h"

namespace tessera::coordinator {

// External synchronisation.
//
// Blocks of thinking carry the message's id as their signature: clients want one that is
// not empty, and reasoning that comes back is taken as it is, so nothing is signed.
class AnthropicAnswer final : public BlockDialect {
 public:
  // What does not change while the answer is written.
  struct Facts {
    std::string id;  // "msg_…"
    std::string model;
    std::string request_id;
    int64_t prompt_tokens = 0;
  };

  explicit AnthropicAnswer(Facts facts);

  // message_start, whose usage knows no cache hits yet (message_delta corrects it), and a
  // ping.
  std::string Begin() override;
  std::string Open(size_t index, const TurnBlock& block) override;
  std::string Append(size_t index, const TurnBlock& block,
                     std::string_view piece) override;
  std::string Close(size_t index, const TurnBlock& block) override;
  std::string End(const std::vector<TurnBlock>& blocks, const TurnEnd& end) override;
  std::string Fail(const std::vector<TurnBlock>& blocks, const ApiError& error) override;

  HttpResponse Whole(const std::vector<TurnBlock>& blocks, const TurnEnd& end) override;
  HttpResponse Refuse(const ApiError& error) override;

 private:
  // The text of a delta event; those of one block differ in `piece` alone.
  std::string TextDelta(size_t index, TurnBlock::Kind kind, std::string_view piece) const;
  nlohmann::json Message() const;

  const Facts facts_;
  // Of the block that is open, from its first delta on.
  std::optional<EventTemplate> delta_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_ANSWER_H_
