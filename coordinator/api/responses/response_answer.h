// ResponseAnswer: the answer of POST /v1/responses, as numbered, named events
// (response.created to response.completed) or as one response object.
#ifndef TESSERA_COORDINATOR_API_RESPONSES_RESPONSE_ANSWER_H_
#define TESSERA_COORDINATOR_API_RESPONSES_RESPONSE_ANSWER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"

#include "coordinator/api/chat/block_responder.h"
#include "coordinator/api/http/event_template.h"

namespace tessera::coordinator {

// External synchronisation. `ids` and `tokenizer` must outlive it.
class ResponseAnswer final : public BlockDialect {
 public:
  // `settings`: the members of the response object that do not change while it is
  // written: id, model and the request's own words. `tokenizer` spells tokens where
  // their log-probabilities are shown.
  ResponseAnswer(RequestIds* ids, const model::Tokenizer* tokenizer,
                 nlohmann::json settings);

  std::string Begin() override;
  std::string Open(size_t index, const TurnBlock& block) override;
  std::string Append(size_t index, const TurnBlock& block,
                     std::string_view piece) override;
  std::string Close(size_t index, const TurnBlock& block) override;
  // response.completed, or response.incomplete where the token limit came first.
  std::string End(const std::vector<TurnBlock>& blocks, const TurnEnd& end) override;
  // response.failed with the items so far.
  std::string Fail(const std::vector<TurnBlock>& blocks, const ApiError& error) override;

  HttpResponse Whole(const std::vector<TurnBlock>& blocks, const TurnEnd& end) override;
  HttpResponse Refuse(const ApiError& error) override;

 private:
  // Gives the event its number.
  std::string Event(nlohmann::json event);
  // A delta of text without its number.
  nlohmann::json TextDelta(size_t index, TurnBlock::Kind kind, std::string_view piece);
  // An event about item `index`, and about its only content part.
  nlohmann::json ItemEvent(const char* type, size_t index);
  nlohmann::json PartEvent(const char* type, size_t index);
  const std::string& ItemId(size_t index, const TurnBlock& block);
  // Log-probabilities of the tokens of `block` from `first` on.
  nlohmann::json Logprobs(const TurnBlock& block, size_t first = 0) const;
  // The content part of a message or of reasoning.
  nlohmann::json Part(const TurnBlock& block) const;
  nlohmann::json Item(size_t index, const TurnBlock& block, const char* status);
  nlohmann::json Response(const char* status, const std::vector<TurnBlock>& blocks);
  nlohmann::json Ended(const std::vector<TurnBlock>& blocks, const TurnEnd& end);

  RequestIds* ids_;
  const model::Tokenizer* tokenizer_;
  const nlohmann::json settings_;
  std::vector<std::string> item_ids_;
  int64_t next_number_ = 0;
  size_t num_shown_tokens_ = 0;  // of the item that is open, in its deltas
  // Of the item that is open, from its first delta of text on.
  std::optional<EventTemplate> delta_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_RESPONSES_RESPONSE_ANSWER_H_
