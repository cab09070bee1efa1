// The plain types that device code and the host share: spans of device memory, launch
// shapes, short vectors. They are the same under nvcc and under kernels/cuda_sim; memory
// is read and written by the Thread of device.cuh alone, which under the simulator checks
// each access.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_TYPES_H_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_TYPES_H_

#include <cstddef>
#include <cstdint>

namespace tessera::kernels::cuda {

inline constexpr uint32_t kWarpSize = 32;
inline constexpr uint32_t kFullWarp = 0xffffffffU;
// Limits of sm_90: threads of a block, and shared memory that a block may ask for.
inline constexpr uint32_t kMaxBlockThreads = 1024;
inline constexpr uint32_t kMaxSharedBytes = 227 * 1024;

struct Dim3 {
  uint32_t x = 1;
  uint32_t y = 1;
  uint32_t z = 1;

  constexpr uint64_t count() const { return uint64_t{x} * y * z; }
  friend constexpr bool operator==(const Dim3&, const Dim3&) = default;
};

struct LaunchConfig {
  Dim3 grid = {};
  Dim3 block = {};
  uint32_t shared_bytes = 0;  // dynamic shared memory
};

// A copy of `rows` stretches of `row_bytes`.
struct CopyShape {
  size_t row_bytes = 0;
  size_t rows = 1;
  size_t to_pitch = 0;  // between rows
  size_t from_pitch = 0;
};

// What NCCL says of a communicator or of a call.
enum class NcclState {
  kSuccess,
  kInProgress,   // ask again before the next call
  kRemoteError,  // another rank has left; abort
};

// `size` elements of device memory. What lies outside is not the span's, even where it
// belongs to the same allocation.
template <typename T>
struct GlobalSpan {
  T* data = nullptr;
  int64_t size = 0;

  constexpr operator GlobalSpan<const T>() const {  // NOLINT(google-explicit-constructor)
    return {data, size};
  }
  // Elements [begin, begin + count), which the caller knows to be inside.
  constexpr GlobalSpan Slice(int64_t begin, int64_t count) const {
    return {data + begin, count};
  }
};

// The same of the shared memory of a block.
template <typename T>
struct SharedSpan {
  T* data = nullptr;
  int64_t size = 0;
};

// N values that move in one access; it must lie at a multiple of its size.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
  T values[N];
};

// A number that the host gives to a kernel by value and may change between two launches.
// In a captured graph the copy is that of the capture: the simulator compares it with
// `source`, which must outlive the graph, and reports a graph that was not captured anew.
template <typename T>
struct CapturedValue {
  explicit CapturedValue(const T* host) : value(*host), source(host) {}

  T value;
  const T* source;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_TYPES_H_
