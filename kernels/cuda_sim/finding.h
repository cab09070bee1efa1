// Finding: what the simulator saw a kernel, a copy or a free do wrong, with the place.
// Findings are collected, not fatal: an access that is refused reads zeros or writes
// nothing, and the launch goes on.
#ifndef TESSERA_KERNELS_CUDA_SIM_FINDING_H_
#define TESSERA_KERNELS_CUDA_SIM_FINDING_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "kernels/cuda/primitives/device_types.h"

namespace tessera::kernels::cuda_sim {

enum class FindingKind {
  kBadLaunch,           // a shape that no device takes, or a call that capture forbids
  kOutOfBounds,         // outside a span, an allocation or the block's shared memory
  kMisaligned,          // not at a multiple of the access's size
  kUninitializedRead,   // of memory that nobody wrote, or a shuffle from a lane that left
  kRace,                // two threads of one launch, one of them writing, unordered
  kBarrierDivergence,   // a barrier or shuffle that not all of its threads reach
  kUseAfterFree,        // memory after its free, or before its allocation
  kStreamDependency,    // memory of another stream's work without an event between
  kStaleGraphArgument,  // a replayed graph uses what was freed or changed since capture
  kPartialCollective,   // some ranks entered it, and nothing can make the others come
  kMismatchedCollective,  // ranks that meet want different things
  kDeadCommunicator,      // a call of one that was aborted, revoked or finalised
  kMissingFence,          // what one kind of access wrote is not visible to another
  kBadDescriptor,         // a matrix, tile or barrier that the hardware does not take
  kTransactionBytes,      // a barrier expects other bytes than its copies bring
  kUnfinished,            // a copy or product in flight when its block ends
  kReadOnlyMemory,        // a write to what is registered for reads alone
};
std::string_view FindingKindName(FindingKind kind);

// Where device code made a call; a default argument, so that it names the caller.
struct Place {
  const char* file = "";
  int line = 0;

  static constexpr Place Here(const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
    return {file, line};
  }
};

struct Finding {
  FindingKind kind = FindingKind::kBadLaunch;
  std::string kernel;  // or the name of the copy, free or collective
  cuda::Dim3 block = {0, 0, 0};
  cuda::Dim3 thread = {0, 0, 0};
  Place place;         // line 0: not in a kernel
  std::string detail;  // what was seen and what was expected

  std::string ToString() const;
};

// External synchronisation. Keeps the first kMaxKept findings and counts all.
class FindingLog {
 public:
  static constexpr size_t kMaxKept = 64;

  void Add(Finding finding);
  const std::vector<Finding>& kept() const { return kept_; }
  uint64_t total() const { return total_; }
  // kInternal with the first finding, or OK if there is none.
  absl::Status ToStatus() const;

 private:
  std::vector<Finding> kept_;
  uint64_t total_ = 0;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_FINDING_H_
