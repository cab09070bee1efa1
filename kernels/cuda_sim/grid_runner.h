// GridRunner: executes one launch. Every thread of a block is a fiber; blocks come in a
// random order, one at a time, and the threads of a block in a random order between the
// points where they wait. All choices follow from the machine's seed.
//
// Barriers are checked more strictly than a GPU does: SyncBlock must be reached by all
// threads of the block at one place, also by those that a GPU would let return early.
#ifndef TESSERA_KERNELS_CUDA_SIM_GRID_RUNNER_H_
#define TESSERA_KERNELS_CUDA_SIM_GRID_RUNNER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda_sim/access_checker.h"
#include "kernels/cuda_sim/async_units.h"
#include "kernels/cuda_sim/fiber.h"
#include "kernels/cuda_sim/finding.h"
#include "kernels/cuda_sim/schedule_random.h"

namespace tessera::kernels::cuda_sim {

class SimThread;

// Device code: called once for each thread.
using KernelBody = std::function<void(SimThread&)>;

// What the lanes of a warp that meet exchange.
enum class WarpOp { kSync, kShuffle, kBallot };

// External synchronisation; not reentrant.
class GridRunner {
 public:
  explicit GridRunner(AccessChecker* checker);
  ~GridRunner();
  GridRunner(const GridRunner&) = delete;
  GridRunner& operator=(const GridRunner&) = delete;

  // The checker must have begun the operation, whose config is the launch. A bad shape is
  // a finding, and nothing runs. kResourceExhausted: no memory for the stacks.
  absl::Status Run(const KernelBody& body, ScheduleRandom& random);

  // ---- for SimThread, from inside a fiber ----

  AccessChecker& checker() { return *checker_; }
  std::byte* shared() { return shared_begin_; }
  // Bytes of a static array by its id; all threads of a block get the same.
  std::byte* StaticShared(int id, size_t bytes, size_t alignment);
  void WaitForBlock(SimThread& thread, const Place& place);
  // Barriers in shared memory, copies and products; the first use of any in a block makes
  // clocks for its threads.
  AsyncUnits& async_units();
  uint32_t SharedOffset(const void* data) const {
    return static_cast<uint32_t>(static_cast<const std::byte*>(data) - shared_begin_);
  }
  void ArriveBarrier(SimThread& thread, uint32_t at, uint32_t bytes, const Place& place);
  void WaitBarrier(SimThread& thread, uint32_t at, uint32_t parity, const Place& place);
  // The 128 threads of a warpgroup make the same call.
  void MeetWarpgroup(SimThread& thread, const ProductCall& call, const Place& place);
  // Returns `value` of the lane `source` for kShuffle, the votes for kBallot.
  uint64_t MeetWarp(SimThread& thread, WarpOp op, uint32_t mask, uint64_t value,
                    uint32_t source, const Place& place);

 private:
  enum class Waiting { kNone, kBlock, kWarp, kBarrier, kWarpgroup, kReturned };
  struct ThreadState;

  absl::Status MakeThreads(size_t count);
  static void ThreadMain(void* state);
  void RunBlock(uint32_t block, ScheduleRandom& random);
  void RunThread(uint32_t thread);
  void TryReleaseBlock();
  void TryReleaseWaiters(uint32_t barrier);
  void TryReleaseWarpgroup(uint32_t group);
  void TryReleaseWarp(uint32_t warp);
  void ReleaseLanes(uint32_t first, uint32_t mask);
  void ReportStall();
  bool CheckShape();

  AccessChecker* const checker_;
  AsyncUnits async_;
  const KernelBody* body_ = nullptr;
  std::vector<std::byte> shared_storage_;
  std::byte* shared_begin_ = nullptr;
  size_t shared_used_ = 0;
  std::map<int, size_t> static_offsets_;
  uint32_t num_threads_ = 0;
  uint32_t num_waiting_ = 0;  // at the block barrier
  uint32_t num_returned_ = 0;
  std::vector<std::unique_ptr<ThreadState>> threads_;
  std::vector<uint32_t> ready_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_GRID_RUNNER_H_
