#include "model/chat/attachments.h"

#include <cstddef>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::model {

absl::StatusOr<Attachments> ParseAttachments(const ChatMessage& message) {
  Attachments attachments;
  if (!message.tools_json.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const PythonJson tools,
                             PythonJson::Parse(message.tools_json));
    if (tools.kind != PythonJson::Kind::kArray) {
      return InvalidArgumentF("tools are no array");
    }
    for (const PythonJson& tool : tools.items) {
      const PythonJson* function = tool.Find("function");
      if (function == nullptr || function->kind != PythonJson::Kind::kObject) {
        return InvalidArgumentF("tool {} has no `function` object",
                                attachments.functions.size());
      }
      attachments.functions.push_back(*function);
    }
  }
  if (!message.response_format_json.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const PythonJson format,
                             PythonJson::Parse(message.response_format_json));
    if (format.IsTruthy()) {
      attachments.response_format = format.Dump();
    }
  }
  return attachments;
}

void WriteAttachments(const ToolsText& text, const Attachments& attachments,
                      PromptWriter* writer) {
  if (!attachments.functions.empty()) {
    writer->Own("\n\n");
    writer->Own(text.before_schemas);
    for (size_t i = 0; i < attachments.functions.size(); ++i) {
      writer->Own(i == 0 ? "" : "\n");
      writer->Untrusted(attachments.functions[i].Dump());
    }
    writer->Own(text.after_schemas);
  }
  WriteResponseFormat(attachments, writer);
}

void WriteResponseFormat(const Attachments& attachments, PromptWriter* writer) {
  if (!attachments.response_format.empty()) {
    writer->Own("\n\n");
    writer->Own(kResponseFormatText);
    writer->Untrusted(attachments.response_format);
  }
}

}  // namespace tessera::model
