// BlockResponder: generated text to an answer that is a list of blocks (reasoning, text,
// tool calls), each opened, filled and closed in turn, streamed or whole. The order of
// blocks and the life of the answer are decided here; what they look like on the wire is
// the BlockDialect's business.
#ifndef TESSERA_COORDINATOR_API_CHAT_BLOCK_RESPONDER_H_
#define TESSERA_COORDINATOR_API_CHAT_BLOCK_RESPONDER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/api/api_context.h"
#include "coordinator/api/chat/turn_reader.h"
#include "coordinator/api/generation.h"

namespace tessera::coordinator {

// One part of the assistant's turn.
struct TurnBlock {
  enum class Kind { kReasoning, kText, kCall };

  Kind kind = Kind::kText;
  std::string text;      // of reasoning and text, as far as it came
  model::ToolCall call;  // of a call: whole, its arguments perhaps not whole JSON
  bool cut = false;      // the token limit ended the turn in this block
  std::vector<TokenEvent> tokens = {};  // of a text, where log-probabilities are shown
};

// How the turn ended.
struct TurnEnd {
  ChoiceFinished finished;
  RequestUsage usage;
  int64_t reasoning_tokens = 0;
};

// Writes one answer in the words of a dialect: either a stream (Begin, then Open, Append…
// and Close for each block, then End), or Whole; Fail or Refuse where it did not come to
// that. Streamed parts are framed events, sent as they are. One per answer; external
// synchronisation.
class BlockDialect {
 public:
  virtual ~BlockDialect() = default;

  virtual std::string Begin() = 0;
  virtual std::string Open(size_t index, const TurnBlock& block) = 0;
  // `piece` was just added to the block: text, or all the arguments of a call.
  virtual std::string Append(size_t index, const TurnBlock& block,
                             std::string_view piece) = 0;
  virtual std::string Close(size_t index, const TurnBlock& block) = 0;
  virtual std::string End(const std::vector<TurnBlock>& blocks, const TurnEnd& end) = 0;
  // The stream breaks off after `blocks`.
  virtual std::string Fail(const std::vector<TurnBlock>& blocks,
                           const ApiError& error) = 0;

  virtual HttpResponse Whole(const std::vector<TurnBlock>& blocks,
                             const TurnEnd& end) = 0;
  virtual HttpResponse Refuse(const ApiError& error) = 0;
};

// On the writer's executor, like every GenerationResponder. For requests of one prompt
// and one choice.
class BlockResponder final : public GenerationResponder {
 public:
  BlockResponder(std::shared_ptr<ResponseWriter> writer, TurnReader turn,
                 std::unique_ptr<BlockDialect> dialect, bool stream,
                 bool logprobs = false);

  void Begin() override;
  void Token(size_t prompt, const TokenEvent& event) override;
  void ChoiceDone(size_t prompt, const ChoiceFinished& event) override;
  void Done(const RequestUsage& usage) override;
  void Fail(const ApiError& error, bool begun) override;

 private:
  void Absorb(TurnReader::Delta delta);
  void AddText(TurnBlock::Kind kind, const std::string& piece);
  void Open(TurnBlock block);
  void Close();
  void Send(std::string events);

  std::shared_ptr<ResponseWriter> writer_;
  TurnReader turn_;
  std::unique_ptr<BlockDialect> dialect_;
  const bool stream_;
  const bool logprobs_;
  std::vector<TokenEvent> pending_;  // whose text is not certain yet
  std::vector<TurnBlock> blocks_;
  bool is_open_ = false;  // the last block
  ChoiceFinished finished_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_CHAT_BLOCK_RESPONDER_H_
