// StepInputs: the integers of one step (token ids, positions, cache slots, block tables),
// gathered on the host and uploaded to the device. Sized once.
#ifndef TESSERA_WORKER_RUNNER_STEP_INPUTS_H_
#define TESSERA_WORKER_RUNNER_STEP_INPUTS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"

namespace tessera::worker {

// Step thread only.
class StepInputs {
 public:
  struct Options {
    int64_t max_tokens = 0;
    int64_t max_sequences = 0;
    int64_t max_blocks = 0;  // per sequence
    int64_t block_size = 0;
  };

  static absl::StatusOr<StepInputs> Create(const Options& options,
                                           kernels::KernelBackend* backend);

  void Begin();
  // Tokens at positions begin.. of one sequence with block table `blocks`.
  void AddRun(std::span<const int32_t> tokens, int64_t begin,
              std::span<const uint32_t> blocks);
  // Marks the last token added as one whose logits are needed.
  void MarkLastForHead() { head_rows_.push_back(static_cast<int32_t>(num_tokens()) - 1); }
  void Upload(kernels::Stream& stream, kernels::KernelBackend* backend);

  int64_t num_tokens() const { return static_cast<int64_t>(token_ids_.size()); }
  bool fits(int64_t more_tokens) const {
    return num_tokens() + more_tokens <= options_.max_tokens;
  }

  // Device views, valid after Upload.
  kernels::TensorView token_ids() const { return Device(0, num_tokens()); }
  kernels::TensorView cache_slots() const { return Device(1, num_tokens()); }
  kernels::PagedIndex paged() const;
  kernels::TensorView head_rows() const {
    return Device(4, static_cast<int64_t>(head_rows_.size()));
  }

 private:
  // Five arrays of max_tokens: token ids, cache slots, positions, sequence of row, head
  // rows.
  static constexpr size_t kArrays = 5;
  kernels::TensorView Device(size_t array, int64_t count) const;

  Options options_;
  std::vector<int32_t> token_ids_;
  std::vector<int32_t> cache_slots_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> sequence_of_row_;
  std::vector<int32_t> head_rows_;
  std::vector<int32_t> block_tables_;  // [num_sequences * max_blocks]
  int64_t num_sequences_ = 0;
  kernels::DeviceBuffer arrays_;
  kernels::DeviceBuffer tables_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_STEP_INPUTS_H_
