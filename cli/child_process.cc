#include "cli/child_process.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "fmt/format.h"
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/status.h"

namespace tessera::cli {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(2);

// The child's side between fork and exec: only calls that are safe there.
[[noreturn]] void RunChild(char* const* argv, char* const* envp, int death_signal,
                           pid_t parent, int error_pipe) {
  ::setpgid(0, 0);
  // A parent that died before this line is noticed by its pid.
  ::prctl(PR_SET_PDEATHSIG, death_signal);
  if (::getppid() != parent) {
    ::_exit(127);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::signal(SIGCHLD, SIG_DFL);
  // Sockets of ours must not live on in it: a client would wait for the end of a
  // connection that we closed. The error pipe closes at exec, too.
  if (::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    const int limit = static_cast<int>(::sysconf(_SC_OPEN_MAX));
    for (int descriptor = 3; descriptor < limit; ++descriptor) {
      ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    }
  }
  ::execvpe(argv[0], argv, envp);
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(error_pipe, &error, sizeof(error));
  ::_exit(127);
}

std::vector<std::string> Environment(const ChildOptions& options) {
  const auto replaced = [&](std::string_view entry) {
    const std::string_view name = entry.substr(0, entry.find('='));
    return std::any_of(options.environment.begin(), options.environment.end(),
                       [&](const auto& variable) { return variable.first == name; });
  };
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    // Of two entries with one name, a program reads the first.
    if (!replaced(*entry)) {
      out.emplace_back(*entry);
    }
  }
  for (const auto& [name, value] : options.environment) {
    out.push_back(fmt::format("{}={}", name, value));
  }
  return out;
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) {
    out.push_back(word.data());
  }
  out.push_back(nullptr);
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const ChildOptions& options, Clock* clock) {
  std::vector<std::string> command = options.command;
  std::vector<std::string> environment = Environment(options);
  const std::vector<char*> argv = Pointers(command);
  const std::vector<char*> envp = Pointers(environment);
  int error_pipe[2];
  if (::pipe2(error_pipe, O_CLOEXEC) != 0) {
    return UnavailableF("cannot start {}: {}", options.name, std::strerror(errno));
  }
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    RunChild(argv.data(), envp.data(), options.death_signal, parent, error_pipe[1]);
  }
  const int fork_error = errno;
  ::close(error_pipe[1]);
  int error = pid < 0 ? fork_error : 0;
  if (pid > 0) {
    // End of file: exec succeeded and closed the pipe.
    if (::read(error_pipe[0], &error, sizeof(error)) == sizeof(error)) {
      ::waitpid(pid, nullptr, 0);
    } else {
      error = 0;
    }
  }
  ::close(error_pipe[0]);
  if (error != 0) {
    return UnavailableF("cannot start {} ({}): {}", options.name, options.command[0],
                        std::strerror(error));
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(options.name, pid, clock));
}

ChildProcess::~ChildProcess() { Stop(absl::ZeroDuration()); }

bool ChildProcess::running() {
  if (outcome_.has_value()) {
    return false;
  }
  int status = 0;
  const pid_t waited = ::waitpid(pid_, &status, WNOHANG);
  if (waited < 0) {
    // Who started us ignores SIGCHLD, which we inherit: the kernel reaps by itself.
    outcome_ = "an unknown end";
    return false;
  }
  if (waited == 0) {
    return true;
  }
  outcome_ = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                 : fmt::format("exit code {}", WEXITSTATUS(status));
  return false;
}

void ChildProcess::Ask() {
  if (running()) {
    ::kill(-pid_, SIGTERM);
  }
}

void ChildProcess::Stop(absl::Duration grace) {
  if (!running()) {
    ::kill(-pid_, SIGKILL);  // what it left in its group, if anything
    return;
  }
  if (grace > absl::ZeroDuration()) {
    ::kill(-pid_, SIGTERM);
    const absl::Time deadline = clock_->Now() + grace;
    while (running() && clock_->Now() < deadline) {
      clock_->Sleep(kPollInterval);
    }
  }
  ::kill(-pid_, SIGKILL);
  while (running()) {
    clock_->Sleep(kPollInterval);
  }
}

}  // namespace tessera::cli
