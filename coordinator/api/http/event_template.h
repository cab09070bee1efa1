// EventTemplate: the text of server-sent events that differ in one string alone, as the
// chunks of a stream do, and perhaps in their number. It is made once from the JSON of
// such an event and filled in per token, so that a token costs no JSON object; what it
// writes is what the JSON would have given, by construction.
#ifndef TESSERA_COORDINATOR_API_HTTP_EVENT_TEMPLATE_H_
#define TESSERA_COORDINATOR_API_HTTP_EVENT_TEMPLATE_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace tessera::coordinator {

// Immutable.
class EventTemplate {
 public:
  // Stands for the string in the JSON that the template is made from. Nothing else may
  // hold it.
  static constexpr std::string_view kHole = "\x01hole\x01";

  // Likewise for a whole number.
  static constexpr std::string_view kNumberHole = "\x01number\x01";

  // `event`: the whole text of an event whose JSON has kHole as a string, once, and
  // perhaps kNumberHole behind it.
  explicit EventTemplate(std::string_view event);

  // The event with `text` as a JSON string; invalid UTF-8 becomes U+FFFD. `number` is
  // used where there is a place for it.
  std::string Fill(std::string_view text, int64_t number = 0) const;

 private:
  std::string before_;
  std::string between_;  // the two holes
  std::string after_;
  bool numbered_ = false;
};

// Appends `text` as a JSON string with its quotes, as DumpJson spells it.
void AppendJsonString(std::string_view text, std::string* out);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_EVENT_TEMPLATE_H_
