#include "coordinator/api/json/json_source.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(JsonSource, AMemberIsTheTextThatTheClientWrote) {
  const std::string text =
      " { \"b\" : {\"z\":1.50, \"a\":[ {} , \"]}\" ]} ,\"n\":-1e5,\"t\" : true }";
  EXPECT_EQ(JsonMember(text, "b"), R"({"z":1.50, "a":[ {} , "]}" ]})");
  EXPECT_EQ(JsonMember(JsonMember(text, "b"), "a"), R"([ {} , "]}" ])");
  EXPECT_EQ(JsonMember(text, "n"), "-1e5");
  EXPECT_EQ(JsonMember(text, "t"), "true");
  EXPECT_EQ(JsonMember(text, "z"), "") << "a member of a member";
}

TEST(JsonSource, StringsMayHoldBracketsQuotesAndEscapes) {
  const std::string text = R"({"a":"\"{[\\","b":"x"})";
  EXPECT_EQ(JsonMember(text, "a"), R"("\"{[\\")");
  EXPECT_EQ(JsonMember(text, "b"), R"("x")");
}

TEST(JsonSource, OfEqualKeysTheLastCounts) {
  EXPECT_EQ(JsonMember(R"({"a":1,"\u0061":2,"b":3})", "a"), "2");
}

TEST(JsonSource, ElementsKeepTheirOrderAndTheirText) {
  EXPECT_THAT(JsonElements(R"([ 1 ,"a,]", [2,3],{"b":[4]},null])"),
              ElementsAre("1", R"("a,]")", "[2,3]", R"({"b":[4]})", "null"));
  EXPECT_THAT(JsonElements("[ ]"), IsEmpty());
  EXPECT_THAT(JsonElements("{}"), IsEmpty());
  EXPECT_EQ(JsonMember("{}", "a"), "");
  EXPECT_EQ(JsonMember("[1]", "a"), "");
  EXPECT_EQ(JsonMember("\xEF\xBB\xBF {\"a\":1}", "a"), "1") << "a byte order mark";
}

TEST(JsonSource, TextThatIsCutAnywhereEndsTheWalk) {
  const std::string text = R"({"a":[1,{"b":"c\"d"}],"e":{"f":[true,null]}})";
  for (size_t size = 0; size < text.size(); ++size) {
    const std::string cut = text.substr(0, size);
    EXPECT_LE(JsonMember(cut, "e").size(), size);
    EXPECT_LE(JsonElements(JsonMember(cut, "a")).size(), 2u);
  }
}

}  // namespace
}  // namespace tessera::coordinator
