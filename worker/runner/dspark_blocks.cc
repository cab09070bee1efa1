#include "worker/runner/dspark_blocks.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/formats/dtype.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

DsparkBlocks::DsparkBlocks(const StepInputs::Options& inputs, const Parts& parts)
    : parts_(parts),
      capacity_(
          std::min({inputs.max_sequences, inputs.max_tokens / parts.draft->block_size(),
                    parts.logits->max_rows()})),
      tokens_(static_cast<size_t>(parts.draft->block_size()),
              static_cast<int32_t>(parts.draft->noise_token_id())) {}

absl::StatusOr<std::unique_ptr<DsparkBlocks>> DsparkBlocks::Create(
    const StepInputs::Options& inputs, const Parts& parts) {
  std::unique_ptr<DsparkBlocks> blocks(new DsparkBlocks(inputs, parts));
  if (blocks->capacity_ < 1) {
    return InvalidArgumentF("steps of {} tokens, expected at least {} for a draft block",
                            inputs.max_tokens, parts.draft->block_size());
  }
  kernels::KernelBackend* const backend = parts.backend;
  TESSERA_ASSIGN_OR_RETURN(blocks->inputs_, StepInputs::Create(inputs, backend));
  const auto bytes = [&](DType dtype, int64_t count) {
    return model::DTypeBytes(dtype, static_cast<size_t>(count));
  };
  const DType dtype = backend->activation_dtype();
  const int64_t capacity = blocks->capacity_;
  blocks->confidence_.resize(bytes(dtype, capacity));
  TESSERA_ASSIGN_OR_RETURN(
      blocks->hidden_, backend->Allocate(bytes(
                           dtype, capacity * blocks->block_size() * parts.hidden_size)));
  TESSERA_ASSIGN_OR_RETURN(
      blocks->head_logits_,
      backend->Allocate(
          bytes(dtype, capacity * blocks->block_size() * parts.vocab_shard)));
  TESSERA_ASSIGN_OR_RETURN(blocks->previous_,
                           backend->Allocate(bytes(DType::kI32, capacity)));
  TESSERA_ASSIGN_OR_RETURN(blocks->device_confidence_,
                           backend->Allocate(bytes(dtype, capacity)));
  return blocks;
}

void DsparkBlocks::Begin() {
  inputs_.Begin();
  num_blocks_ = 0;
}

void DsparkBlocks::Add(int32_t token, int64_t begin, int64_t num_held,
                       const StepInputs::Tables& tables) {
  TESSERA_CHECK_LT(num_blocks_, capacity_);
  tokens_.front() = token;
  inputs_.AddBlock(tokens_, begin, std::min(num_held, block_size()), tables);
  ++num_blocks_;
}

StepContext DsparkBlocks::BlockContext(const StepContext& context) const {
  StepContext block = context;
  block.trace = nullptr;
  inputs_.Describe(&block);
  return block;
}

// [n B, d].
TensorView DsparkBlocks::Hidden() const {
  return {hidden_.data(),
          parts_.backend->activation_dtype(),
          {num_blocks_ * block_size(), parts_.hidden_size}};
}

// [n, B, d]: one row per block, for calls that count rows.
TensorView DsparkBlocks::Rows() const {
  return Hidden().Reshape({num_blocks_, block_size(), parts_.hidden_size});
}

// [n B, V_local].
TensorView DsparkBlocks::HeadLogits() const {
  return {head_logits_.data(),
          parts_.backend->activation_dtype(),
          {num_blocks_ * block_size(), parts_.vocab_shard}};
}

absl::Status DsparkBlocks::Run(const StepContext& context) {
  inputs_.Upload(*context.stream, parts_.backend);
  const StepContext block = BlockContext(context);
  TESSERA_RETURN_IF_ERROR(parts_.draft->ForwardBlock(block, Hidden()));
  // Of all positions at once: the head is read once instead of B times.
  parts_.draft->Head(block, Hidden(), HeadLogits());
  return absl::OkStatus();
}

absl::Status DsparkBlocks::Base(const StepContext& context, int64_t at) {
  return parts_.logits->Compute(context, Rows(), [&](TensorView, TensorView logits) {
    parts_.backend->Copy(*context.stream, RowOfBlocks(HeadLogits(), block_size(), at),
                         logits);
  });
}

absl::Status DsparkBlocks::Step(const StepContext& context, int64_t at,
                                const std::vector<int32_t>& previous) {
  TESSERA_CHECK_EQ(static_cast<int64_t>(previous.size()), num_blocks_);
  const TensorView before(previous_.data(), DType::kI32, {num_blocks_});
  const TensorView accepted(device_confidence_.data(), context.dtype(), {num_blocks_, 1});
  parts_.backend->Upload(*context.stream, previous.data(), before);
  TESSERA_RETURN_IF_ERROR(
      parts_.logits->Compute(context, Rows(), [&](TensorView, TensorView logits) {
        parts_.backend->Copy(*context.stream, RowOfBlocks(HeadLogits(), block_size(), at),
                             logits);
        parts_.draft->Walk(context, Hidden(), at, before, logits, accepted);
      }));
  parts_.backend->Download(*context.stream, accepted, confidence_.data());
  return context.stream->Synchronize();
}

TensorView DsparkBlocks::confidence() const {
  return {const_cast<std::byte*>(confidence_.data()),
          parts_.backend->activation_dtype(),
          {num_blocks_}};
}

}  // namespace tessera::worker
