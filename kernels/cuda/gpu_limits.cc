#include <algorithm>
#include <memory>

#include "absl/time/time.h"

#include "common/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_ops.h"

namespace tessera::kernels {
namespace {

constexpr int kDevice = 0;
constexpr int kRounds = 5;
// 80 times the L2 cache of an H100, which is 50 MB.
constexpr int64_t kWords = int64_t{1} << 30;
constexpr int64_t kThreadsPerMultiprocessor = 2048;
constexpr int64_t kBlocksPerMultiprocessor = 8;  // of 256 threads
constexpr int64_t kChainRounds = 100'000;

// Seconds of one launch: the best of kRounds behind a warm-up.
template <typename Enqueue>
absl::StatusOr<double> BestSeconds(cuda::GpuStream& stream, Clock* clock,
                                   Enqueue enqueue) {
  double best = 0;
  for (int round = 0; round <= kRounds; ++round) {
    const absl::Time start = clock->Now();
    enqueue();
    TESSERA_RETURN_IF_ERROR(stream.Synchronize());
    const double seconds = absl::ToDoubleSeconds(clock->Now() - start);
    if (round > 0) {
      best = best == 0 ? seconds : std::min(best, seconds);
    }
  }
  return best;
}

}  // namespace

absl::StatusOr<DeviceLimits> MeasureGpuLimits(Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(const auto machine, cuda::CudaMachine::Create());
  const cuda::DeviceProperties& properties = machine->properties(kDevice);
  TESSERA_ASSIGN_OR_RETURN(const auto stream, cuda::GpuStream::Create(machine, kDevice));
  TESSERA_ASSIGN_OR_RETURN(void* const memory, stream->MallocAsync(kWords * 4));
  TESSERA_RETURN_IF_ERROR(stream->MemsetAsync(memory, 1, kWords * 4));
  const int64_t multiprocessors = properties.num_multiprocessors;
  TESSERA_ASSIGN_OR_RETURN(
      void* const sums, stream->MallocAsync(static_cast<size_t>(multiprocessors) *
                                            kThreadsPerMultiprocessor * sizeof(float)));
  DeviceLimits limits;
  limits.device = properties.ToString();
  limits.clock_mhz_max = properties.clock_khz / 1000;
  limits.memory_mhz_max = properties.memory_clock_khz / 1000;
  TESSERA_ASSIGN_OR_RETURN(const double read_seconds, BestSeconds(*stream, clock, [&] {
                             cuda::ReadAll(*stream,
                                           TensorView(memory, DType::kI32, {kWords}),
                                           multiprocessors * kBlocksPerMultiprocessor,
                                           TensorView(sums, DType::kI32, {1}));
                           }));
  limits.read_bytes_per_s = static_cast<double>(kWords) * 4 / read_seconds;
  double multiply_adds = 0;
  TESSERA_ASSIGN_OR_RETURN(
      const double add_seconds, BestSeconds(*stream, clock, [&] {
        multiply_adds = cuda::MultiplyAdds(
            *stream, kChainRounds,
            TensorView(sums, DType::kF32, {multiprocessors * kThreadsPerMultiprocessor}));
      }));
  limits.multiply_adds_per_s = multiply_adds / add_seconds;
  TESSERA_RETURN_IF_ERROR(stream->FreeAsync(sums));
  TESSERA_RETURN_IF_ERROR(stream->FreeAsync(memory));
  TESSERA_RETURN_IF_ERROR(stream->Synchronize());
  return limits;
}

}  // namespace tessera::kernels
