// What a system or developer message adds to a prompt beside its text: tools and the
// format of the response. Read before anything is written, so that bad JSON never leaves
// half a prompt.
#ifndef TESSERA_MODEL_CHAT_ATTACHMENTS_H_
#define TESSERA_MODEL_CHAT_ATTACHMENTS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "model/chat/chat_encoding.h"
#include "model/chat/encoding_generation.h"
#include "model/chat/prompt_writer.h"
#include "model/chat/python_json.h"

namespace tessera::model {

// The line before the schema of a response format; of all generations.
inline constexpr std::string_view kResponseFormatText =
    "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";

struct Attachments {
  std::vector<PythonJson> functions;  // objects: the `function` of each tool
  std::string response_format;        // JSON; empty: none
};

// kInvalidArgument: tools that are no JSON array, a tool without a `function` object, a
// response format that is no JSON. An empty format is none.
absl::StatusOr<Attachments> ParseAttachments(const ChatMessage& message);

// Writes the sections of the DSML generations, each with a blank line in front.
void WriteAttachments(const ToolsText& text, const Attachments& attachments,
                      PromptWriter* writer);

// The section of the response format alone, if there is one.
void WriteResponseFormat(const Attachments& attachments, PromptWriter* writer);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_ATTACHMENTS_H_
