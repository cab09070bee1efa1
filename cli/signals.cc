#include "cli/signals.h"

#include <thread>

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "common/log.h"

namespace tessera::cli {
namespace {

constexpr int kExitAtOnce = 130;  // as a shell reports a program ended by SIGINT

sigset_t WatchedSignals(SignalWatcher::Hangup hangup) {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGINT);
  ::sigaddset(&signals, SIGTERM);
  if (hangup == SignalWatcher::Hangup::kReloads) {
    ::sigaddset(&signals, SIGHUP);
  }
  return signals;
}

}  // namespace

SignalWatcher* SignalWatcher::Start(Hangup hangup) {
  const sigset_t signals = WatchedSignals(hangup);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  // Never destroyed: the watching thread runs until the process ends.
  static SignalWatcher* const watcher = [hangup] {
    auto* created = new SignalWatcher();
    static std::thread* const thread =
        new std::thread([created, hangup] { created->Watch(hangup); });
    static_cast<void>(thread);
    return created;
  }();
  return watcher;
}

void SignalWatcher::Watch(Hangup hangup) {
  const sigset_t signals = WatchedSignals(hangup);
  for (int seen = 0;;) {
    int signal = 0;
    if (::sigwait(&signals, &signal) != 0) {
      continue;
    }
    if (signal == SIGHUP) {
      hangups_.fetch_add(1);
      continue;
    }
    if (++seen > 1) {
      log::Warning("main", "second signal, ending at once", {{"signal", signal}});
      ::_exit(kExitAtOnce);
    }
    log::Info("main", "draining; a second signal ends at once", {{"signal", signal}});
    first_.Notify();
  }
}

}  // namespace tessera::cli
