#include "model/config/json_fields.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

nlohmann::json Document() {
  return nlohmann::json::parse(R"({"i":7,"n":-3,"f":2.5,"b":true,"t":"two","z":null,)"
                               R"("huge":18446744073709551615,"l":[1,2],"o":{}})");
}

TEST(JsonFields, ReadsEachTypeAndFallsBackWhereAbsent) {
  const nlohmann::json document = Document();
  JsonFields fields(document);
  EXPECT_EQ(fields.Int("i", {0, 10}), 7);
  EXPECT_EQ(fields.Int("n", {-5, 10}), -3);
  EXPECT_EQ(fields.Int("absent", {0, 10}, 4), 4);
  EXPECT_EQ(fields.Int("z", {0, 10}, 5), 5);
  EXPECT_EQ(fields.Number("f", {0, 3}), 2.5);
  EXPECT_EQ(fields.Number("i", {0, 10}), 7.0);
  EXPECT_EQ(fields.Number("absent", {0, 3}, 1.0), 1.0);
  EXPECT_TRUE(fields.Bool("b"));
  EXPECT_FALSE(fields.Bool("absent", false));
  EXPECT_EQ(fields.Choice("t", {"one", "two"}), 1u);
  EXPECT_EQ(fields.Choice("absent", {"one", "two"}, 0), 0u);
  EXPECT_THAT(fields.Ints("l", {{0, 9}, 2, false}), ElementsAre(1, 2));
  EXPECT_THAT(fields.Ints("i", {{0, 9}, 2, true}), ElementsAre(7));
  EXPECT_TRUE(fields.Ints("absent", {{0, 9}, 2, true}).empty());
  fields.Refuse("z", "");
  EXPECT_TRUE(fields.status().ok()) << fields.status();
}

struct FaultCase {
  std::function<void(JsonFields&)> read;
  const char* message;
};

std::vector<FaultCase> FaultCases() {
  return {
      {[](JsonFields& f) {
         f.Int("absent", {0, 1});
       },
       "absent is missing"},
      {[](JsonFields& f) {
         f.Int("z", {0, 1});
       },
       "z is missing"},
      {[](JsonFields& f) {
         f.Int("i", {0, 6});
       },
       "i is 7, expected an integer from 0 to 6"},
      {[](JsonFields& f) {
         f.Int("n", {0, 6});
       },
       "n is -3, expected"},
      {[](JsonFields& f) {
         f.Int("huge", {0, 6});
       },
       "huge is 18446744073709551615"},
      {[](JsonFields& f) {
         f.Int("f", {0, 6});
       },
       "f is 2.5, expected an integer"},
      {[](JsonFields& f) {
         f.Int("b", {0, 6});
       },
       "b is true, expected an integer"},
      {[](JsonFields& f) {
         f.Int("t", {0, 6}, 3);
       },
       "t is \"two\", expected an integer"},
      {[](JsonFields& f) {
         f.Number("b", {0, 6});
       },
       "b is true, expected a number"},
      {[](JsonFields& f) {
         f.Number("f", {0, 2});
       },
       "f is 2.5, expected a number from 0 to 2"},
      {[](JsonFields& f) { f.Bool("i"); }, "i is 7, expected true or false"},
      {[](JsonFields& f) {
         f.Choice("t", {"one", "three"});
       },
       "t is \"two\", expected \"one\" or \"three\""},
      {[](JsonFields& f) { f.Choice("i", {"one"}); }, "i is 7, expected \"one\""},
      {[](JsonFields& f) {
         f.Ints("l", {{0, 9}, 1, false});
       },
       "a list of at most 1"},
      {[](JsonFields& f) {
         f.Ints("l", {{2, 9}, 2, false});
       },
       "l is 1, expected an integer"},
      {[](JsonFields& f) {
         f.Ints("i", {{0, 9}, 2, false});
       },
       "i is 7, expected a list"},
      {[](JsonFields& f) { f.Refuse("i", "why not"); },
       "i is 7, expected it to be absent"},
      {[](JsonFields& f) { f.Refuse("o", "why not"); }, "absent: why not"},
      {[](JsonFields& f) {
         f.RefuseOthers({"i", "n", "f", "b", "t", "huge", "l"});
       },
       "o is not a known field"},
  };
}

TEST(JsonFields, FaultsNameFieldFoundAndExpected) {
  for (const FaultCase& test : FaultCases()) {
    const nlohmann::json document = Document();
    JsonFields fields(document);
    test.read(fields);
    EXPECT_EQ(fields.status().code(), absl::StatusCode::kInvalidArgument) << test.message;
    EXPECT_THAT(std::string(fields.status().message()), HasSubstr(test.message))
        << test.message;
  }
}

TEST(JsonFields, FirstFaultIsKept) {
  const nlohmann::json document = Document();
  JsonFields fields(document);
  fields.Int("first", {0, 1});
  fields.Int("second", {0, 1});
  EXPECT_EQ(fields.status().message(), "first is missing");
}

TEST(JsonFields, SomethingElseThanAnObjectIsAFault) {
  const nlohmann::json document = nlohmann::json::array({1});
  JsonFields fields(document, "rope_scaling.");
  EXPECT_EQ(fields.Int("i", {0, 1}, 1), 1);
  fields.RefuseOthers({});
  EXPECT_EQ(fields.status().message(), "rope_scaling: found [1], expected an object");
}

}  // namespace
}  // namespace tessera::model
