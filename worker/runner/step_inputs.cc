#include "worker/runner/step_inputs.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

absl::StatusOr<StepInputs> StepInputs::Create(const Options& options,
                                              kernels::KernelBackend* backend) {
  StepInputs inputs;
  inputs.options_ = options;
  const auto tokens = static_cast<size_t>(options.max_tokens);
  for (std::vector<int32_t>* array :
       {&inputs.token_ids_, &inputs.cache_slots_, &inputs.positions_,
        &inputs.sequence_of_row_, &inputs.head_rows_}) {
    array->reserve(tokens);
  }
  const auto table_ints = static_cast<size_t>(options.max_sequences * options.max_blocks);
  inputs.block_tables_.resize(table_ints);
  TESSERA_ASSIGN_OR_RETURN(inputs.arrays_,
                           backend->Allocate(kArrays * tokens * sizeof(int32_t)));
  TESSERA_ASSIGN_OR_RETURN(inputs.tables_,
                           backend->Allocate(table_ints * sizeof(int32_t)));
  return inputs;
}

void StepInputs::Begin() {
  token_ids_.clear();
  cache_slots_.clear();
  positions_.clear();
  sequence_of_row_.clear();
  head_rows_.clear();
  num_sequences_ = 0;
}

void StepInputs::AddRun(std::span<const int32_t> tokens, int64_t begin,
                        std::span<const uint32_t> blocks) {
  TESSERA_CHECK(fits(static_cast<int64_t>(tokens.size())));
  TESSERA_CHECK_LT(num_sequences_, options_.max_sequences);
  TESSERA_CHECK_LE(static_cast<int64_t>(blocks.size()), options_.max_blocks);
  int32_t* table = block_tables_.data() + num_sequences_ * options_.max_blocks;
  for (const uint32_t block : blocks) {
    *table++ = static_cast<int32_t>(block);
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int64_t position = begin + static_cast<int64_t>(i);
    const auto block =
        static_cast<int64_t>(blocks[static_cast<size_t>(position / options_.block_size)]);
    token_ids_.push_back(tokens[i]);
    positions_.push_back(static_cast<int32_t>(position));
    sequence_of_row_.push_back(static_cast<int32_t>(num_sequences_));
    cache_slots_.push_back(static_cast<int32_t>(block * options_.block_size +
                                                position % options_.block_size));
  }
  ++num_sequences_;
}

TensorView StepInputs::Device(size_t array, int64_t count) const {
  auto* const base = static_cast<int32_t*>(arrays_.data());
  return {base + array * static_cast<size_t>(options_.max_tokens), DType::kI32, {count}};
}

void StepInputs::Upload(kernels::Stream& stream, kernels::KernelBackend* backend) {
  backend->Upload(stream, token_ids_.data(), token_ids());
  backend->Upload(stream, cache_slots_.data(), cache_slots());
  const kernels::PagedIndex index = paged();
  backend->Upload(stream, positions_.data(), index.positions);
  backend->Upload(stream, sequence_of_row_.data(), index.sequence_of_row);
  backend->Upload(stream, block_tables_.data(), index.block_tables);
  backend->Upload(stream, head_rows_.data(), head_rows());
}

kernels::PagedIndex StepInputs::paged() const {
  return {.block_tables = {tables_.data(),
                           DType::kI32,
                           {num_sequences_, options_.max_blocks}},
          .sequence_of_row = Device(3, num_tokens()),
          .positions = Device(2, num_tokens()),
          .block_size = options_.block_size};
}

}  // namespace tessera::worker
