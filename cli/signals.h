// SignalWatcher: SIGINT and SIGTERM as events. The first asks for a drain, the second
// ends the process at once. SIGHUP asks a server to read its files again.
#ifndef TESSERA_CLI_SIGNALS_H_
#define TESSERA_CLI_SIGNALS_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/mutex.h"

namespace tessera::cli {

// Create it in main before any other thread, so that all threads inherit the blocked
// signals. One per process; it lives until the process ends.
class SignalWatcher {
 public:
  // What SIGHUP does: as ever, which ends the process, or count as a wish to reload.
  enum class Hangup { kEnds, kReloads };

  static SignalWatcher* Start(Hangup hangup = Hangup::kEnds);

  // Blocks until the first signal; false after `timeout` without one.
  bool WaitForFirst(absl::Duration timeout) const {
    return first_.WaitForNotificationWithTimeout(timeout);
  }
  bool signalled() const { return first_.HasBeenNotified(); }

  // How often SIGHUP came.
  int64_t hangups() const { return hangups_.load(); }

 private:
  SignalWatcher() = default;
  void Watch(Hangup hangup);

  Notification first_;
  std::atomic<int64_t> hangups_{0};
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_SIGNALS_H_
