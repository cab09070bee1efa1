// WeightReader: tensors of a checkpoint by name, as views cut for one rank, with an
// account of every byte that the rank holds. TP splits a tensor of n rows (or columns)
// into [n rank / tp, n (rank + 1) / tp), which for columns are this rank's leaves of the
// fixed sum. What a model's tensors are called and which cut each gets is said by
// hugging_face_weights.cc and native_weights.cc.
#ifndef TESSERA_WORKER_RUNNER_WEIGHTS_WEIGHT_READER_H_
#define TESSERA_WORKER_RUNNER_WEIGHTS_WEIGHT_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/backend_traits.h"
#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "model/tensors/checkpoint.h"
#include "worker/layers/weights.h"
#include "worker/runner/weights/weight_loader.h"

namespace tessera::worker {

// Borrows everything; not thread-safe. Every read checks type and shape: kNotFound or
// kDataLoss with the name of the tensor. Scales that are NaN or infinite are kDataLoss.
class WeightReader {
 public:
  WeightReader(const model::Checkpoint& checkpoint, const model::ModelConfig& config,
               const WeightShard& shard, kernels::KernelBackend* backend)
      : checkpoint_(checkpoint), config_(config), shard_(shard), backend_(backend) {}

  const model::ModelConfig& config() const { return config_; }
  // The routed experts that this rank holds of a layer; draft layers are num_layers on.
  std::span<const int> experts_of(int64_t layer) const {
    return layer < config_.num_layers || !shard_.draft_experts.has_value()
               ? shard_.local_experts
               : *shard_.draft_experts;
  }

  // A [size] vector in BF16, as [1, size].
  absl::StatusOr<WeightView> Norm(const std::string& name, int64_t size);
  // A tensor without scales: whole, or this rank's rows of it.
  absl::StatusOr<WeightView> Matrix(const std::string& name, model::DType dtype,
                                    int64_t rows, int64_t cols);
  absl::StatusOr<WeightView> MatrixRows(const std::string& name, model::DType dtype,
                                        int64_t rows, int64_t cols);
  // As MatrixRows, prepared by the backend.
  absl::StatusOr<WeightView> Head(const std::string& name, model::DType dtype,
                                  int64_t rows, int64_t cols);

  // F32 vectors: whole, this rank's part, or whole and BF16 where the file has that.
  absl::StatusOr<const float*> Floats(const std::string& name, int64_t size);
  absl::StatusOr<const float*> FloatShard(const std::string& name, int64_t size);
  absl::StatusOr<const float*> FloatsOrBf16(const std::string& name, int64_t size);

  // I64 [rows, cols] of expert ids, each below num_experts, none twice in a row:
  // kDataLoss with row and id else.
  absl::StatusOr<const int64_t*> ExpertTable(const std::string& name, int64_t rows,
                                             int64_t cols, int64_t num_experts);

  // PREFIX.weight in the format of the model's linears, prepared by the backend: whole,
  // this rank's rows, or this rank's columns.
  absl::StatusOr<WeightView> Linear(const std::string& prefix, int64_t rows,
                                    int64_t cols);
  absl::StatusOr<WeightView> LinearRows(const std::string& prefix, int64_t rows,
                                        int64_t cols);
  absl::StatusOr<SplitLinear> LinearColumns(const std::string& prefix, int64_t rows,
                                            int64_t cols);

  // As LinearRows, but as the checkpoint has it: contracted over its rows, too.
  absl::StatusOr<WeightView> HeadRows(const std::string& prefix, int64_t rows,
                                      int64_t cols);

  // PREFIX.weight of a routed expert, whole: of MXFP4 as the checkpoint has it, of more
  // bits prepared by the backend.
  absl::StatusOr<WeightView> Expert(const std::string& prefix, model::DType dtype,
                                    int64_t rows, int64_t cols);

  // What was read so far, in the order of reading.
  std::vector<ByteRegion> TakeRegions() { return std::move(regions_); }
  std::vector<std::unique_ptr<std::byte[]>> TakeOwned() { return std::move(owned_); }
  std::vector<kernels::DeviceBuffer> TakePrepared() { return std::move(prepared_); }

 private:
  absl::StatusOr<WeightView> Plain(const std::string& name, model::DType dtype,
                                   int64_t rows, int64_t cols, bool is_vector = false);
  absl::StatusOr<WeightView> Whole(const std::string& prefix, int64_t rows, int64_t cols);
  absl::StatusOr<WeightView> WithScales(WeightView view, const std::string& scale_name,
                                        int64_t block_rows, model::DType dtype);
  // Checks the scales of the view and accounts for all that it shows.
  absl::StatusOr<WeightView> Held(const std::string& name, const WeightView& view);
  // Held, as the backend wants it.
  absl::StatusOr<WeightView> Prepared(const std::string& name, const WeightView& view,
                                      const kernels::KSplit& split);
  // Where ops read these bytes: here, or in a copy of the backend's, row behind row.
  absl::StatusOr<const std::byte*> Placed(const ByteRegion& region);
  // A view whose values and scales are placed.
  absl::StatusOr<WeightView> PlacedView(WeightView view);
  // A float vector, accounted for, at an address that fits.
  absl::StatusOr<const float*> PlacedFloats(const WeightView& view);
  // The bytes at an address that fits their type: the file need not have them so.
  const std::byte* Aligned(const WeightView& view, size_t alignment);
  void Account(const std::byte* data, int64_t rows, int64_t bytes, int64_t stride);

  // Whether ops read weights elsewhere than in the checkpoint.
  bool copies() const {
    return backend_ != nullptr && !kernels::RunsInHostMemory(backend_->name());
  }
  int64_t Begin(int64_t total) const { return total * shard_.tp_rank / shard_.tp_size; }
  int64_t Count(int64_t total) const {
    return total * (shard_.tp_rank + 1) / shard_.tp_size - Begin(total);
  }

  const model::Checkpoint& checkpoint_;
  const model::ModelConfig& config_;
  const WeightShard& shard_;
  kernels::KernelBackend* const backend_;  // or null
  std::vector<ByteRegion> regions_;
  std::vector<std::unique_ptr<std::byte[]>> owned_;
  std::vector<kernels::DeviceBuffer> prepared_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_WEIGHTS_WEIGHT_READER_H_
