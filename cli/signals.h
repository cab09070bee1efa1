// SignalWatcher: SIGINT and SIGTERM as events. The first asks for a drain, the second
// ends the process at once.
#ifndef TESSERA_CLI_SIGNALS_H_
#define TESSERA_CLI_SIGNALS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/mutex.h"

namespace tessera::cli {

// Create it in main before any other thread, so that all threads inherit the blocked
// signals. One per process; it lives until the process ends.
class SignalWatcher {
 public:
  static SignalWatcher* Start();

  // Blocks until the first signal; false after `timeout` without one.
  bool WaitForFirst(absl::Duration timeout) const {
    return first_.WaitForNotificationWithTimeout(timeout);
  }
  bool signalled() const { return first_.HasBeenNotified(); }

 private:
  SignalWatcher() = default;
  void Watch();

  Notification first_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_SIGNALS_H_
