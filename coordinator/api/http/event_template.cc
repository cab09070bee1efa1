#include "coordinator/api/http/event_template.h"

#include <algorithm>

#include "nlohmann/json.hpp"

#include "common/check.h"
#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {

namespace {

std::string Spelled(std::string_view text) {
  std::string out;
  AppendJsonString(text, &out);
  return out;
}

}  // namespace

EventTemplate::EventTemplate(std::string_view event) {
  const std::string hole = Spelled(kHole);
  const size_t at = event.find(hole);
  TESSERA_CHECK(at != std::string_view::npos);
  before_ = event.substr(0, at);
  std::string_view rest = event.substr(at + hole.size());
  const std::string number = Spelled(kNumberHole);
  const size_t number_at = rest.find(number);
  numbered_ = number_at != std::string_view::npos;
  if (numbered_) {
    between_ = rest.substr(0, number_at);
    rest.remove_prefix(number_at + number.size());
  }
  after_ = rest;
  // A second hole, or the number before the string, is a mistake of the caller.
  for (const std::string& part : {before_, between_, after_}) {
    TESSERA_CHECK(part.find(hole) == std::string::npos);
    TESSERA_CHECK(part.find(number) == std::string::npos);
  }
}

std::string EventTemplate::Fill(std::string_view text, int64_t number) const {
  constexpr size_t kQuotesAndNumber = 2 + 20;
  std::string event;
  event.reserve(before_.size() + text.size() + between_.size() + after_.size() +
                kQuotesAndNumber);
  event += before_;
  AppendJsonString(text, &event);
  event += between_;
  if (numbered_) {
    event += std::to_string(number);
  }
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
