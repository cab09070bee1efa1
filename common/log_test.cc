#include "common/log.h"

#include "gtest/gtest.h"

namespace tessera::log {
namespace {

TEST(JsonString, EscapesQuotesControlsAndBrokenUtf8) {
  EXPECT_EQ(JsonString("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
  EXPECT_EQ(JsonString("caf\xC3\xA9"), "\"caf\xC3\xA9\"");
  EXPECT_EQ(JsonString("\xC3("), "\"\xEF\xBF\xBD(\"");
  EXPECT_EQ(JsonString("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(Field, SpellsItsValueAsJson) {
  EXPECT_EQ(Field("k", 3).json, "3");
  EXPECT_EQ(Field("k", true).json, "true");
  EXPECT_EQ(Field("k", "x\ty").json, "\"x\\u0009y\"");
}

}  // namespace
}  // namespace tessera::log
