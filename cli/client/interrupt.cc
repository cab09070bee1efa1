#include "cli/client/interrupt.h"

#include <cerrno>
#include <cstring>

#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/status.h"

namespace tessera::cli {

absl::StatusOr<std::unique_ptr<Interrupt>> Interrupt::Create() {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const int descriptor = ::signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  if (descriptor < 0) {
    return InternalF("cannot watch for Ctrl-C: {}", std::strerror(errno));
  }
  return std::unique_ptr<Interrupt>(new Interrupt(descriptor));
}

Interrupt::~Interrupt() { ::close(descriptor_); }

bool Interrupt::Take() {
  bool taken = false;
  signalfd_siginfo info;
  while (::read(descriptor_, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    taken = true;
  }
  return taken;
}

}  // namespace tessera::cli
