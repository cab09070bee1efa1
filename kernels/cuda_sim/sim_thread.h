// SimThread: what device code sees of its thread under the simulator: indices, memory,
// barriers, warp exchanges. The class of the same shape for nvcc is in
// kernels/cuda/primitives/nvcc_thread.cuh; device code names neither, but the Thread of
// kernels/cuda/primitives/device.cuh.
//
// Every call that can go wrong takes the place of its caller, for the finding.
#ifndef TESSERA_KERNELS_CUDA_SIM_SIM_THREAD_H_
#define TESSERA_KERNELS_CUDA_SIM_SIM_THREAD_H_

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda_sim/access_checker.h"
#include "kernels/cuda_sim/finding.h"
#include "kernels/cuda_sim/grid_runner.h"
#include "kernels/cuda_sim/sim_numbers.h"
#include "kernels/cuda_sim/tile_map.h"

namespace tessera::kernels::cuda_sim {

// Lives as long as its thread runs; used by it alone.
class SimThread : public SimNumbers {
 public:
  SimThread(GridRunner* runner, const cuda::Dim3& block, const cuda::Dim3& thread,
            const ThreadPosition& position)
      : runner_(*runner), block_(block), thread_(thread), position_(position) {}

  const cuda::Dim3& block_idx() const { return block_; }
  const cuda::Dim3& thread_idx() const { return thread_; }
  const cuda::Dim3& block_dim() const { return config().block; }
  const cuda::Dim3& grid_dim() const { return config().grid; }
  // Of the block, x fastest.
  uint32_t linear_thread() const { return position_.thread; }
  uint32_t lane() const { return position_.thread % cuda::kWarpSize; }

  // ---- memory ----

  template <typename T>
  std::remove_const_t<T> Load(cuda::GlobalSpan<T> x, int64_t i,
                              Place place = Place::Here()) {
    return Read<std::remove_const_t<T>>(x, i, 1, AccessKind::kRead, place);
  }
  template <typename T>
  std::remove_const_t<T> Load(cuda::SharedSpan<T> x, int64_t i,
                              Place place = Place::Here()) {
    return Read<std::remove_const_t<T>>(x, i, 1, AccessKind::kRead, place);
  }
  template <typename T>
  void Store(cuda::GlobalSpan<T> x, int64_t i, std::type_identity_t<T> value,
             Place place = Place::Here()) {
    Write(x, i, 1, value, AccessKind::kWrite, place);
  }
  template <typename T>
  void Store(cuda::SharedSpan<T> x, int64_t i, std::type_identity_t<T> value,
             Place place = Place::Here()) {
    Write(x, i, 1, value, AccessKind::kWrite, place);
  }
  // Elements i .. i + N - 1 in one access.
  template <int N, typename T, template <typename> typename Span>
  cuda::Vector<std::remove_const_t<T>, N> LoadVector(Span<T> x, int64_t i,
                                                     Place place = Place::Here()) {
    return Read<cuda::Vector<std::remove_const_t<T>, N>>(x, i, N, AccessKind::kRead,
                                                         place);
  }
  template <typename T, int N, template <typename> typename Span>
  void StoreVector(Span<T> x, int64_t i, const cuda::Vector<T, N>& value,
                   Place place = Place::Here()) {
    Write(x, i, N, value, AccessKind::kWrite, place);
  }
  // Returns the value before. T is int32_t, uint32_t or float.
  template <typename T, template <typename> typename Span>
  T AtomicAdd(Span<T> x, int64_t i, std::type_identity_t<T> value,
              Place place = Place::Here()) {
    const T before = Read<T>(x, i, 1, AccessKind::kAtomic, place);
    Write(x, i, 1, static_cast<T>(before + value), AccessKind::kAtomic, place);
    return before;
  }
  template <typename T, template <typename> typename Span>
  T AtomicMax(Span<T> x, int64_t i, std::type_identity_t<T> value,
              Place place = Place::Here()) {
    const T before = Read<T>(x, i, 1, AccessKind::kAtomic, place);
    Write(x, i, 1, before < value ? value : before, AccessKind::kAtomic, place);
    return before;
  }
  template <typename T>
  T Read(const cuda::CapturedValue<T>& captured, Place place = Place::Here()) {
    if (runner_.checker().operation().in_graph && *captured.source != captured.value) {
      runner_.checker().Report(FindingKind::kStaleGraphArgument, position_, place,
                               "the host changed a captured value since the capture");
    }
    return captured.value;
  }

