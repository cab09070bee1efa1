// SimArrays: one simulated machine and stream, and arrays of plain numbers on its device,
// for tests of what kernels may do there. For tests alone; used by one thread.
#ifndef TESSERA_TESTS_TESTING_SIM_ARRAYS_H_
#define TESSERA_TESTS_TESTING_SIM_ARRAYS_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "common/check.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_stream.h"

namespace tessera::kernels::cuda_sim {

class SimArrays {
 public:
  explicit SimArrays(uint64_t seed)
      : machine_(std::make_shared<SimMachine>(SimOptions{.seed = seed})) {
    auto stream = SimStream::Create(machine_, 0);
    TESSERA_CHECK(stream.ok());
    stream_ = std::move(*stream);
  }

  template <typename T>
  cuda::GlobalSpan<T> Array(const std::vector<T>& values) {
    const cuda::GlobalSpan<T> span = Unwritten<T>(static_cast<int64_t>(values.size()));
    TESSERA_CHECK(
        stream_->MemcpyAsync(span.data, values.data(), values.size() * sizeof(T)).ok());
    return span;
  }
  template <typename T>
  cuda::GlobalSpan<T> Unwritten(int64_t size) {
    auto memory = machine_->Malloc(0, static_cast<size_t>(size) * sizeof(T));
    TESSERA_CHECK(memory.ok());
    return {static_cast<T*>(*memory), size};
  }
  template <typename T>
  std::vector<T> Read(cuda::GlobalSpan<T> span) {
    std::vector<T> values(static_cast<size_t>(span.size));
    TESSERA_CHECK(
        stream_->MemcpyAsync(values.data(), span.data, values.size() * sizeof(T)).ok() ||
        !machine_->findings().empty());
    return values;
  }
  void Run(const cuda::LaunchConfig& config, KernelBody body) {
    TESSERA_CHECK(stream_->LaunchKernel("TestKernel", config, std::move(body)).ok());
    static_cast<void>(stream_->Synchronize());
  }
  std::vector<Finding> findings() const { return machine_->findings(); }
  absl::Status status() const { return machine_->status(); }

 private:
  std::shared_ptr<SimMachine> machine_;
  std::unique_ptr<SimStream> stream_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_TESTS_TESTING_SIM_ARRAYS_H_
