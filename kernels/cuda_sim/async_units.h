// AsyncUnits: what goes on beside the threads of a block: barriers in shared memory that
// count arrivals and bytes (mbarrier), bulk tensor copies that complete on them, and the
// products of product_units.h. It keeps what each thread knows of them (SyncClock): an
// arrival gives the barrier what its thread knows, a phase that ends gives it to who
// waits, block and warp barriers give it to all that meet.
//
// A copy is checked when it is issued and writes at a random later time.
#ifndef TESSERA_KERNELS_CUDA_SIM_ASYNC_UNITS_H_
#define TESSERA_KERNELS_CUDA_SIM_ASYNC_UNITS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda_sim/access_checker.h"
#include "kernels/cuda_sim/finding.h"
#include "kernels/cuda_sim/product_units.h"
#include "kernels/cuda_sim/sync_clock.h"
#include "kernels/cuda_sim/tile_map.h"

namespace tessera::kernels::cuda_sim {

// A box of a map into shared memory, at `to`.
struct TileCopy {
  SimTileMap map;
  int64_t col = 0;
  int64_t row = 0;
  int64_t to = 0;        // byte in the block's shared memory
  int64_t room = 0;      // bytes of the span that takes it
  uint32_t barrier = 0;  // its byte there
};

// External synchronisation, like GridRunner, whose part it is.
class AsyncUnits {
 public:
  explicit AsyncUnits(AccessChecker* checker) : checker_(*checker), products_(checker) {}

  void BeginBlock(std::span<std::byte> shared, uint32_t num_threads);
  // From now on the threads of the block have clocks.
  void Activate();
  SyncClock* clock(uint32_t thread) { return &clocks_[thread]; }
  // What happened so far of each is known to all.
  void Meet(std::span<const uint32_t> threads);

  // ---- barriers, by their byte in shared memory ----
  void Init(const ThreadPosition& by, uint32_t at, uint32_t arrivals, const Place& place);
  // What `thread` has initialised and written is visible to copies and products.
  void FenceProxy(uint32_t thread);
  // Also expects `bytes` more. True if the phase ended.
  bool Arrive(const ThreadPosition& by, uint32_t at, uint32_t bytes, const Place& place);
  // Whether the phase of this parity has ended; then the thread knows what it brought.
  bool HasEnded(const ThreadPosition& by, uint32_t at, uint32_t parity,
                const Place& place);
  // Phase, arrivals and bytes of a barrier, for a finding about who waits for ever.
  std::string Describe(uint32_t at) const;

  // ---- copies ----
  void Issue(const ThreadPosition& by, const TileCopy& copy, const Place& place);
  size_t num_copies() const { return copies_.size(); }
  // Ends one of them. Returns the byte of its barrier.
  uint32_t Complete(size_t index);

  // The threads of a warpgroup meet.
  void RunProducts(uint32_t group, std::span<const ProductThread> threads,
                   const Place& place);
  void FinishBlock();

 private:
  struct Barrier {
    uint32_t at = 0;
    uint32_t arrivals = 0;
    uint32_t pending = 0;
    int64_t bytes = 0;  // expected and not brought yet, in this phase
    uint32_t phase = 0;
    SyncClock arriving;  // what this phase brings
    SyncClock brought;   // what all that ended brought
    Moment initialised;
    bool fenced = false;
    bool damaged = false;    // a finding has said that its bytes are wrong
    uint32_t last_copy = 0;  // tick of it
  };
  struct Pending {
    TileCopy copy;
    Moment moment;
    size_t barrier = 0;
    ThreadPosition by;
    Place place;
  };

  // Null after a finding.
  Barrier* Find(const ThreadPosition& by, uint32_t at, const Place& place);
  uint32_t CopyAgent(const Barrier& barrier) const;
  bool TryEnd(Barrier& barrier, const ThreadPosition& by, const Place& place);
  bool CheckSource(const ThreadPosition& by, const TileCopy& copy, const Place& place);
  bool CheckTarget(const ThreadPosition& by, const TileCopy& copy, const Place& place);
  void Write(const TileCopy& copy);

  AccessChecker& checker_;
  ProductUnits products_;
  std::span<std::byte> shared_;
  uint32_t num_threads_ = 0;
  std::vector<SyncClock> clocks_;
  std::vector<Barrier> barriers_;
  std::vector<Pending> copies_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_ASYNC_UNITS_H_
