// ChatResponder: generated text to chat messages, streamed as chunks or whole. Each
// choice has a TurnReader, which splits the text into reasoning, content and tool calls.
#ifndef TESSERA_COORDINATOR_API_CHAT_RESPONDER_H_
#define TESSERA_COORDINATOR_API_CHAT_RESPONDER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/api_context.h"
#include "coordinator/api/chat/turn_reader.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/sampling_fields.h"

namespace tessera::coordinator {

// What does not change while the answer is written.
struct ChatAnswer {
  std::string id;
  int64_t created = 0;
  OutputOptions output;
  int32_t num_choices = 1;
  bool logprobs = false;
  bool prompt_logprobs = false;  // not streamed
  bool thinking = false;         // the prompt ended inside <think>
  std::vector<int32_t> prompt_ids;
};

// On the writer's executor, like every GenerationResponder.
class ChatResponder final : public GenerationResponder {
 public:
  // `context` must outlive it.
  ChatResponder(const ApiContext* context, std::shared_ptr<ResponseWriter> writer,
                ChatAnswer answer);
  ~ChatResponder() override;

  void Begin() override;
  void Token(size_t prompt, const TokenEvent& event) override;
  void ChoiceDone(size_t prompt, const ChoiceFinished& event) override;
  void Done(const RequestUsage& usage) override;
  void Fail(const ApiError& error, bool begun) override;

 private:
  struct Choice;

  nlohmann::json Envelope(const char* object) const;
  nlohmann::json MessageJson(const Choice& choice) const;
  nlohmann::json LogprobsJson(Choice* choice) const;
  // Takes what the reader gave into the choice and, when streaming, sends it.
  void Absorb(size_t index, TurnReader::Delta delta);
  void SendToolCall(size_t index, const model::ToolCall& call, size_t call_index);
  // Text of a kind, which is also the name of its field.
  void SendText(size_t index, const char* kind, const std::string& text);
  void SendDelta(size_t index, nlohmann::json delta, const ChoiceFinished* finished);
  std::string DeltaEvent(size_t index, nlohmann::json delta,
                         const ChoiceFinished* finished);
  int64_t reasoning_tokens() const;

  const ApiContext* context_;
  std::shared_ptr<ResponseWriter> writer_;
  const ChatAnswer answer_;
  std::vector<Choice> choices_;
  std::vector<proto::SampledToken> prompt_scores_;
  int64_t num_tokens_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_CHAT_RESPONDER_H_
