#include "model/chat/dsml.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "model/chat/control_tokens.h"
#include "model/chat/python_json.h"

namespace tessera::model {
namespace {

void WriteParameter(const DsmlTags& tags, std::string_view key, std::string_view value,
                    bool is_string, PromptWriter* writer) {
  writer->Own(tags.parameter_open);
  writer->Untrusted(key);
  writer->Own(is_string ? kStringTrueEnd : kStringFalseEnd);
  writer->Untrusted(value);
  writer->Own(tags.parameter_close);
}

void WriteArguments(const DsmlTags& tags, std::string_view json, PromptWriter* writer) {
  if (json.empty()) {
    return;
  }
  const absl::StatusOr<PythonJson> arguments = PythonJson::Parse(json);
  if (arguments.ok() && arguments->kind == PythonJson::Kind::kNull) {
    return;
  }
  if (!arguments.ok() || arguments->kind != PythonJson::Kind::kObject) {
    WriteParameter(tags, "arguments", json, /*is_string=*/true, writer);
    return;
  }
  for (size_t i = 0; i < arguments->items.size(); ++i) {
    if (i > 0) {
      writer->Own("\n");
    }
    const PythonJson& value = arguments->items[i];
    const bool is_string = value.kind == PythonJson::Kind::kString;
    WriteParameter(tags, arguments->keys[i], is_string ? value.text : value.Dump(),
                   is_string, writer);
  }
}

// A cursor over the text of a block.
class StrictReader {
 public:
  StrictReader(const DsmlTags& tags, bool is_lenient, std::string_view text)
      : tags_(tags), is_lenient_(is_lenient), rest_(text) {}

  std::string_view rest() const { return rest_; }

  absl::StatusOr<std::vector<ToolCall>> Block() {
    std::vector<ToolCall> calls;
    TESSERA_RETURN_IF_ERROR(Expect(tags_.calls_open));
    TESSERA_RETURN_IF_ERROR(Expect("\n"));
    while (Take(tags_.invoke_open)) {
      TESSERA_ASSIGN_OR_RETURN(ToolCall call, Call());
      calls.push_back(std::move(call));
      if (is_cut_) {
        return calls;
      }
    }
    TESSERA_RETURN_IF_ERROR(Expect(tags_.calls_close));
    if (calls.empty()) {
      return InvalidArgumentF("tool block without a call");
    }
    return calls;
  }

 private:
  absl::StatusOr<ToolCall> Call() {
    ToolCall call;
    TESSERA_ASSIGN_OR_RETURN(call.name, Until(kNameEnd));
    TESSERA_RETURN_IF_ERROR(Expect("\n"));
    Take("\n");  // the prompt of a call without parameters has an empty line here
    call.arguments.push_back('{');
    absl::flat_hash_set<std::string> keys;
    while (Take(tags_.parameter_open)) {
      TESSERA_RETURN_IF_ERROR(Parameter(&keys, &call.arguments));
    }
    call.arguments += "}";
    is_cut_ = is_lenient_ && rest_.empty() && !keys.empty();
    if (is_cut_) {
      return call;
    }
    TESSERA_RETURN_IF_ERROR(Expect(tags_.invoke_close));
    TESSERA_RETURN_IF_ERROR(Expect("\n"));
    return call;
  }

  absl::Status Parameter(absl::flat_hash_set<std::string>* keys, std::string* arguments) {
    TESSERA_ASSIGN_OR_RETURN(const std::string key, Until("\" string=\""));
    const bool is_string = Take("true\">");
    if (!is_string) {
      TESSERA_RETURN_IF_ERROR(Expect("false\">"));
    }
    const size_t end = rest_.find(tags_.parameter_close);
    if (end == std::string_view::npos) {
      return InvalidArgumentF("parameter `{}` is not closed", key);
    }
    const std::string_view value = rest_.substr(0, end);
    rest_.remove_prefix(end + tags_.parameter_close.size());
    TESSERA_RETURN_IF_ERROR(Expect("\n"));
    if (!keys->insert(key).second) {
      return InvalidArgumentF("parameter `{}` twice", key);
    }
    if (!is_string && !is_lenient_ && !PythonJson::Parse(value).ok()) {
      return InvalidArgumentF("value of parameter `{}` is no json", key);
    }
    AppendArgument(key, value, is_string, /*is_open=*/false, arguments);
    return absl::OkStatus();
  }

  bool Take(std::string_view text) {
    if (!rest_.starts_with(text)) {
      return false;
    }
    rest_.remove_prefix(text.size());
    return true;
  }

  absl::Status Expect(std::string_view text) {
    if (Take(text)) {
      return absl::OkStatus();
    }
    return InvalidArgumentF("tool block has `{}`, expected `{}`", rest_.substr(0, 40),
                            text);
  }

  // A name or a key: on one line, up to `end`.
  absl::StatusOr<std::string> Until(std::string_view end) {
    const size_t pos = rest_.substr(0, rest_.find('\n')).find(end);
    if (pos == std::string_view::npos) {
      return InvalidArgumentF("tool block has `{}`, expected a tag that ends with `{}`",
                              rest_.substr(0, 40), end);
    }
    std::string name(rest_.substr(0, pos));
    rest_.remove_prefix(pos + end.size());
    return name;
  }

  const DsmlTags& tags_;
  const bool is_lenient_;
  bool is_cut_ = false;  // the text ended after the line of a parameter
  std::string_view rest_;
};

}  // namespace

DsmlTags::DsmlTags(const EncodingGeneration& generation) {
  const auto tag = [](std::string_view start, std::string_view name,
                      std::string_view end) {
    return fmt::format("{}{}{}{}", start, kDsmlToken, name, end);
  };
  calls_open = tag("<", generation.calls_tag, ">");
  calls_close = tag("</", generation.calls_tag, ">");
  invoke_open = tag("<", generation.invoke_tag, " name=\"");
  invoke_close = tag("</", generation.invoke_tag, ">");
  parameter_open = tag("<", generation.parameter_tag, " name=\"");
  parameter_close = tag("</", generation.parameter_tag, ">");
}

void WriteToolCalls(const DsmlTags& tags, const std::vector<ToolCall>& calls,
                    PromptWriter* writer) {
  writer->Own(tags.calls_open);
  for (const ToolCall& call : calls) {
    writer->Own("\n");
    writer->Own(tags.invoke_open);
    writer->Untrusted(call.name);
    writer->Own(kNameEnd);
    writer->Own("\n");
    WriteArguments(tags, call.arguments, writer);
    writer->Own("\n");
    writer->Own(tags.invoke_close);
  }
  writer->Own("\n");
  writer->Own(tags.calls_close);
}

void AppendArgument(std::string_view key, std::string_view value, bool is_string,
                    bool is_open, std::string* arguments) {
  if (arguments->size() > 1) {
    *arguments += ", ";
  }
  *arguments += PythonJsonString(key);
  *arguments += ": ";
  if (!is_string) {
    *arguments += value;
    return;
  }
  *arguments += PythonJsonString(value);
  if (is_open) {
    arguments->pop_back();
  }
}

absl::StatusOr<std::vector<ToolCall>> ReadToolCalls(const DsmlTags& tags, bool is_lenient,
                                                    std::string_view* text) {
  StrictReader reader(tags, is_lenient, *text);
  TESSERA_ASSIGN_OR_RETURN(std::vector<ToolCall> calls, reader.Block());
  *text = reader.rest();
  return calls;
}

}  // namespace tessera::model
