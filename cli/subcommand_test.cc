#include "cli/subcommand.h"

#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::Status Echo(Arguments arguments) {
  if (arguments.empty()) {
    return absl::InvalidArgumentError("nothing to echo");
  }
  if (arguments.front() == "break") {
    return absl::UnavailableError("broken");
  }
  return absl::OkStatus();
}

const std::vector<Subcommand>& Table() {
  static const std::vector<Subcommand> table = {{"echo", "Says it again.", Echo},
                                                {"other", "Does nothing.", Echo}};
  return table;
}

struct Outcome {
  int code = 0;
  std::string out;
  std::string err;
};

Outcome RunWith(const std::vector<std::string>& arguments) {
  std::ostringstream out;
  std::ostringstream err;
  Outcome outcome;
  outcome.code = Dispatch(Table(), arguments, out, err);
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

TEST(Dispatch, RunsTheNamedSubcommandWithTheRestOfTheArguments) {
  EXPECT_EQ(RunWith({"echo", "hello"}).code, 0);
  EXPECT_EQ(RunWith({"echo", "hello"}).err, "");
}

TEST(Dispatch, AUsageErrorExitsWithTwo) {
  const Outcome outcome = RunWith({"echo"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("tessera echo: nothing to echo\n"));
}

TEST(Dispatch, AnyOtherErrorExitsWithOne) {
  const Outcome outcome = RunWith({"echo", "break"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.err, "tessera echo: broken\n");
}

TEST(Dispatch, AnUnknownSubcommandExitsWithTwoAndListsTheKnownOnes) {
  const Outcome outcome = RunWith({"sevre"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err,
              AllOf(HasSubstr("sevre is not a subcommand"), HasSubstr("Says it again.")));
  EXPECT_THAT(outcome.out, IsEmpty());
}

TEST(Dispatch, HelpListsEverySubcommandOnStdout) {
  for (const char* flag : {"--help", "-h", "help"}) {
    const Outcome outcome = RunWith({flag});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_THAT(outcome.out,
                AllOf(HasSubstr("echo   Says it again.\n"), HasSubstr("other")));
  }
}

TEST(Dispatch, NoArgumentsIsAUsageErrorWithTheHelp) {
  const Outcome outcome = RunWith({});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("Usage:"));
}

TEST(Dispatch, VersionIsPrinted) {
  const Outcome outcome = RunWith({"--version"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, ::testing::StartsWith("tessera "));
}

}  // namespace
}  // namespace tessera::cli
