// CompletionResponder: generated text as answers of /v1/completions, streamed as chunks
// or whole: echoes, log-probabilities of prompt and output, the best of several choices.
#ifndef TESSERA_COORDINATOR_API_COMPLETION_RESPONDER_H_
#define TESSERA_COORDINATOR_API_COMPLETION_RESPONDER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/api_context.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/sampling_fields.h"

namespace tessera::coordinator {

// What does not change while the answer is written.
struct CompletionAnswer {
  std::string id;
  int64_t created = 0;
  OutputOptions output;
  int32_t choices_per_prompt = 1;
  int32_t num_shown = 1;  // of them, the best; all, or not streamed
  bool logprobs = false;
  size_t num_top_logprobs = 0;
  bool echo_logprobs = false;       // of the prompt as well, before the output's
  bool prompt_logprobs = false;     // vLLM's field; not streamed
  bool without_output = false;      // what is generated is dropped
  std::vector<std::string> echoes;  // one per prompt; empty without echo
  std::vector<std::vector<int32_t>> prompts;
  int64_t prompt_tokens = 0;
};

// On the writer's executor, like every GenerationResponder.
class CompletionResponder final : public GenerationResponder {
 public:
  // `context` must outlive it.
  CompletionResponder(const ApiContext* context, std::shared_ptr<ResponseWriter> writer,
                      CompletionAnswer answer);
  ~CompletionResponder() override;

  void Begin() override;
  void Token(size_t prompt, const TokenEvent& event) override;
  void ChoiceDone(size_t prompt, const ChoiceFinished& event) override;
  void Done(const RequestUsage& usage) override;
  void Fail(const ApiError& error, bool begun) override;

 private:
  struct Choice;
  // What is known of one prompt's tokens.
  struct Prompt {
    bool scored = false;  // or no scores are to come
    std::vector<proto::SampledToken> scores;
    // Came before the scores, which a stream shows first.
    std::vector<std::variant<TokenEvent, ChoiceFinished>> early;
  };

  bool waits_for_scores() const { return answer_.echo_logprobs; }
  size_t Index(size_t prompt, int32_t choice) const;
  void TakeScores(size_t prompt, const TokenEvent& event);
  void TakeToken(size_t prompt, const TokenEvent& event);
  // Indices of the choices that are shown, in order.
  std::vector<size_t> ShownChoices() const;
  nlohmann::json Envelope() const;
  nlohmann::json UsageOf(RequestUsage usage) const;
  nlohmann::json ChoiceJson(size_t index, const ChoiceFinished* finished);
  // The text that a token brought. Its chunks are alike unless they tell of tokens one by
  // one.
  void SendText(size_t index);
  void SendChunk(size_t index, const ChoiceFinished* finished);
  std::string ChunkText(size_t index, const ChoiceFinished* finished);

  const ApiContext* context_;
  std::shared_ptr<ResponseWriter> writer_;
  const CompletionAnswer answer_;
  std::vector<Prompt> prompts_;
  std::vector<Choice> choices_;
  int64_t num_tokens_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_COMPLETION_RESPONDER_H_
