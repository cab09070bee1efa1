// The ops of numerics fp8-g128 (kernels/fp8_products.h): Linear and GroupedExperts by the
// products of fp8_gemm.h and fp4_gemm.h, in a workspace that is made once. Rows that do
// not fit into it at once go in turns, which changes no bit.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_FP8_OPS_H_
#define TESSERA_KERNELS_CUDA_PRODUCTS_FP8_OPS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/cuda/expert_table.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/cuda/products/fp8_tokens.h"
#include "kernels/op_args.h"
#include "kernels/tensor_view.h"
#include "kernels/weight_view.h"

namespace tessera::kernels::cuda {

// One thread uses it, with one stream at a time.
class Fp8Ops {
 public:
  // Waits for `stream`, so that any stream may use the workspace. kResourceExhausted, or
  // the stream's error.
  static absl::StatusOr<std::unique_ptr<Fp8Ops>> Create(
      std::shared_ptr<GpuMachine> machine, int device, GpuStream& stream,
      size_t workspace_bytes);
  ~Fp8Ops();
  Fp8Ops(const Fp8Ops&) = delete;
  Fp8Ops& operator=(const Fp8Ops&) = delete;

  // Both: kResourceExhausted if the workspace has no room for one row, and the errors of
  // fp8_gemm.h.
  //
  // As KernelBackend's; IsFp8Product(w, split).
  absl::Status Linear(GpuStream& stream, TensorView x, const WeightView& w,
                      const KSplit& split, TensorView out) const;
  // The items of one part's experts, which IsFp8Expert. x may be rows of Fp8RowFormat.
  absl::Status GroupedExperts(GpuStream& stream, const ExpertPart& part,
                              const GroupedExpertsArgs& args) const;

 private:
  Fp8Ops(std::shared_ptr<GpuMachine> machine, size_t bytes)
      : machine_(std::move(machine)), bytes_(static_cast<int64_t>(bytes)) {}

  absl::Status RunItems(GpuStream& stream, const ExpertPart& part,
                        const GroupedExpertsArgs& args, int64_t first,
                        int64_t count) const;

  const std::shared_ptr<GpuMachine> machine_;
  const int64_t bytes_;
  void* memory_ = nullptr;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_FP8_OPS_H_
