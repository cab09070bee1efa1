// StagedRows: rows that the host gathers, on their way to a device: two generations of
// pinned memory at fixed addresses, and for each a flag that the copy waits for. So the
// copy, and all that follows it, is enqueued or launched as a graph before the rows are
// there, and the next step's rows are gathered while this step's are being copied.
//
// A generation's life, again and again:
//   Begin       the host may fill it: the copy of its last use is over, its flag down
//   Enqueue     its stream: wait for the flag, copy (may be captured, once for each
//               generation, and replayed)
//   Launched    after Enqueue, or after the launch of its graph: the copy is under way
//   Arrived     the rows are there, from any thread; or
//   Abandon     they will not come: the stream goes on with rows of all ones, which are
//               NaN in every row format, and the step fails
// Enqueue, Launched and Arrived may come in any order that has Launched after Enqueue.
// After the last two the stream needs nobody any more.
#ifndef TESSERA_KERNELS_CUDA_ENGRAM_ROWS_STAGED_ROWS_H_
#define TESSERA_KERNELS_CUDA_ENGRAM_ROWS_STAGED_ROWS_H_

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/cuda/primitives/device_flag.h"

namespace tessera::kernels::cuda {

// The step thread, but for Fill and Arrived. It abandons what is under way when it goes,
// and waits for its copies.
class StagedRows {
 public:
  static constexpr int kGenerations = 2;

  struct Options {
    size_t bytes = 0;  // of a generation, at least 1
    // Between two looks at a copy that is waited for.
    absl::Duration poll_interval = absl::Microseconds(5);
  };

  // `clock` must outlive it. kUnimplemented where streams cannot wait for a flag,
  // kResourceExhausted without memory.
  static absl::StatusOr<std::unique_ptr<StagedRows>> Create(
      std::shared_ptr<GpuMachine> machine, const Options& options, Clock* clock);
  ~StagedRows();
  StagedRows(const StagedRows&) = delete;
  StagedRows& operator=(const StagedRows&) = delete;

  // The generation after the last one. kDeadlineExceeded if its last copy was not over by
  // then; that one is abandoned, as by Await, and the next Begin is of the same.
  absl::StatusOr<int> Begin(absl::Time deadline);
  // Its memory, the same at each of its turns.
  std::span<std::byte> host(int generation) const;

  // The first `bytes` of it to device memory. Errors of the stream.
  absl::Status Enqueue(GpuStream& stream, int generation, size_t bytes, void* to) const;
  absl::Status Launched(GpuStream& stream, int generation);

  // Says that the thread fills it from here on. For the simulator's checks.
  void Fill(int generation) { machine_->HostWrites(host(generation).data(), bytes_); }
  void Arrived(int generation);
  // The gatherer must have ended. Nothing if it has arrived, or was not launched.
  void Abandon(int generation);

  // Until the copy is over. kDeadlineExceeded if it was not by then, whatever it waited
  // for: it is abandoned, so its gatherer must have ended by the deadline. One that did
  // not would write beside that, and raise the flag of the generation's next turn.
  absl::Status Await(int generation, absl::Time deadline);

 private:
  struct Generation {
    std::byte* host = nullptr;
    std::unique_ptr<GpuFlag> flag;
    std::unique_ptr<GpuEvent> copied;
    bool launched = false;  // and its copy was not seen to be over
  };
  StagedRows(std::shared_ptr<GpuMachine> machine, const Options& options, Clock* clock)
      : machine_(std::move(machine)),
        bytes_(options.bytes),
        poll_interval_(options.poll_interval),
        clock_(clock) {}

  Generation& At(int generation) { return generations_[static_cast<size_t>(generation)]; }

  const std::shared_ptr<GpuMachine> machine_;
  const size_t bytes_;
  const absl::Duration poll_interval_;
  Clock* const clock_;
  std::array<Generation, kGenerations> generations_;
  int next_ = 0;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_ENGRAM_ROWS_STAGED_ROWS_H_
