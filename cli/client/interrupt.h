// Interrupt: Ctrl-C as a file descriptor, for programs that go on after it.
//
// It stands beside LineReader and HttpClient, which both stop waiting when the descriptor
// is readable. A server, which Ctrl-C ends, uses cli/signals.h instead.
#ifndef TESSERA_CLI_CLIENT_INTERRUPT_H_
#define TESSERA_CLI_CLIENT_INTERRUPT_H_

#include <memory>

#include "absl/status/statusor.h"

namespace tessera::cli {

// Owns the descriptor. External synchronisation, but the descriptor may be watched from
// everywhere.
class Interrupt {
 public:
  // Blocks SIGINT in this thread and those that it starts, so create it before any.
  // kInternal: the system has no descriptor left.
  static absl::StatusOr<std::unique_ptr<Interrupt>> Create();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Readable from the moment that the user pressed Ctrl-C until Take.
  int descriptor() const { return descriptor_; }

  // True if Ctrl-C was pressed since the last call. Does not block.
  bool Take();

 private:
  explicit Interrupt(int descriptor) : descriptor_(descriptor) {}

  const int descriptor_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_INTERRUPT_H_
