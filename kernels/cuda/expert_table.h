// Weights of routed experts as one launch takes them. Their formats, shapes and strides
// are arguments of the kernel; where each expert's values and scales lie is a table in
// device memory, from which a block takes those of its item's expert.
#ifndef TESSERA_KERNELS_CUDA_EXPERT_TABLE_H_
#define TESSERA_KERNELS_CUDA_EXPERT_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/cuda/primitives/device.cuh"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/op_args.h"

namespace tessera::kernels::cuda {

// The experts of a set whose matrices have the same formats, shapes and strides.
struct ExpertPart {
  // Values and scales of gate, of up and of down.
  static constexpr int kAddresses = 6;

  // Without the places of their spans; the sizes are those of every expert.
  DeviceWeight gate;
  DeviceWeight up;
  DeviceWeight down;
  // [num_experts, kAddresses], of the whole set. Values of null: the expert is of another
  // part; scales of null: there are none.
  GlobalSpan<const uint8_t* const> addresses;

  static constexpr int kMatrices = 3;  // gate, up, down
  // Maps of each expert's values for bulk copies, [num_experts, kMatrices], by
  // WeightTileMap: where the table was made with them, of parts that IsFp8Expert.
  GlobalSpan<const GpuTileMap> maps;
};

// The table of one set of experts. Immutable; kernels may use it until it is destroyed,
// which waits for the device. Experts of a model have one format, so there is one part; a
// set of several formats has a part for each, and takes a launch for each.
class ExpertTable {
 public:
  // Uploads through `stream` and waits for it, so that any stream may read the table.
  // kResourceExhausted, or the stream's error. At most kMaxExpertWidth rows of gate.
  // `with_maps`: errors of WeightTileMap as well.
  static absl::StatusOr<std::unique_ptr<ExpertTable>> Create(
      std::shared_ptr<GpuMachine> machine, int device, GpuStream& stream,
      std::span<const ExpertWeights> experts, bool with_maps);
  ~ExpertTable();
  ExpertTable(const ExpertTable&) = delete;
  ExpertTable& operator=(const ExpertTable&) = delete;

  int64_t num_experts() const { return static_cast<int64_t>(experts_.size()); }
  std::span<const ExpertPart> parts() const { return parts_; }
  // Whether it was made of weights of just these places, formats and shapes.
  bool IsOf(std::span<const ExpertWeights> experts) const;

 private:
  ExpertTable(std::shared_ptr<GpuMachine> machine, std::span<const ExpertWeights> experts)
      : machine_(std::move(machine)), experts_(experts.begin(), experts.end()) {}

  absl::Status UploadAddresses(int device, GpuStream& stream,
                               const std::vector<const uint8_t*>& addresses);
  absl::Status UploadMaps(int device, GpuStream& stream);

  const std::shared_ptr<GpuMachine> machine_;
  const std::vector<ExpertWeights> experts_;
  std::vector<ExpertPart> parts_;
  std::vector<size_t> first_of_part_;  // an expert of each
  void* memory_ = nullptr;  // of the parts' addresses, one part after the other
  void* maps_ = nullptr;    // of all experts, which the parts share
};

// The tables of the sets of experts that a backend has seen, one for each span. The first
// call with a set makes its table, which allocates and waits: a step that does so is a
// warm-up, and is not captured. Later calls compare the set with what the table was made
// of (its host memory may since hold another one) and neither allocate nor wait.
// One thread uses it.
class ExpertTables {
 public:
  // Layers with experts of a model are a tenth of it. Beyond it all are made anew.
  static constexpr size_t kMaxTables = 1024;

  // `stream` is borrowed and carries nothing but uploads of tables while one is made.
  ExpertTables(std::shared_ptr<GpuMachine> machine, int device, GpuStream* stream,
               bool with_maps = false)
      : machine_(std::move(machine)),
        device_(device),
        stream_(stream),
        with_maps_(with_maps) {}

  // Valid until the next call that makes one. Errors as ExpertTable::Create.
  absl::StatusOr<const ExpertTable*> Of(std::span<const ExpertWeights> experts);

 private:
  const std::shared_ptr<GpuMachine> machine_;
  const int device_;
  GpuStream* const stream_;
  const bool with_maps_;
  std::unordered_map<const ExpertWeights*, std::unique_ptr<ExpertTable>> tables_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_EXPERT_TABLE_H_