  // N elements that the whole block shares; `kId` tells the arrays of a kernel apart.
  template <typename T, int N, int kId>
  cuda::SharedSpan<T> StaticShared() {
    std::byte* const data = runner_.StaticShared(kId, sizeof(T) * N, alignof(T));
    return {reinterpret_cast<T*>(data), N};
  }
  // Of the dynamic shared memory of the launch, from `begin_bytes` to its end.
  template <typename T>
  cuda::SharedSpan<T> DynamicShared(uint32_t begin_bytes = 0) {
    return {reinterpret_cast<T*>(runner_.shared() + begin_bytes),
            (int64_t{config().shared_bytes} - begin_bytes) / int64_t{sizeof(T)}};
  }

  // ---- barriers and warp exchanges ----

  void SyncBlock(Place place = Place::Here()) { runner_.WaitForBlock(*this, place); }
  void SyncWarp(uint32_t mask = cuda::kFullWarp, Place place = Place::Here()) {
    runner_.MeetWarp(*this, WarpOp::kSync, mask, 0, lane(), place);
  }
  // `value` of lane `source`; of itself if that lane is outside the warp.
  template <typename T>
  T Shuffle(T value, uint32_t source, uint32_t mask = cuda::kFullWarp,
            Place place = Place::Here()) {
    static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = runner_.MeetWarp(*this, WarpOp::kShuffle, mask, bits, source % cuda::kWarpSize,
                            place);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
  }
  template <typename T>
  T ShuffleDown(T value, uint32_t delta, uint32_t mask = cuda::kFullWarp,
                Place place = Place::Here()) {
    const uint32_t source = lane() + delta;
    return Shuffle(value, source < cuda::kWarpSize ? source : lane(), mask, place);
  }
  template <typename T>
  T ShuffleXor(T value, uint32_t lanes, uint32_t mask = cuda::kFullWarp,
               Place place = Place::Here()) {
    return Shuffle(value, lane() ^ lanes, mask, place);
  }
  // Bit l: lane l is in the mask and its `predicate` holds.
  uint32_t Ballot(bool predicate, uint32_t mask = cuda::kFullWarp,
                  Place place = Place::Here()) {
    return static_cast<uint32_t>(
        runner_.MeetWarp(*this, WarpOp::kBallot, mask, predicate ? 1 : 0, lane(), place));
  }

  // ---- barriers in shared memory, bulk copies, products of a warpgroup ----
  // Each is one instruction of PTX (kernels/cuda/primitives/nvcc_async.cuh); what its
  // twin checks is in async_units.h and product_units.h.

