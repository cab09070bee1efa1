#include "common/command_line.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::Not;
using ::testing::Pair;
using testing::StatusIs;
using ::testing::UnorderedElementsAre;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::vector<CommandLineRow> Rows() {
  std::vector<CommandLineRow> rows(6);
  rows[0] = {.name = "model",
             .positional = "MODEL",
             .type_name = "TEXT",
             .help = "folder",
             .heading = "Model"};
  rows[1] = {.name = "tensor-parallel-size",
             .short_letters = "tp",
             .type_name = "INT",
             .help = "ranks",
             .heading = "Parallelism"};
  rows[2] = {.name = "enable-prefix-caching",
             .help = "reuse",
             .heading = "Cache",
             .is_flag = true};
  rows[3] = {.name = "served-model-name",
             .type_name = "TEXT ...",
             .help = "names",
             .heading = "API",
             .is_list = true};
  rows[4] = {.name = "seed", .type_name = "INT", .help = "seed", .heading = "API"};
  rows[5] = {.name = "enable-lora", .help = "no", .value_optional = true};
  return rows;
}

absl::StatusOr<CommandLine> Read(const std::vector<std::string>& arguments) {
  return ReadCommandLine("serve", "Serves a model.", Rows(), arguments);
}

TEST(CommandLine, ValuesFollowTheirFlagOrAnEqualsSign) {
  const auto line = Read({"--seed", "3", "--tensor-parallel-size=4"});
  ASSERT_THAT(line, IsOk());
  EXPECT_THAT(line->texts,
              UnorderedElementsAre(Pair("seed", ElementsAre("3")),
                                   Pair("tensor-parallel-size", ElementsAre("4"))));
}

TEST(CommandLine, ShortFormsOfTwoLetters) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"-tp", "4"}, std::vector<std::string>{"-tp=4"}}) {
    const auto line = Read(arguments);
    ASSERT_THAT(line, IsOk());
    EXPECT_THAT(line->texts, ElementsAre(Pair("tensor-parallel-size", ElementsAre("4"))));
  }
}

TEST(CommandLine, FlagsComeInPairs) {
  EXPECT_THAT(Read({"--enable-prefix-caching"})->texts,
              ElementsAre(Pair("enable-prefix-caching", ElementsAre("true"))));
  EXPECT_THAT(Read({"--no-enable-prefix-caching"})->texts,
              ElementsAre(Pair("enable-prefix-caching", ElementsAre("false"))));
  EXPECT_THAT(Read({"--enable-prefix-caching", "--no-enable-prefix-caching"})->texts,
              ElementsAre(Pair("enable-prefix-caching", ElementsAre("false"))));
  EXPECT_THAT(Read({"--no-enable-prefix-caching", "--enable-prefix-caching"})->texts,
              ElementsAre(Pair("enable-prefix-caching", ElementsAre("true"))));
  EXPECT_THAT(Read({"--enable-prefix-caching=false"})->texts,
              ElementsAre(Pair("enable-prefix-caching", ElementsAre("false"))));
}

TEST(CommandLine, NegativeNumbersAreValues) {
  EXPECT_THAT(Read({"--seed", "-1"})->texts,
              ElementsAre(Pair("seed", ElementsAre("-1"))));
}

TEST(CommandLine, TheLastOfRepeatedValuesCounts) {
  EXPECT_THAT(Read({"--seed", "1", "--seed", "2"})->texts,
              ElementsAre(Pair("seed", ElementsAre("2"))));
}

TEST(CommandLine, ListsTakeSeveralValuesAndSeveralFlags) {
  EXPECT_THAT(Read({"--served-model-name", "a", "b", "--served-model-name", "c"})->texts,
              ElementsAre(Pair("served-model-name", ElementsAre("a", "b", "c"))));
}

TEST(CommandLine, APositionalNeedsNoFlag) {
  EXPECT_THAT(Read({"dir", "--seed", "1"})->texts,
              UnorderedElementsAre(Pair("model", ElementsAre("dir")),
                                   Pair("seed", ElementsAre("1"))));
  EXPECT_THAT(Read({"dir", "--model", "other"}),
              StatusIs(kInvalid, HasSubstr("given twice")));
}

TEST(CommandLine, AFlagWithoutItsValueIsAnError) {
  EXPECT_THAT(Read({"--seed"}), StatusIs(kInvalid, HasSubstr("--seed")));
  EXPECT_THAT(Read({"--served-model-name"}), StatusIs(kInvalid));
}

TEST(CommandLine, WhatIsUnknownIsLeftOver) {
  EXPECT_THAT(Read({"--sede=1"})->rest, ElementsAre("--sede=1"));
  EXPECT_THAT(Read({"dir", "extra"})->rest, ElementsAre("extra"));
  EXPECT_THAT(Read({})->rest, IsEmpty());
}

TEST(CommandLine, ARefusedOptionIsRecognisedWithAndWithoutAValue) {
  EXPECT_EQ(Read({"--enable-lora"})->texts.count("enable-lora"), 1u);
  EXPECT_EQ(Read({"--enable-lora", "x"})->texts.count("enable-lora"), 1u);
}

TEST(CommandLine, HelpShowsEveryOptionUnderItsHeading) {
  const auto line = Read({"--nonsense", "--help"});
  ASSERT_THAT(line, IsOk());
  ASSERT_TRUE(line->help.has_value());
  for (const char* part : {"Serves a model.", "MODEL", "--tensor-parallel-size INT",
                           "-tp", "Parallelism:", "--no-enable-prefix-caching",
                           "--print-config", "TESSERA_MAX_MODEL_LEN"}) {
    EXPECT_THAT(*line->help, HasSubstr(part));
  }
  EXPECT_THAT(*line->help, Not(HasSubstr("lora")));
}

TEST(CommandLine, PrintConfigIsSeen) {
  EXPECT_TRUE(Read({"--print-config"})->print_config);
  EXPECT_FALSE(Read({})->print_config);
}

}  // namespace
}  // namespace tessera
