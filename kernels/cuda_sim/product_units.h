// ProductUnits: the tensor-core work of a block's warpgroups, as device code sees it: a
// fence before registers are given away, products that run while their threads go on,
// groups of them, and waits that give the registers back. Results reach the registers at
// the wait; until then they hold a NaN, whose change is a finding.
#ifndef TESSERA_KERNELS_CUDA_SIM_PRODUCT_UNITS_H_
#define TESSERA_KERNELS_CUDA_SIM_PRODUCT_UNITS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda_sim/access_checker.h"
#include "kernels/cuda_sim/finding.h"
#include "kernels/cuda_sim/sync_clock.h"
#include "kernels/cuda_sim/warpgroup_product.h"

namespace tessera::kernels::cuda_sim {

enum class ProductOp { kBegin, kMultiply, kCommit, kWait };

// What one thread of a warpgroup brings to a call; the others bring the same but for
// their registers.
struct ProductCall {
  ProductOp op = ProductOp::kBegin;
  ProductType type = ProductType::kE4M3;
  cuda::Major b_major = cuda::Major::kK;
  uint64_t a = 0;  // descriptors
  uint64_t b = 0;
  uint32_t columns = 0;
  bool accumulate = false;
  float* registers = nullptr;  // columns / 2 of them
  uint32_t left = 0;           // groups that may stay in flight after a wait

  bool SameAs(const ProductCall& other) const {
    return op == other.op && type == other.type && b_major == other.b_major &&
           a == other.a && b == other.b && columns == other.columns &&
           accumulate == other.accumulate && left == other.left;
  }
};

// One thread of the warpgroup as its call finds it.
struct ProductThread {
  ThreadPosition position;
  ProductCall call;
  SyncClock* clock = nullptr;
};

// External synchronisation, like GridRunner, whose part it is.
class ProductUnits {
 public:
  explicit ProductUnits(AccessChecker* checker) : checker_(*checker) {}

  void BeginBlock(std::span<const std::byte> shared);
  // All threads of warpgroup `group` have come to the call at `place`. `first_agent` is
  // the agent of the products of the group's first warp.
  void Run(uint32_t group, uint32_t first_agent, std::span<const ProductThread> threads,
           const Place& place);
  // What was never waited for is a finding.
  void FinishBlock();

 private:
  // A matrix of results whose registers are not their threads' own.
  struct InFlight {
    std::array<float*, kWarpgroupThreads> registers = {};
    uint32_t columns = 0;
    uint32_t batch = 0;
    std::vector<float> values;
  };
  struct Warpgroup {
    bool begun = false;
    uint32_t open_batch = 1;  // the one that the next commit closes
    std::vector<InFlight> in_flight;
    ThreadPosition position;  // of the last product, for FinishBlock
    Place place;
  };

  void Multiply(Warpgroup& group, uint32_t first_agent,
                std::span<const ProductThread> threads, const Place& place);
  void Wait(Warpgroup& group, uint32_t first_agent,
            std::span<const ProductThread> threads, const Place& place);
  void Deliver(const InFlight& done, std::span<const ProductThread> threads,
               const Place& place);
  std::vector<float> Before(const std::optional<size_t>& known, const Warpgroup& group,
                            std::span<const ProductThread> threads) const;
  // Checks what the products of the four warps read of a matrix: each its own rows, or
  // all of them all. False: it must not be read.
  bool CheckMatrix(const ProductMatrix& matrix, bool by_rows,
                   std::span<const Moment> warps, std::span<const ProductThread> threads,
                   const Place& place);

  AccessChecker& checker_;
  std::span<const std::byte> shared_;
  std::vector<Warpgroup> groups_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_PRODUCT_UNITS_H_
