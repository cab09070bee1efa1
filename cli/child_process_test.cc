#include "cli/child_process.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "common/clock.h"

namespace tessera::cli {
namespace {

std::unique_ptr<ChildProcess> StartShell(const std::string& script) {
  auto child = ChildProcess::Start({.name = "shell",
                                    .command = {"sh", "-c", script},
                                    .environment = {{"TESSERA_TEST_CODE", "7"}}},
                                   Clock::Real());
  EXPECT_TRUE(child.ok()) << child.status();
  return *std::move(child);
}

void AwaitEnd(ChildProcess& child) {
  const absl::Time deadline = Clock::Real()->Now() + absl::Seconds(20);
  while (child.running() && Clock::Real()->Now() < deadline) {
    Clock::Real()->Sleep(absl::Milliseconds(1));
  }
}

TEST(ChildProcess, ReportsTheExitCodeAndPassesTheEnvironment) {
  const auto child = StartShell("exit $TESSERA_TEST_CODE");
  AwaitEnd(*child);
  EXPECT_EQ(child->outcome(), "exit code 7");
}

TEST(ChildProcess, AProgramThatDoesNotExistIsAnError) {
  const auto child = ChildProcess::Start(
      {.name = "ghost", .command = {"/no/such/program"}, .environment = {}},
      Clock::Real());
  EXPECT_EQ(child.status().code(), absl::StatusCode::kUnavailable);
}

TEST(ChildProcess, StopEndsAProgramThatIgnoresSigterm) {
  const auto child = StartShell("trap '' TERM; while true; do sleep 1; done");
  child->Stop(absl::Milliseconds(50));
  EXPECT_EQ(child->outcome(), "signal 9");
}

TEST(ChildProcess, StopLetsAProgramEndByItself) {
  const auto child = StartShell("trap 'exit 3' TERM; while true; do sleep 0.05; done");
  Clock::Real()->Sleep(absl::Milliseconds(200));
  child->Stop(absl::Seconds(20));
  EXPECT_EQ(child->outcome(), "exit code 3");
}

}  // namespace
}  // namespace tessera::cli
