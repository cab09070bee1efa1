#include "worker/runner/mtp_drafter.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "proto/step_plan.h"
#include "worker/layers/decoder.h"
#include "worker/runner/sequence_slots.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

constexpr int64_t kDepth = 0;  // the draft layer that is fed back

}  // namespace

MtpDrafter::MtpDrafter(const model::ModelConfig& config, const DrafterOptions& options,
                       const DrafterParts& parts)
    : config_(config),
      options_(options),
      parts_(parts),
      requests_(parts.slots, options.inputs.max_sequences) {}

absl::StatusOr<std::unique_ptr<MtpDrafter>> MtpDrafter::Create(
    const model::ModelConfig& config, const DrafterOptions& options,
    const DrafterParts& parts) {
  std::unique_ptr<MtpDrafter> drafter(new MtpDrafter(config, options, parts));
  TESSERA_RETURN_IF_ERROR(drafter->Allocate());
  return drafter;
}

absl::Status MtpDrafter::Allocate() {
  const int64_t max_tokens = options_.inputs.max_tokens;
  const int64_t max_slots = options_.inputs.max_sequences;
  TESSERA_ASSIGN_OR_RETURN(inputs_, StepInputs::Create(options_.inputs, parts_.backend));
  sampled_slots_.reserve(static_cast<size_t>(max_slots));
  next_ids_.reserve(static_cast<size_t>(max_tokens));
  rows_.reserve(static_cast<size_t>(max_tokens));
  const auto bytes = [&](int64_t rows) {
    return model::DTypeBytes(
        parts_.backend->activation_dtype(),
        static_cast<size_t>(rows * config_.num_streams() * config_.hidden_size));
  };
  TESSERA_ASSIGN_OR_RETURN(
      streams_, parts_.backend->Allocate(bytes(std::max(max_tokens, max_slots))));
  TESSERA_ASSIGN_OR_RETURN(last_streams_, parts_.backend->Allocate(bytes(max_slots)));
  TESSERA_ASSIGN_OR_RETURN(slot_streams_, parts_.backend->Allocate(bytes(max_slots)));
  TESSERA_ASSIGN_OR_RETURN(
      indices_,
      parts_.backend->Allocate(static_cast<size_t>(std::max(max_tokens, max_slots)) *
                               sizeof(int32_t)));
  return absl::OkStatus();
}

TensorView MtpDrafter::Streams(int64_t rows) const {
  return {streams_.data(),
          parts_.backend->activation_dtype(),
          {rows, config_.num_streams(), config_.hidden_size}};
}

TensorView MtpDrafter::UploadIndices(const StepContext& context,
                                     std::span<const int32_t> indices) {
  const TensorView device(indices_.data(), DType::kI32,
                          {static_cast<int64_t>(indices.size())});
  parts_.backend->Upload(*context.stream, indices.data(), device);
  return device;
}

StepContext MtpDrafter::DraftContext(const StepContext& context) const {
  StepContext draft = context;
  draft.trace = nullptr;
  inputs_.Describe(&draft);
  return draft;
}

// ---- before a step ----

absl::Status MtpDrafter::FeedBack(const StepContext& context, int64_t depth,
                                  int64_t count) {
  inputs_.Begin();
  for (int64_t i = 0; i < count; ++i) {
    const SequenceSlot& slot = requests_.slot(i);
    // The streams at hand are those of position length - 1 + depth - 1.
    inputs_.AddRun(std::span(slot.tokens).last(1), requests_[i].length - 1 + depth,
                   {.blocks = slot.blocks, .tail = slot.tail});
  }
  inputs_.Upload(*context.stream, parts_.backend);
  const StepContext draft = DraftContext(context);
  return parts_.decoder->ForwardDraft(draft, kDepth, draft.token_ids, Streams(count));
}

absl::Status MtpDrafter::DrawDrafts(const StepContext& context, int64_t count) {
  if (count == 0) {
    return absl::OkStatus();  // The same on all ranks of the TP group.
  }
  TESSERA_RETURN_IF_ERROR(parts_.logits->Compute(
      context, Streams(count), [&](TensorView streams, TensorView logits) {
        parts_.decoder->DraftHead(context, kDepth, streams, logits);
      }));
  for (int64_t i = 0; i < count; ++i) {
    TESSERA_RETURN_IF_ERROR(
        requests_.Draw(i, *parts_.logits, i, *parts_.sampler).status());
  }
  return absl::OkStatus();
}

