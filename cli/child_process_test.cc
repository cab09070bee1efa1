#include "cli/child_process.h"

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include <signal.h>
#include <unistd.h>

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

TEST(ChildProcess, InheritsNoDescriptorOfOurs) {
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);  // without O_CLOEXEC
  const auto child =
      StartShell("test ! -e /proc/self/fd/" + std::to_string(pipe_ends[1]));
  AwaitEnd(*child);
  EXPECT_EQ(child->outcome(), "exit code 0");
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
}

TEST(ChildProcess, ItsEnvironmentWinsOverOurs) {
  ASSERT_EQ(::setenv("TESSERA_TEST_CODE", "9", /*overwrite=*/1), 0);
  const auto child = StartShell("exit $TESSERA_TEST_CODE");
  AwaitEnd(*child);
  EXPECT_EQ(child->outcome(), "exit code 7");
  ::unsetenv("TESSERA_TEST_CODE");
}

TEST(ChildProcess, EndsWhereSigchldIsIgnored) {
  const auto before = ::signal(SIGCHLD, SIG_IGN);
  const auto child = StartShell("exit 0");
  AwaitEnd(*child);
  EXPECT_FALSE(child->running());
  ::signal(SIGCHLD, before);
}

TEST(ChildProcess, GetsItsDeathSignalWhenTheThreadThatStartedItEnds) {
  std::unique_ptr<ChildProcess> child;
  std::thread starter([&] {
    auto started = ChildProcess::Start({.name = "sleep",
                                        .command = {"sleep", "60"},
                                        .environment = {},
                                        .death_signal = SIGTERM},
                                       Clock::Real());
    ASSERT_TRUE(started.ok()) << started.status();
    child = *std::move(started);
  });
  starter.join();
  ASSERT_NE(child, nullptr);
  AwaitEnd(*child);
  EXPECT_EQ(child->outcome(), "signal 15");
}

TEST(ChildProcess, AProgramThatDoesNotExistIsAnError) {
  const auto child = ChildProcess::Start(
      {.name = "ghost", .command = {"/no/such/program"}, .environment = {}},
      Clock::Real());
  EXPECT_EQ(child.status().code(), absl::StatusCode::kUnavailable);
}

// Starts `script` and returns once it has set its trap, which it says by making a file.
std::unique_ptr<ChildProcess> StartTrapped(const std::string& trap) {
  const std::string path =
      ::testing::TempDir() + "child_process_test_" + std::to_string(::getpid());
  std::unique_ptr<ChildProcess> child = StartShell("trap " + trap + " TERM; : > " + path +
                                                   "; while true; do sleep 0.02; done");
  const absl::Time deadline = Clock::Real()->Now() + absl::Seconds(60);
  while (!std::filesystem::exists(path) && Clock::Real()->Now() < deadline) {
    Clock::Real()->Sleep(absl::Milliseconds(1));
  }
  EXPECT_TRUE(std::filesystem::remove(path));
  return child;
}

TEST(ChildProcess, StopEndsAProgramThatIgnoresSigterm) {
  const auto child = StartTrapped("''");
  child->Stop(absl::Milliseconds(50));
  EXPECT_EQ(child->outcome(), "signal 9");
}

TEST(ChildProcess, StopLetsAProgramEndByItself) {
  const auto child = StartTrapped("'exit 3'");
  child->Stop(absl::Seconds(60));
  EXPECT_EQ(child->outcome(), "exit code 3");
}

}  // namespace
}  // namespace tessera::cli
