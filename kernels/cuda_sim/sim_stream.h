// SimStream, SimEvent, SimGraph: the streams, events and graphs of a SimMachine, with the
// CUDA runtime's meaning of each call. A call that capture forbids, or one that no device
// could do, is a Status; what a kernel or copy does wrong is a Finding of the machine.
#ifndef TESSERA_KERNELS_CUDA_SIM_SIM_STREAM_H_
#define TESSERA_KERNELS_CUDA_SIM_SIM_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda_sim/grid_runner.h"
#include "kernels/cuda_sim/sim_machine.h"

namespace tessera::kernels::cuda_sim {

class SimFlag;

// What a capture recorded. Kernel arguments are copies of the time of the capture.
// Copyable; shares what it holds.
class SimGraph {
 public:
  explicit SimGraph(std::shared_ptr<Capture> capture) : capture_(std::move(capture)) {}

  // Kernels, copies, memsets, collectives and waits for flags.
  int64_t num_nodes() const;
  // It lies in the host's memory.
  static int64_t device_bytes() { return 0; }

 private:
  friend class SimStream;
  std::shared_ptr<Capture> capture_;
};

// One thread uses an event at a time.
class SimEvent {
 public:
  explicit SimEvent(std::shared_ptr<SimMachine> machine) : machine_(std::move(machine)) {}

  // Until the last record is reached; at once if there is none.
  absl::Status Synchronize();
  // Whether it is reached, after what can run has run: work that waits for another rank,
  // whose thread may still bring it, is no error here.
  absl::StatusOr<bool> Query();

 private:
  friend class SimStream;
  std::shared_ptr<SimMachine> machine_;
  std::shared_ptr<EventRecord> record_;
};

using cuda::CopyShape;

// One thread uses a stream at a time.
class SimStream {
 public:
  // kInvalidArgument: no such device.
  static absl::StatusOr<std::unique_ptr<SimStream>> Create(
      std::shared_ptr<SimMachine> machine, int device);
  // Waits for what is enqueued.
  ~SimStream();
  SimStream(const SimStream&) = delete;
  SimStream& operator=(const SimStream&) = delete;

  absl::Status LaunchKernel(std::string_view name, const cuda::LaunchConfig& config,
                            KernelBody body);
  // Host memory that is not pinned is read before the call returns, and written before
  // it returns.
  absl::Status MemcpyAsync(void* to, const void* from, size_t bytes);
  absl::Status Memcpy2DAsync(void* to, const void* from, const CopyShape& shape);
  absl::Status MemsetAsync(void* to, uint8_t value, size_t bytes);
  // Memory that this stream may use from here on, others after an event.
  absl::StatusOr<void*> MallocAsync(size_t bytes);
  absl::Status FreeAsync(void* memory);
  absl::Status Record(SimEvent& event);
  absl::Status Wait(const SimEvent& event);
  // Until the flag holds `value` or more (sim_flag.h, where it is defined).
  absl::Status WaitFlag(const SimFlag& flag, uint64_t value);
  // Runs all that is enqueued. The machine's first error or finding; a collective that
  // some rank has not entered is one, since nobody else could make it come, and so is a
  // flag that is not stored: who waits while another thread may still do it polls an
  // event.
  absl::Status Synchronize();
  // Whether all that is enqueued has run, after what can run has run; SimEvent::Query.
  absl::StatusOr<bool> Query();

  absl::Status BeginCapture();
  // kFailedPrecondition: a stream that joined the capture was not joined back.
  absl::StatusOr<SimGraph> EndCapture();
  absl::Status Launch(const SimGraph& graph);

 private:
  friend class SimNcclComm;

  SimStream(std::shared_ptr<SimMachine> machine, std::shared_ptr<StreamQueue> queue);

  absl::Status NotWhileCapturing(std::string_view call) const;
  absl::Status Enqueue(std::string_view name, cuda::LaunchConfig config,
                       std::function<absl::Status(const Operation&)> run)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(machine_->mutex_);

  const std::shared_ptr<SimMachine> machine_;
  const std::shared_ptr<StreamQueue> queue_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_SIM_STREAM_H_
