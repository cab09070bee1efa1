// AccessChecker: looks at each access of device code, and at the ranges of copies, before
// it happens: bounds, alignment, life of the memory, order against other threads, blocks
// and streams, and whether what is read was ever written.
#ifndef TESSERA_KERNELS_CUDA_SIM_ACCESS_CHECKER_H_
#define TESSERA_KERNELS_CUDA_SIM_ACCESS_CHECKER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda_sim/async_shadow.h"
#include "kernels/cuda_sim/device_memory.h"
#include "kernels/cuda_sim/finding.h"
#include "kernels/cuda_sim/shadow.h"
#include "kernels/cuda_sim/sync_clock.h"

namespace tessera::kernels::cuda_sim {

// Which thread, and how many barriers it has passed.
struct ThreadPosition {
  uint32_t block = 0;   // linear
  uint32_t thread = 0;  // linear in its block
  uint32_t epoch = 0;
  uint32_t warp_epoch = 0;
  // What it knows of copies and products; null until its block uses any.
  const SyncClock* clock = nullptr;

  Moment now() const { return {thread, clock == nullptr ? 0 : clock->Of(thread)}; }
};

// The operation whose accesses are checked.
struct Operation {
  std::string name;  // of the kernel or the copy
  cuda::LaunchConfig config;
  OpId id;
  const Clock* clock = nullptr;  // what happened before it
  int device = 0;
  bool in_graph = false;
};

// A span of memory and a part of it, in bytes.
struct AccessRange {
  const void* data = nullptr;
  int64_t size = 0;
  int64_t offset = 0;
  int64_t width = 0;
  AccessKind kind = AccessKind::kRead;
};

// External synchronisation; one operation at a time, in which nothing is freed but by
// Free as its last act.
class AccessChecker {
 public:
  // `check_order`: also races, stream dependencies and uninitialised reads, which cost
  // most of the time and 20 bytes per byte that is touched.
  AccessChecker(DeviceMemory* memory, FindingLog* findings, bool check_order)
      : memory_(*memory), findings_(*findings), check_order_(check_order) {}

  void Begin(Operation operation);
  // Forgets what the last block did to its shared memory, which begins at `shared`.
  void BeginBlock(const std::byte* shared);

  // False if the access must not happen; a finding says why. Order and missing values are
  // findings that do not stop it. `by` is where its thread stands.
  bool Global(const ThreadPosition& by, const AccessRange& range, const Place& place);
  bool Shared(const ThreadPosition& by, const AccessRange& range, const Place& place);
  // ---- bulk copies and products, which read and write shared memory by themselves ----
  // From here on this block uses them.
  void ActivateAsync() {
    async_.Activate(static_cast<uint32_t>(operation_.config.block.count()));
  }
  bool async_active() const { return async_.active(); }
  void FenceProxy(uint32_t thread) { async_.Fence(thread); }
  // 16 bytes at `address` of shared memory, read for `readers` by a warpgroup that knows
  // `knows`; false after a finding.
  bool ProductRead(const ThreadPosition& by, uint32_t address,
                   std::span<const Moment> readers, const SyncClock& knows,
                   const Place& place);
  // A copy's bytes there; false after a finding.
  bool CopyWrite(const ThreadPosition& by, uint32_t address, uint32_t bytes,
                 const Moment& copy, const Place& place);

  // A copy's range of global memory: as Global, for the operation as a whole.
  bool CopyRange(const void* data, size_t bytes, AccessKind kind);
  // Frees the allocation that begins there, which all that used it must be ordered
  // before.
  void Free(const void* memory);

  void Report(FindingKind kind, const ThreadPosition& by, const Place& place,
              std::string detail);
  const Operation& operation() const { return operation_; }
  std::string ThreadName(uint32_t thread) const;

 private:
  // Words of global memory, those whose values the host knows, or words of a block, which
  // its clocks order once it has any.
  enum class WordKind { kGlobal, kKnown, kShared };
  static WordKind KindOf(bool known) {
    return known ? WordKind::kKnown : WordKind::kGlobal;
  }

  bool CheckSpan(const ThreadPosition& by, const AccessRange& range, const Place& place);
  Allocation* FindLive(const ThreadPosition& by, const std::byte* at,
                       const AccessRange& range, const Place& place);
  // What FindLive says of memory that no allocation holds.
  void ReportOutside(const ThreadPosition& by, const std::byte* at,
                     const AccessRange& range, const Place& place);
  // False after a finding: a write of memory that is registered for reads.
  bool MayWrite(const Allocation& allocation, const ThreadPosition& by,
                const AccessRange& range, const Place& place);
  template <typename WordAt>
  void CheckOrder(const ThreadPosition& by, const AccessRange& range, size_t first,
                  WordKind words, const Place& place, const WordAt& word_at);
  void ReportConflict(Conflict conflict, const Access& now, const Access& other,
                      const ThreadPosition& by, const Place& place);
  void CheckAsync(const ThreadPosition& by, AccessKind kind, size_t first, size_t end,
                  const Place& place);
  bool ReportAsync(AsyncConflict conflict, std::string_view what,
                   const ThreadPosition& by, const Place& place);
  ShadowWord& SharedWord(size_t index);
  // Of a word that a copy writes: barriers of the block say nothing of it any more.
  void ForgetOrder(size_t index);

  DeviceMemory& memory_;
  FindingLog& findings_;
  const bool check_order_;
  Operation operation_;
  // The allocations of the last accesses: kernels go to few at a time.
  std::array<Allocation*, 4> recent_ = {};
  size_t next_recent_ = 0;
  const std::byte* shared_ = nullptr;
  uint64_t block_serial_ = 0;
  std::vector<ShadowWord> shared_words_;
  AsyncShadow async_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_ACCESS_CHECKER_H_