  // Byte in the block's shared memory, as descriptors name it.
  template <typename T>
  uint32_t SharedAddress(cuda::SharedSpan<T> x) const {
    return runner_.SharedOffset(x.data);
  }
  void InitBarrier(cuda::SharedSpan<uint64_t> x, int64_t i, uint32_t arrivals,
                   Place place = Place::Here()) {
    runner_.async_units().Init(position_, AddressOf(x, i, place), arrivals, place);
  }
  // What this thread wrote to shared memory, barriers included, is visible to copies and
  // products.
  void FenceProxyAsync() { runner_.async_units().FenceProxy(position_.thread); }
  void ArriveBarrier(cuda::SharedSpan<uint64_t> x, int64_t i,
                     Place place = Place::Here()) {
    runner_.ArriveBarrier(*this, AddressOf(x, i, place), 0, place);
  }
  // The phase also waits for `bytes` of copies.
  void ArriveExpecting(cuda::SharedSpan<uint64_t> x, int64_t i, uint32_t bytes,
                       Place place = Place::Here()) {
    runner_.ArriveBarrier(*this, AddressOf(x, i, place), bytes, place);
  }
  // Until the phase of this parity has ended: the first has parity 0; before it ends, a
  // wait for parity 1 returns at once.
  void WaitBarrier(cuda::SharedSpan<uint64_t> x, int64_t i, uint32_t parity,
                   Place place = Place::Here()) {
    runner_.WaitBarrier(*this, AddressOf(x, i, place), parity, place);
  }
  // The box of `map` that begins at [row, col], to the beginning of `to`; completes its
  // bytes on barrier i.
  void CopyTile(const SimTileMap& map, int64_t col, int64_t row,
                cuda::SharedSpan<uint8_t> to, cuda::SharedSpan<uint64_t> x, int64_t i,
                Place place = Place::Here()) {
    runner_.async_units().Issue(
        position_,
        {map, col, row, int64_t{SharedAddress(to)}, to.size, AddressOf(x, i, place)},
        place);
  }
  // A map that the host has put into global memory, for copies of this thread.
  SimTileMap AcquireTileMap(cuda::GlobalSpan<const SimTileMap> maps, int64_t i,
                            Place place = Place::Here()) {
    return Load(maps, i, place);
  }
  // Gives the registers to the products that follow.
  template <size_t kCount>
  void BeginProducts(float (&/*registers*/)[kCount], Place place = Place::Here()) {
    runner_.MeetWarpgroup(*this, {.op = ProductOp::kBegin}, place);
  }
  // 64 rows of `a` by 2 kCount rows of `b` over 32 inputs, added to the registers' values
  // if `accumulate`; a and b are descriptors.
  template <size_t kCount>
  void MultiplyE4M3(float (&registers)[kCount], uint64_t a, uint64_t b, bool accumulate,
                    Place place = Place::Here()) {
    runner_.MeetWarpgroup(*this,
                          {.op = ProductOp::kMultiply,
                           .a = a,
                           .b = b,
                           .columns = 2 * kCount,
                           .accumulate = accumulate,
                           .registers = registers},
                          place);
  }
  // The same of BF16 over 16 inputs; kB says how the second matrix lies.
  template <cuda::Major kB, size_t kCount>
  void MultiplyBF16(float (&registers)[kCount], uint64_t a, uint64_t b, bool accumulate,
                    Place place = Place::Here()) {
    runner_.MeetWarpgroup(*this,
                          {.op = ProductOp::kMultiply,
                           .type = ProductType::kBF16,
                           .b_major = kB,
                           .a = a,
                           .b = b,
                           .columns = 2 * kCount,
                           .accumulate = accumulate,
                           .registers = registers},
                          place);
  }
  void CommitProducts(Place place = Place::Here()) {
    runner_.MeetWarpgroup(*this, {.op = ProductOp::kCommit}, place);
  }
  // Until all but the last kLeft commits have ended: their registers are the thread's.
  template <uint32_t kLeft, size_t kCount>
  void WaitProducts(float (&/*registers*/)[kCount], Place place = Place::Here()) {
    runner_.MeetWarpgroup(*this, {.op = ProductOp::kWait, .left = kLeft}, place);
  }

  // ---- for the runner ----

  ThreadPosition& position() { return position_; }

 private:
  uint32_t AddressOf(const cuda::SharedSpan<uint64_t>& x, int64_t i, const Place& place) {
    if (i < 0 || i >= x.size) {
      runner_.checker().Report(FindingKind::kOutOfBounds, position_, place,
                               "a barrier outside its span");
      return runner_.SharedOffset(x.data);
    }
    return runner_.SharedOffset(x.data + i);
  }
  const cuda::LaunchConfig& config() const {
    return runner_.checker().operation().config;
  }
  template <typename T>
  bool Check(const cuda::GlobalSpan<T>& x, const AccessRange& range, const Place& place) {
    return x.size >= 0 && runner_.checker().Global(position_, range, place);
  }
  template <typename T>
  bool Check(const cuda::SharedSpan<T>& x, const AccessRange& range, const Place& place) {
    return x.size >= 0 && runner_.checker().Shared(position_, range, place);
  }
  template <typename Span>
  static AccessRange RangeOf(const Span& x, int64_t i, int64_t count, AccessKind kind) {
    constexpr auto kBytes = static_cast<int64_t>(sizeof(*x.data));
    return {x.data, x.size * kBytes, i * kBytes, count * kBytes, kind};
  }
  template <typename Value, typename Span>
  Value Read(const Span& x, int64_t i, int64_t count, AccessKind kind,
             const Place& place) {
    Value value{};
    if (Check(x, RangeOf(x, i, count, kind), place)) {
      std::memcpy(&value, x.data + i, sizeof(value));
    }
    return value;
  }
  template <typename Value, typename Span>
  void Write(const Span& x, int64_t i, int64_t count, const Value& value, AccessKind kind,
             const Place& place) {
    if (Check(x, RangeOf(x, i, count, kind), place)) {
      std::memcpy(x.data + i, &value, sizeof(value));
    }
  }

  GridRunner& runner_;
  const cuda::Dim3 block_;
  const cuda::Dim3 thread_;
  ThreadPosition position_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_SIM_THREAD_H_
