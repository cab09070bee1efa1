#include "coordinator/api/http/event_template.h"

#include <algorithm>

#include "nlohmann/json.hpp"

#include "common/check.h"
#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {

EventTemplate::EventTemplate(std::string_view event) {
  std::string hole;
  AppendJsonString(kHole, &hole);
  const size_t at = event.find(hole);
  TESSERA_CHECK(at != std::string_view::npos);
  TESSERA_CHECK(event.find(hole, at + 1) == std::string_view::npos);
  before_ = event.substr(0, at);
  after_ = event.substr(at + hole.size());
}

std::string EventTemplate::Fill(std::string_view text) const {
  std::string event;
  event.reserve(before_.size() + text.size() + 2 + after_.size());
  event += before_;
  AppendJsonString(text, &event);
  event += after_;
  return event;
}

void AppendJsonString(std::string_view text, std::string* out) {
  // Most tokens are ASCII without anything to escape.
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return c >= 0x20 && c < 0x7F && c != '"' && c != '\\';
  });
  if (!plain) {
    *out += DumpJson(nlohmann::json(text));
    return;
  }
  *out += '"';
  *out += text;
  *out += '"';
}

}  // namespace tessera::coordinator
