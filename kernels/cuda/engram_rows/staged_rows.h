// StagedRows: rows that the host gathers, on their way to a device: two generations of
// pinned memory at fixed addresses, and for each a flag that the copy waits for. So the
// copy, and all that follows it, is enqueued or launched as a graph before the rows are
// there, and the next step's rows are gathered while this step's are being copied.
//
// A generation's life, again and again:
//   Begin       the host may fill it: its last turn is over, its flag down
//   Enqueue     its stream: wait for the flag, copy (may be captured, once for each
//               generation, and replayed)
//   Launched    after Enqueue, or after the launch of its graph: the copy is under way
//   Arrived     the rows are there, from any thread; or
//   Abandon     they will not come, and nobody writes them any more: the stream goes on
//               with rows of all ones, which are NaN in every row format, and the step
//               fails
// Enqueue, Launched and Arrived may come in any order that has Launched after Enqueue.
// Each turn ends with one of the last two, whatever else of it failed: then its stream
// needs nobody any more. Until then the generation begins no other turn, so that who is
// late neither writes nor raises what is another turn's.
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
// and waits for its copies; its streams go after it.
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

  // The generation after the last one. Errors of Await for its last turn; the next Begin
  // is of the same.
  absl::StatusOr<int> Begin(absl::Time deadline);
  // Its memory, the same at each of its turns.
  std::span<std::byte> host(int generation) const;

  // The first `bytes` of it to device memory. Errors of the stream, which may wait for
  // the flag even so.
  absl::Status Enqueue(GpuStream& stream, int generation, size_t bytes, void* to);
  absl::Status Launched(GpuStream& stream, int generation);

  // Says that the thread fills it from here on. For the simulator's checks.
  void Fill(int generation) { machine_->HostWrites(host(generation).data(), bytes_); }
  void Arrived(int generation);
  // The gatherer must have ended. Nothing if the rows have arrived.
  void Abandon(int generation);

  // Until the turn is over: its rows have arrived or are abandoned, and its copy, if a
  // stream has one, is over. kDeadlineExceeded if it was not by then, which ends nothing:
  // the gatherer may still write. Errors of the stream.
  absl::Status Await(int generation, absl::Time deadline);

 private:
  struct Generation {
    std::byte* host = nullptr;
    std::unique_ptr<GpuFlag> flag;
    std::unique_ptr<GpuEvent> copied;
    bool has_begun = false;  // a turn that was not seen to be over
    // That was given a wait for the flag, and was not seen past it and the copy.
    GpuStream* stream = nullptr;
    bool is_recorded = false;  // `copied`, on that stream, behind them
  };
  StagedRows(std::shared_ptr<GpuMachine> machine, const Options& options, Clock* clock)
      : machine_(std::move(machine)),
        bytes_(options.bytes),
        poll_interval_(options.poll_interval),
        clock_(clock) {}

  bool HasEnded(const Generation& of) const;
  absl::StatusOr<bool> IsCopied(Generation& of);
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