absl::Status MtpDrafter::Propose(const StepContext& context,
                                 const proto::StepPlan& plan) {
  requests_.Take(plan);
  int64_t active = requests_.size();
  if (active > 0) {
    rows_.clear();
    for (int64_t i = 0; i < active; ++i) {
      rows_.push_back(static_cast<int32_t>(requests_[i].slot));
    }
    const TensorView kept(
        slot_streams_.data(), context.dtype(),
        {options_.inputs.max_sequences, config_.num_streams(), config_.hidden_size});
    parts_.backend->GatherRows(*context.stream, kept, UploadIndices(context, rows_),
                               Streams(active));
  }
  TESSERA_RETURN_IF_ERROR(DrawDrafts(context, active));
  // One round for every draft that any rank may want: the experts are shared.
  for (int64_t depth = 1; depth < options_.num_drafts; ++depth) {
    while (active > 0 && requests_[active - 1].num_drafts <= depth) {
      --active;
    }
    TESSERA_RETURN_IF_ERROR(FeedBack(context, depth, active));
    TESSERA_RETURN_IF_ERROR(DrawDrafts(context, active));
  }
  requests_.Finish();
  return absl::OkStatus();
}

// ---- after a step ----

void MtpDrafter::AddCommitted(const StepRun& run, int64_t row) {
  const SequenceSlot& slot = parts_.slots->slot(run.slot);
  const auto known =
      std::span<const int32_t>(slot.tokens).subspan(static_cast<size_t>(run.begin) + 1);
  next_ids_.assign(known.begin(), known.end());
  const int32_t next = run.sample ? *slot.sampled : run.next_token;
  if (next >= 0) {
    next_ids_.push_back(next);
  }
  if (next_ids_.empty()) {
    return;
  }
  inputs_.AddRun(next_ids_, run.begin, {.blocks = slot.blocks, .tail = slot.tail});
  for (size_t i = 0; i < next_ids_.size(); ++i) {
    rows_.push_back(static_cast<int32_t>(row + static_cast<int64_t>(i)));
  }
  if (run.sample) {
    inputs_.MarkForHead(1);
    sampled_slots_.push_back(static_cast<int32_t>(run.slot));
  }
}

void MtpDrafter::KeepStreams(const StepContext& context) {
  const auto count = static_cast<int64_t>(sampled_slots_.size());
  if (count == 0) {
    return;
  }
  const int64_t width = config_.num_streams() * config_.hidden_size;
  const TensorView last(last_streams_.data(), context.dtype(),
                        {count, config_.num_streams(), config_.hidden_size});
  parts_.backend->GatherRows(*context.stream, Streams(inputs_.num_tokens()),
                             inputs_.head_rows(), last);
  // A cache with one row per page: the page is the slot.
  parts_.backend->StorePaged(*context.stream, last.Reshape({count, width}),
                             UploadIndices(context, sampled_slots_),
                             TensorView(slot_streams_.data(), context.dtype(),
                                        {options_.inputs.max_sequences, 1, width}));
}

absl::Status MtpDrafter::Observe(const StepContext& context,
                                 std::span<const StepRun> runs, TensorView streams) {
  inputs_.Begin();
  rows_.clear();
  sampled_slots_.clear();
  int64_t row = 0;
  for (const StepRun& run : runs) {
    AddCommitted(run, row);
    row += run.count;
  }
  inputs_.Upload(*context.stream, parts_.backend);
  const TensorView committed = Streams(inputs_.num_tokens());
  if (!rows_.empty()) {
    parts_.backend->GatherRows(*context.stream, streams, UploadIndices(context, rows_),
                               committed);
  }
  const StepContext draft = DraftContext(context);
  parts_.decoder->BeginDrafts(draft, committed);
  TESSERA_RETURN_IF_ERROR(
      parts_.decoder->ForwardDraft(draft, kDepth, draft.token_ids, committed));
  KeepStreams(draft);
  return absl::OkStatus();
}

}  // namespace tessera::worker
