// ChatEncoding: messages to prompt ids and generated text back to a message, as the
// checkpoint's generation was trained (the encoders and templates that DeepSeek publishes
// with each release are the definition). Text that a user typed is tokenised without
// added tokens, so it can never become a control token.
#ifndef TESSERA_MODEL_CHAT_CHAT_ENCODING_H_
#define TESSERA_MODEL_CHAT_CHAT_ENCODING_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

#include "model/config/model_config.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::model {

struct ToolCall {
  std::string id{};
  std::string name{};
  std::string arguments{};  // JSON text; what the model wrote where it is not JSON
};

// Members have initialisers so that callers name only those they set.
struct ChatMessage {
  std::string role{};  // system, developer, user, assistant, tool, latest_reminder
  std::string content{};
  std::string reasoning_content{};     // assistant
  std::vector<ToolCall> tool_calls{};  // assistant
  std::string tool_call_id{};          // tool
  std::string tools_json{};  // system/developer: JSON array of OpenAI tools, or empty
  std::string response_format_json{};  // system/developer: JSON schema text, or empty
  std::string task{};  // user: a task token's name ("action", "query", …), or empty
  bool without_eos = false;  // assistant: continued by the generation
};

// kNone: what the generation does where nothing is said.
enum class ReasoningEffort { kNone, kLow, kHigh, kMax };
inline constexpr size_t kNumEfforts = 4;

struct ChatOptions {
  bool thinking = false;
  bool drop_thinking = true;
  ReasoningEffort effort = ReasoningEffort::kNone;
  int32_t effort_number = 0;  // 1..100 instead of `effort` (ChatTraits); 0: none
  bool add_generation_prompt = true;
};

// What requests may say to some generations only.
struct ChatTraits {
  bool has_effort_numbers = false;   // ChatOptions::effort_number
  bool has_tool_namespaces = false;  // tools with names like `files::read`
};

struct EncodedChat {
  std::string text;           // the prompt as one string, for display and for the goldens
  std::vector<int32_t> ids;   // BOS included
  bool in_reasoning = false;  // the prompt ends inside <think>
};

// How the model's generation writes tool calls, for a grammar of them:
// before_block block_open after_block_open, then calls with between_calls between them,
// each call_open NAME after_name ARGUMENTS call_close; then block_close.
struct CallMarkup {
  std::string before_block{};  // between the answer's text and its calls
  std::string block_open{};    // empty: there is no markup
  std::string after_block_open{};
  std::string call_open{};
  std::string after_name{};
  std::string call_close{};
  std::string between_calls{};
  std::string block_close{};
  std::string schema_style{};  // of arguments that are no JSON: what a grammar calls it
};

// A finished or growing assistant turn, split into its parts.
struct ParsedTurn {
  std::string reasoning;
  std::string content;
  std::vector<ToolCall> tool_calls;
};

// Splits generated text into reasoning, content and tool calls while it streams. Each
// Push returns only what is certain: text that may be the start of a tag is held back.
// One per choice; external synchronisation.
class TurnParser {
 public:
  struct Delta {
    std::string reasoning;
    std::string content;
    std::vector<ToolCall> tool_calls;  // complete calls; ids are set by the API layer
  };
  virtual ~TurnParser() = default;
  virtual Delta Push(std::string_view text) = 0;
  // The rest; call once. Nothing is lost: what is no tool markup comes back as content,
  // and a call that was begun comes back with its arguments as far as they were generated
  // (not whole JSON).
  virtual Delta Finish() = 0;
};

// Immutable after Create; thread-safe.
class ChatEncoding {
 public:
  // Picks the encoding of the checkpoint's generation. `tokenizer` must outlive it.
  // kInvalidArgument if the tokenizer lacks a control token that the encoding writes,
  // kUnimplemented for a family without a known encoding.
  static absl::StatusOr<std::unique_ptr<ChatEncoding>> Create(const ModelConfig& config,
                                                              const Tokenizer* tokenizer);
  virtual ~ChatEncoding() = default;

  virtual ChatTraits traits() const { return {}; }

  // kInvalidArgument: no messages, an unknown role or task, a tool message without its
  // call, tools or a response format that are not JSON, an effort number that the
  // generation does not know, for V3.2 in thinking mode an assistant message after the
  // last user message with neither reasoning nor calls. Blocks for the time of
  // tokenisation.
  virtual absl::StatusOr<EncodedChat> Encode(const std::vector<ChatMessage>& messages,
                                             const ChatOptions& options) const = 0;

  // No markup: the model knows no tool calls.
  virtual CallMarkup call_markup() const { return {}; }

  // `thinking`: the turn starts with reasoning (EncodedChat::in_reasoning).
  virtual std::unique_ptr<TurnParser> NewTurnParser(bool thinking) const = 0;

  // Strict parse of a whole completed turn, with or without the end-of-sentence token
  // (V3.2: with it), as the published parser does. kInvalidArgument says which rule was
  // broken; TurnParser is the tolerant reader.
  virtual absl::StatusOr<ParsedTurn> ParseTurn(std::string_view text,
                                               bool thinking) const = 0;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_CHAT_ENCODING_H_
