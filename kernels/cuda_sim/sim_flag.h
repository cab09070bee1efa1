// SimFlag: a 64-bit word of pinned memory that streams wait for (cuStreamWaitValue64, its
// comparison cyclic). The host stores it when what it has written is there; work that
// waits may be enqueued, or captured, long before.
//
// A wait puts its stream after all that the host did before the first store that it may
// have seen, whichever it saw: with SimMachine::HostWrites, memory that a stream reads
// without that wait, or after one that an old value ends, is a finding, and so is memory
// that the host writes while a stream may still read it. Host threads count as one: what
// another thread did before an enqueue is before it.
#ifndef TESSERA_KERNELS_CUDA_SIM_SIM_FLAG_H_
#define TESSERA_KERNELS_CUDA_SIM_SIM_FLAG_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/cuda_sim/sim_machine.h"

namespace tessera::kernels::cuda_sim {

// Thread-safe.
class SimFlag {
 public:
  // As of the devices of a real machine: kUnimplemented where a stream cannot wait for a
  // flag. Here all can, but for a CallFault.
  static absl::Status CheckSupport(const SimMachine& machine);
  // Holds 0. Errors of CheckSupport; kResourceExhausted.
  static absl::StatusOr<std::unique_ptr<SimFlag>> Create(
      std::shared_ptr<SimMachine> machine);
  // Waits for the devices, as a free of pinned memory does: no stream may be waiting for
  // the flag.
  ~SimFlag();
  SimFlag(const SimFlag&) = delete;
  SimFlag& operator=(const SimFlag&) = delete;

  // By the host.
  void Store(uint64_t value);
  uint64_t Load() const;

 private:
  friend class SimStream;
  struct State;
  class WaitOp;

  SimFlag(std::shared_ptr<SimMachine> machine, std::shared_ptr<State> state);

  const std::shared_ptr<SimMachine> machine_;
  const std::shared_ptr<State> state_;  // shared with what is enqueued
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_SIM_FLAG_H_
