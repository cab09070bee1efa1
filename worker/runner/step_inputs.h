// StepInputs: the integers of one step (token ids, positions, cache slots, block tables),
// gathered on the host and uploaded to the device. Sized once. It knows of a model only
// what its tables need: block sizes, the window, ratios of entries.
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
#include "worker/layers/step_context.h"

namespace tessera::worker {

// Step thread only.
class StepInputs {
 public:
  struct Options {
    int64_t max_tokens = 0;
    int64_t max_sequences = 0;
    int64_t max_blocks = 0;  // per sequence
    int64_t block_size = 0;
    // Of models that keep tail blocks; a window of 0: the model keeps none.
    int64_t window = 0;
    int64_t tail_tokens = 0;           // a token sees tail rows of so many before it
    std::vector<int64_t> ratios = {};  // tokens per compressed entry, distinct, rising
  };

  // One sequence's tables. `tail` is empty for a model without tail blocks, else -1 where
  // no block is held.
  struct Tables {
    std::span<const uint32_t> blocks;
    std::span<const int32_t> tail = {};
  };

  // kInvalidArgument: a ratio that is not positive, not rising or does not divide the
  // block size; kResourceExhausted: memory.
  static absl::StatusOr<StepInputs> Create(const Options& options,
                                           kernels::KernelBackend* backend);

  void Begin();
  // Tokens at positions begin.. of one sequence. Both tables reach the last token, and
  // the tail table holds every block that one of the tokens sees.
  void AddRun(std::span<const int32_t> tokens, int64_t begin, const Tables& tables);
  // Draft tokens at positions begin.. that see the window before `begin` and each other.
  // The tail table holds blocks for the first `num_held` of them; the rest, and all block
  // caches, get no slot and are seen by nobody.
  void AddBlock(std::span<const int32_t> tokens, int64_t begin, int64_t num_held,
                const Tables& tables);
  // Marks the last `count` tokens added as ones whose logits are needed.
  void MarkForHead(int64_t count) {
    for (int64_t row = num_tokens() - count; row < num_tokens(); ++row) {
      Push(kHeadRows, row);
    }
  }
  // Last, before Upload: padding rows (kernels/kernel_backend.h) up to `num_rows` tokens,
  // and as many rows for the head, the added ones being row 0 again. All views then have
  // the shapes of a step of `num_rows` sequences with a token each, whatever the step
  // has: at most that. num_rows <= max_tokens, max_sequences.
  void Pad(int64_t num_rows);
  void Upload(kernels::Stream& stream, kernels::KernelBackend* backend);

  // With padding rows, and without.
  int64_t num_tokens() const { return static_cast<int64_t>(arrays_[kTokenIds].size()); }
  int64_t num_real_tokens() const { return num_tokens() - num_padding_tokens_; }
  int64_t num_real_head_rows() const {
    return static_cast<int64_t>(arrays_[kHeadRows].size()) - num_padding_head_rows_;
  }
  bool fits(int64_t more_tokens) const {
    return num_tokens() + more_tokens <= options_.max_tokens;
  }

  // Fills the views of the inputs in `context`, valid after Upload, or for a capture
  // after Pad, and until the next Begin, and most_visible of the tokens added.
  void Describe(StepContext* context) const;

  // Device views, valid after Upload.
  kernels::TensorView token_ids() const { return Device(kTokenIds); }
  kernels::TensorView head_rows() const { return Device(kHeadRows); }

 private:
  // Arrays of max_tokens: five of every model, three of models with tail blocks, then two
  // per ratio (slots, positions).
  enum Array : size_t {
    kTokenIds,
    kCacheSlots,
    kPositions,
    kSequenceOfRow,
    kHeadRows,
    kTailSlots,
    kWindowBegin,
    kWindowEnd,
    kEntries,
  };

  bool has_tail() const { return options_.window > 0; }
  void Push(size_t array, int64_t value) {
    arrays_[array].push_back(static_cast<int32_t>(value));
  }
  void AddTail(int64_t begin, int64_t end, std::span<const int32_t> tail);
  // The tables of the sequence that is being added: of blocks; of tail blocks, all that
  // tokens begin.. end - 1 see.
  void NameBlocks(std::span<const uint32_t> blocks);
  const int32_t* NameTail(int64_t begin, int64_t end, std::span<const int32_t> tail);
  void AddEntries(int64_t position, int64_t block);
  void DescribeEntries();
  kernels::TensorView Device(size_t array) const;
  // `count` rows of the device's tables from `first_row` on.
  kernels::TensorView TableRows(int64_t first_row, int64_t count) const;
  // The tables from row `first_row` of the device's.
  kernels::PagedIndex Paged(int64_t first_row, int64_t block_size) const;

  Options options_;
  std::vector<std::vector<int32_t>> arrays_;
  std::vector<int32_t> block_tables_;  // [max_sequences, max_blocks]
  std::vector<int32_t> tail_tables_;   // as block_tables_; empty without tail blocks
  std::vector<StepContext::Entries> entries_;
  int64_t num_sequences_ = 0;
  int64_t most_visible_ = 0;
  int64_t num_table_rows_ = 0;  // of the views: those of the sequences, and padding
  int64_t num_padding_tokens_ = 0;
  int64_t num_padding_head_rows_ = 0;
  kernels::DeviceBuffer device_arrays_;
  kernels::DeviceBuffer device_tables_;  // block tables, then tail tables
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_STEP_INPUTS_H_
