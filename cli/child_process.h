// ChildProcess: a process that this one started and answers for: started in a process
// group of its own, ended when the thread that started it ends, reaped when it ends. For
// `serve`, which runs workers and shards.
#ifndef TESSERA_CLI_CHILD_PROCESS_H_
#define TESSERA_CLI_CHILD_PROCESS_H_

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <signal.h>
#include <sys/types.h>

#include "common/clock.h"

namespace tessera::cli {

struct ChildOptions {
  std::string name;                  // for logs
  std::vector<std::string> command;  // program first; looked up in PATH
  std::vector<std::pair<std::string, std::string>> environment;  // over ours
  // What the kernel sends it when the thread that started it ends, at the latest with
  // this process. SIGTERM is for a program that has children of its own to end.
  int death_signal = SIGKILL;
};

// External synchronisation. Its destructor kills what still runs.
class ChildProcess {
 public:
  // kUnavailable: the program cannot be started, with the system's reason.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const ChildOptions& options,
                                                             Clock* clock);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Reaps it if it has ended. Never blocks.
  bool running();

  // How it ended, once it has: "exit code 1", "signal 9".
  const std::optional<std::string>& outcome() const { return outcome_; }

  // SIGTERM to its process group; does not wait.
  void Ask();

  // SIGTERM to its process group, SIGKILL after `grace`; returns when it is reaped.
  void Stop(absl::Duration grace);

  pid_t pid() const { return pid_; }
  const std::string& name() const { return name_; }

 private:
  ChildProcess(std::string name, pid_t pid, Clock* clock)
      : name_(std::move(name)), pid_(pid), clock_(clock) {}

  const std::string name_;
  const pid_t pid_;
  Clock* const clock_;
  std::optional<std::string> outcome_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CHILD_PROCESS_H_
