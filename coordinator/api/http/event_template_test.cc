#include "coordinator/api/http/event_template.h"

#include <random>
#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

std::string Event(std::string_view text) {
  return "data: " + DumpJson({{"a", "é\"x"}, {"delta", {{"content", text}}}, {"z", 1}}) +
         "\n\n";
}

TEST(EventTemplate, FillsInWhatTheJsonWouldHave) {
  const EventTemplate event(Event(EventTemplate::kHole));
  for (const std::string_view text :
       {"", "plain", " two words", "a\"b\\c/d", "line\nand\ttab\x01", "\x7f", "ü 中 😀",
        "half \xe4\xb8", "\xff\xfe", "</script>"}) {
    EXPECT_EQ(event.Fill(text), Event(text)) << text;
  }
}

TEST(EventTemplate, FillsInTheNumber) {
  const auto event = [](std::string_view text, const json& number) {
    return DumpJson({{"delta", text}, {"sequence_number", number}, {"type", "t"}});
  };
  const EventTemplate numbered(
      event(EventTemplate::kHole, std::string(EventTemplate::kNumberHole)));
  EXPECT_EQ(numbered.Fill("a\"b", 1234567), event("a\"b", 1234567));
  EXPECT_EQ(numbered.Fill("", 0), event("", 0));
}

TEST(EventTemplate, AnyBytesAreSpelledAsJsonSpellsThem) {
  constexpr unsigned kSeed = 17;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  for (int i = 0; i < 2000; ++i) {
    std::string text(random() % 8, '\0');
    for (char& c : text) {
      c = static_cast<char>(random());
    }
    std::string spelled;
    AppendJsonString(text, &spelled);
    EXPECT_EQ(spelled, DumpJson(json(text)));
  }
}

TEST(EventTemplateDeathTest, OneHoleIsNeeded) {
  EXPECT_DEATH(EventTemplate(Event("text")), "");
  const std::string one = Event(EventTemplate::kHole);
  EXPECT_DEATH(EventTemplate(one + one), "");
}

}  // namespace
}  // namespace tessera::coordinator
