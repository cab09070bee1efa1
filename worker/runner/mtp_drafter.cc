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
    : config_(config), options_(options), parts_(parts) {}

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
  requests_.reserve(static_cast<size_t>(max_slots));
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

void MtpDrafter::TakeRequests(const proto::StepPlan& plan) {
  requests_.clear();
  for (const proto::SlotWork& work : plan.work) {
    SequenceSlot& slot = parts_.slots->slot(work.slot);
    slot.drafts.clear();
    if (work.num_drafts > 0) {
      requests_.push_back({.slot = work.slot,
                           .num_drafts = work.num_drafts,
                           .length = static_cast<int64_t>(slot.tokens.size())});
      slot.tokens.push_back(*slot.sampled);
    }
  }
  std::sort(requests_.begin(), requests_.end(), [](const Request& a, const Request& b) {
    return a.num_drafts != b.num_drafts ? a.num_drafts > b.num_drafts : a.slot < b.slot;
  });
}

absl::Status MtpDrafter::FeedBack(const StepContext& context, int64_t depth,
                                  int64_t count) {
  inputs_.Begin();
  for (const Request& request : std::span(requests_).first(static_cast<size_t>(count))) {
    const SequenceSlot& slot = parts_.slots->slot(request.slot);
    // The streams at hand are those of position length - 1 + depth - 1.
    inputs_.AddRun(std::span(slot.tokens).last(1), request.length - 1 + depth,
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
    SequenceSlot& slot = parts_.slots->slot(requests_[static_cast<size_t>(i)].slot);
    TESSERA_ASSIGN_OR_RETURN(
        const int32_t token,
        parts_.logits->Choose(
            i, *parts_.sampler, slot.sampling,
            {.tokens = slot.tokens, .prompt_length = slot.prompt_length}));
    slot.tokens.push_back(token);
  }
  return absl::OkStatus();
}

void MtpDrafter::FinishRequests() {
  for (const Request& request : requests_) {
    SequenceSlot& slot = parts_.slots->slot(request.slot);
    const auto drafts = std::span<const int32_t>(slot.tokens)
                            .subspan(static_cast<size_t>(request.length) + 1);
    const auto end = std::find_if_not(drafts.begin(), drafts.end(), [&](int32_t token) {
      return parts_.slots->is_input(token);
    });
    slot.drafts.assign(drafts.begin(), end);
    slot.tokens.resize(static_cast<size_t>(request.length));
  }
}

absl::Status MtpDrafter::Propose(const StepContext& context,
                                 const proto::StepPlan& plan) {
  TakeRequests(plan);
  auto active = static_cast<int64_t>(requests_.size());
  if (active > 0) {
    rows_.clear();
    for (const Request& request : requests_) {
      rows_.push_back(static_cast<int32_t>(request.slot));
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
    while (active > 0 && requests_[static_cast<size_t>(active - 1)].num_drafts <= depth) {
      --active;
    }
    TESSERA_RETURN_IF_ERROR(FeedBack(context, depth, active));
    TESSERA_RETURN_IF_ERROR(DrawDrafts(context, active));
  }
  FinishRequests();
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
  parts_.backend->StorePaged(
      *context.stream, last.Reshape({count, width}),
      UploadIndices(context, sampled_slots_),
      {slot_streams_.data(), context.dtype(), {options_.inputs.max_sequences, 1, width}});
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
