// KernelsBench: weights of a large model's shapes and the ops that read them, one op at a
// time.
//
// It stands under `tessera bench kernels`, which times it. Weights are made up and larger
// than caches together, so that an op finds none of its own there.
#ifndef TESSERA_CLI_BENCH_KERNELS_BENCH_H_
#define TESSERA_CLI_BENCH_KERNELS_BENCH_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "kernels/kernel_backend.h"

namespace tessera::cli {

// What is multiplied, and how.
struct KernelKind {
  std::string_view name;
  kernels::DType weights = kernels::DType::kBF16;
  bool experts = false;  // gate, up and down of experts, else one matrix
  std::string_view numerics = "f32";
};

// bf16, fp8, mxfp4: one matrix; experts, experts-int8: of MXFP4.
const std::vector<KernelKind>& KernelKinds();

struct KernelTime {
  double seconds = 0;  // of one call
  double bytes = 0;    // of weights that it reads
  double multiply_adds = 0;
};

// Owns backend and weights of one kind. External synchronisation.
class KernelsBench {
 public:
  // kInvalidArgument: threads or numerics that this machine has not; kResourceExhausted.
  static absl::StatusOr<std::unique_ptr<KernelsBench>> Create(const KernelKind& kind,
                                                              int num_threads,
                                                              Clock* clock);

  const kernels::KernelBackend& backend() const { return *backend_; }

  // With `rows` rows of x: every matrix once, or a step of `rows` tokens through the
  // experts that they pick. kResourceExhausted: no memory for the rows.
  absl::StatusOr<KernelTime> Run(int64_t rows);

 private:
  KernelsBench(const KernelKind& kind, Clock* clock) : kind_(kind), clock_(clock) {}

  absl::StatusOr<std::byte*> Memory(int64_t bytes);
  absl::StatusOr<kernels::TensorView> Floats(int64_t rows, int64_t columns);
  absl::StatusOr<kernels::WeightView> Weight(int64_t rows, int64_t columns);
  absl::StatusOr<KernelTime> RunMatrices(int64_t rows);
  absl::StatusOr<KernelTime> RunExperts(int64_t tokens);

  const KernelKind kind_;
  Clock* const clock_;
  std::unique_ptr<kernels::KernelBackend> backend_;
  std::unique_ptr<kernels::Stream> stream_;
  std::vector<kernels::DeviceBuffer> buffers_;
  std::vector<kernels::WeightView> matrices_;
  std::vector<kernels::ExpertWeights> experts_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_KERNELS_BENCH_H_
