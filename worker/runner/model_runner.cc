#include "worker/runner/model_runner.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/fp8_products.h"
#include "kernels/kernel_backend.h"
#include "kernels/runtime/stream_event.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "proto/decode_rows.h"
#include "proto/step_plan.h"
#include "routing/expert_placement.h"
#include "worker/runner/model_shapes.h"
#include "worker/runner/verification.h"
#include "worker/runner/weights/expert_format.h"
#include "worker/runner/weights/weight_loader.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

SlotLimits MakeSlotLimits(const model::ModelConfig& config, const RunnerOptions& options,
                          const RunnerParts& parts) {
  return {.num_slots = options.max_slots,
          .max_model_len = options.max_model_len,
          .num_blocks = options.num_blocks,
          .num_tail_blocks = options.num_tail_blocks,
          .tail_tokens = config.tail_tokens(),
          .block_size = options.block_size,
          .num_token_ids = parts.hash == nullptr
                               ? config.vocab_size
                               : std::min(config.vocab_size, parts.hash->num_token_ids()),
          .vocab_size = config.vocab_size,
          .max_drafts = options.num_speculative_tokens};
}

}  // namespace

ModelRunner::ModelRunner(const model::ModelConfig& config, const RunnerOptions& options,
                         const RunnerParts& parts)
    : config_(config),
      options_(options),
      parts_(parts),
      host_tp_(parts.tp),
      tp_(parts.tp->on_stream() != nullptr ? parts.tp->on_stream()
                                           : static_cast<StreamCommunicator*>(&host_tp_)),
      wait_({parts.tp, parts.ep, parts.node, parts.rail}, parts.clock),
      max_head_rows_(std::min(options.max_tokens,
                              options.max_slots * (1 + options.num_speculative_tokens))),
      slots_(MakeSlotLimits(config, options, parts)),
      sampler_(config.vocab_size, slots_.limits().num_token_ids) {}

ModelRunner::~ModelRunner() {
  if (stream_ != nullptr) {  // which would wait for what a rank is missing in
    wait_.GiveUp(*stream_, "a rank of it ended");
  }
}

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(
    const model::ModelConfig& config, const RunnerOptions& options,
    const routing::ExpertPlacement& placement, const RunnerParts& parts) {
  TESSERA_RETURN_IF_ERROR(routing::ValidatePlacement(placement));
  if (placement.num_experts() != config.moe.num_experts ||
      placement.num_ranks != parts.ep->size()) {
    return InvalidArgumentF("placement of {} experts on {} ranks, expected {} on {}",
                            placement.num_experts(), placement.num_ranks,
                            config.moe.num_experts, parts.ep->size());
  }
  kernels::KernelBackend* const backend = parts.backend;
  TESSERA_RETURN_IF_ERROR(backend->CheckShapes(ShapesOf(config)));
  std::unique_ptr<ModelRunner> runner(new ModelRunner(config, options, parts));
  runner->placement_version_ = placement.version;
  TESSERA_ASSIGN_OR_RETURN(runner->stream_, backend->CreateStream());
  TESSERA_RETURN_IF_ERROR(runner->CreateExchanges(placement));
  TESSERA_ASSIGN_OR_RETURN(
      LoadedWeights loaded,
      LoadWeights(*parts.checkpoint, config,
                  {.tp_rank = parts.tp->rank(),
                   .tp_size = parts.tp->size(),
                   .local_experts = runner->exchange_->local_experts(),
                   .draft_experts = runner->draft_exchange()->local_experts()},
                  backend));
  runner->weight_bytes_ = loaded.bytes;
  TESSERA_ASSIGN_OR_RETURN(runner->kv_,
                           KvPool::Create(config, backend,
                                          {.num_blocks = options.num_blocks,
                                           .num_tail_blocks = options.num_tail_blocks,
                                           .block_size = options.block_size,
                                           .dtype = options.kv_cache_dtype}));
  TESSERA_ASSIGN_OR_RETURN(
      HostBlocks host_blocks,
      HostBlocks::Create(config, backend, runner->kv_.caches(),
                         {.num_blocks = options.num_host_blocks,
                          .num_tail_blocks = options.num_host_tail_blocks,
                          .dtype = options.kv_cache_dtype}));
  runner->host_blocks_ = std::make_unique<HostBlocks>(std::move(host_blocks));
  TESSERA_RETURN_IF_ERROR(runner->CreateTransfer());
  TESSERA_RETURN_IF_ERROR(runner->CreateDisk());
  TESSERA_ASSIGN_OR_RETURN(
      runner->decoder_, Decoder::Create(config,
                                        {.tp_rank = parts.tp->rank(),
                                         .tp_size = parts.tp->size(),
                                         .max_tokens = options.max_tokens},
                                        std::move(loaded.weights), runner->kv_.caches(),
                                        {.layers = runner->exchange_.get(),
                                         .drafts = runner->draft_exchange()}));
  if (config.engram.has_value()) {
    TESSERA_CHECK(parts.engram != nullptr && parts.hash != nullptr);
    TESSERA_ASSIGN_OR_RETURN(
        runner->engram_,
        EngramPrefetch::Create(
            config, {.max_tokens = options.max_tokens, .timeout = options.engram_timeout},
            parts.hash, parts.engram, backend, parts.clock));
  }
  TESSERA_RETURN_IF_ERROR(runner->AllocateActivations());
  if (options.num_speculative_tokens > 0) {
    TESSERA_ASSIGN_OR_RETURN(runner->drafter_,
                             CreateDrafter(config,
                                           {.num_drafts = options.num_speculative_tokens,
                                            .min_chance = options.min_draft_chance,
                                            .inputs = runner->InputOptions()},
                                           {.backend = backend,
                                            .decoder = runner->decoder_.get(),
                                            .slots = &runner->slots_,
                                            .logits = &runner->logits_,
                                            .sampler = &runner->sampler_}));
  }
  return runner;
}

StepInputs::Options ModelRunner::InputOptions() const {
  return {.max_tokens = options_.max_tokens,
          .max_sequences = options_.max_slots,
          .max_blocks =
              (options_.max_model_len + options_.block_size - 1) / options_.block_size,
          .block_size = options_.block_size,
          .window = config_.has_window() ? config_.compressed.window : 0,
          .tail_tokens = config_.tail_tokens(),
          .ratios = config_.distinct_ratios()};
}

bool ModelRunner::RoundsRowsOf(const model::MoeConfig& moe) const {
  return options_.fp8_dispatch && kernels::IsFp8Numerics(parts_.backend->numerics_id()) &&
         AreFp8Experts(config_, moe);
}

absl::Status ModelRunner::CreateExchanges(const routing::ExpertPlacement& placement) {
  const ExchangeGroups groups = {
      .ep = parts_.ep, .node = parts_.node, .rail = parts_.rail};
  const model::MoeConfig& draft = config_.draft_moe;
  const bool has_own_drafts = config_.num_draft_layers > 0 &&
                              (draft.num_experts != config_.moe.num_experts ||
                               draft.experts_per_token != config_.moe.experts_per_token);
  // Where ops run at once there is nothing to overlap.
  const std::optional<RoundPolicy> overlap =
      kernels::StreamEventsOf(parts_.backend) != nullptr ? options_.exchange_rounds
                                                         : std::nullopt;
  const auto options_of = [&](const model::MoeConfig& moe, const std::vector<int>& owner,
                              bool rounds) -> ExpertExchangeOptions {
    return {.max_tokens = options_.max_tokens,
            .hidden_size = config_.hidden_size,
            .experts_per_token = moe.experts_per_token,
            .weights_travel = moe.weights_before_down,
            .rows = rounds ? DispatchRows::kFp8 : DispatchRows::kActivations,
            .rounds = RoutedPolicy(parts_.ep->size(), overlap),
            .expert_owner = owner};
  };
  const bool drafts_round = config_.num_draft_layers == 0 || RoundsRowsOf(draft);
  const ExpertExchangeOptions options =
      options_of(config_.moe, placement.rank_of_expert,
                 RoundsRowsOf(config_.moe) && (has_own_drafts || drafts_round));
  if (captures() && parts_.ep->size() > 1) {
    TESSERA_ASSIGN_OR_RETURN(
        std::unique_ptr<SwitchedExchange> switched,
        SwitchedExchange::Create(options, SlotRows(max_decode_rows()),
                                 options_.exchange_rounds, parts_.backend, groups));
    switched_ = switched.get();
    exchange_ = std::move(switched);
  } else {
    TESSERA_ASSIGN_OR_RETURN(exchange_,
                             ExpertExchange::Create(options, parts_.backend, groups));
  }
  if (!has_own_drafts) {
    return absl::OkStatus();
  }
  // Draft layers with experts of their own: in even runs, which may leave a rank without.
  std::vector<int> owner;
  for (int64_t expert = 0; expert < draft.num_experts; ++expert) {
    owner.push_back(static_cast<int>(expert * parts_.ep->size() / draft.num_experts));
  }
  TESSERA_ASSIGN_OR_RETURN(own_draft_exchange_,
                           ExpertExchange::Create(options_of(draft, owner, drafts_round),
                                                  parts_.backend, groups));
  return absl::OkStatus();
}

absl::Status ModelRunner::CreateTransfer() {
  if (options_.max_transfers == 0) {
    return absl::OkStatus();
  }
  const KvPool::PageFormat page = {.activations = parts_.backend->activation_dtype(),
                                   .dtype = options_.kv_cache_dtype,
                                   .block_size = options_.block_size};
  TESSERA_ASSIGN_OR_RETURN(
      transfer_, KvTransfer::Create({.max_messages = options_.max_transfers,
                                     .max_payload_bytes = static_cast<int64_t>(std::max(
                                         KvPool::BlockBytes(config_, page),
                                         KvPool::TailBlockBytes(config_, page)))},
                                    parts_.ep));
  return absl::OkStatus();
}

absl::Status ModelRunner::CreateDisk() {
  if (options_.num_disk_blocks == 0) {
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<DiskSlots> disk,
      DiskSlots::Create(
          {.path = fmt::format("{}/kv-rank-{}.slots", options_.kv_disk_dir,
                               parts_.ep->rank()),
           .kinds = {{options_.num_disk_blocks, host_blocks_->block_bytes(false)},
                     {options_.num_disk_tail_blocks, host_blocks_->block_bytes(true)}},
           .clock = parts_.clock,
           .num_buffers = options_.max_disk_copies}));
  host_blocks_->SetDisk(std::move(disk));
  return absl::OkStatus();
}

absl::Status ModelRunner::AllocateActivations() {
  kernels::KernelBackend* const backend = parts_.backend;
  const DType dtype = backend->activation_dtype();
  const int64_t width = config_.num_streams() * config_.hidden_size;
  const auto bytes = [&](int64_t rows, int64_t cols) {
    return model::DTypeBytes(dtype, static_cast<size_t>(rows * cols));
  };
  TESSERA_ASSIGN_OR_RETURN(scratch_,
                           ScratchArena::Create(backend, decoder_->scratch_bytes()));
  TESSERA_ASSIGN_OR_RETURN(inputs_, StepInputs::Create(InputOptions(), backend));
  const int64_t draft_runs =
      std::max(options_.num_speculative_tokens, options_.max_slots);
  TESSERA_ASSIGN_OR_RETURN(routed_loads_,
                           RoutedLoads::Create(config_, draft_runs, backend));
  runs_.reserve(static_cast<size_t>(options_.max_slots));
  TESSERA_ASSIGN_OR_RETURN(streams_,
                           backend->Allocate(bytes(options_.max_tokens, width)));
  TESSERA_ASSIGN_OR_RETURN(head_streams_,
                           backend->Allocate(bytes(max_head_rows_, width)));
  TESSERA_ASSIGN_OR_RETURN(logits_,
                           LogitRows::Create({.max_rows = max_head_rows_,
                                              .vocab_size = config_.vocab_size,
                                              .vocab_shard = decoder_->vocab_shard()},
                                             backend, tp_));
  return absl::OkStatus();
}

TensorView ModelRunner::StreamsView(int64_t rows) const {
  return {streams_.data(),
          parts_.backend->activation_dtype(),
          {rows, config_.num_streams(), config_.hidden_size}};
}

absl::Status ModelRunner::CheckOrder(const proto::StepPlan& plan) {
  if (plan.placement_version != placement_version_) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "plan of placement {}, this rank has {}", plan.placement_version,
                   placement_version_);
  }
  if (!epoch_begun_ || plan.epoch > epoch_) {
    slots_.Clear();
    host_blocks_->Clear(plan.epoch);
    epoch_ = plan.epoch;
    epoch_begun_ = true;
    epoch_failed_ = false;
  } else if (plan.epoch < epoch_ || epoch_failed_ || plan.step != last_step_ + 1) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "plan of epoch {} step {}, expected epoch {} step {}{}", plan.epoch,
                   plan.step, epoch_, last_step_ + 1,
                   epoch_failed_ ? " (the epoch has failed)" : "");
  }
  last_step_ = plan.step;
  return absl::OkStatus();
}

absl::Status ModelRunner::CheckWork(const proto::StepPlan& plan) {
  ++plan_serial_;
  if (static_cast<int64_t>(plan.work.size()) > options_.max_slots) {
    return InvalidArgumentF("{} work items, at most {}", plan.work.size(),
                            options_.max_slots);
  }
  int64_t num_tokens = 0;
  for (const proto::SlotWork& work : plan.work) {
    TESSERA_RETURN_IF_ERROR(slots_.CheckWork(work));
    if (std::exchange(slots_.slot(work.slot).named_by, plan_serial_) == plan_serial_) {
      return InvalidArgumentF("two works for slot {}", work.slot);
    }
    num_tokens += std::ssize(work.tokens) + (work.from_sample ? 1 : 0) + work.num_drafts;
  }
  if (num_tokens > options_.max_tokens) {
    return InvalidArgumentF("{} tokens in a step, at most {}", num_tokens,
                            options_.max_tokens);
  }
  return proto::CheckDecodeRows(plan, max_decode_rows());
}

absl::Status ModelRunner::GatherInputs(const proto::StepPlan& plan) {
  inputs_.Begin();
  runs_.clear();
  if (engram_ != nullptr) {
    engram_->Begin();
  }
  for (const proto::SlotWork& work : plan.work) {
    TESSERA_ASSIGN_OR_RETURN(const StepRun run, slots_.Advance(work));
    const SequenceSlot& slot = slots_.slot(run.slot);
    const std::span<const int32_t> tokens(slot.tokens);
    inputs_.AddRun(tokens.subspan(static_cast<size_t>(run.begin)), run.begin,
                   {.blocks = slot.blocks, .tail = slot.tail});
    inputs_.MarkForHead(run.num_head_rows());
    if (engram_ != nullptr) {
      engram_->Add(tokens, run.begin);
    }
    runs_.push_back(run);
  }
  return absl::OkStatus();
}

StepContext ModelRunner::MakeContext() {
  StepContext context;
  context.backend = parts_.backend;
  context.stream = stream_.get();
  context.scratch = &scratch_;
  context.tp = tp_;
  context.wait = &wait_;
  context.trace = trace_.get();
  inputs_.Describe(&context);
  context.collective_ns = &collective_ns_;
  context.collective_bytes = &collective_bytes_;
  context.routed_loads = routed_loads_.get();
  return context;
}

absl::Status ModelRunner::EnqueueHead(const StepContext& context) {
  const TensorView rows = inputs_.head_rows();
  const TensorView picked(head_streams_.data(), context.dtype(),
                          {rows.dim(0), config_.num_streams(), config_.hidden_size});
  parts_.backend->GatherRows(*stream_, StreamsView(context.num_tokens), rows, picked);
  return logits_.Project(context, picked, [&](TensorView in, TensorView out) {
    decoder_->Head(context, in, out);
  });
}

absl::Status ModelRunner::SampleAll(const StepContext& context, bool has_logits,
                                    const proto::StepPlan& plan,
                                    proto::LateInputFunction late,
                                    proto::StepResult& result) {
  const int64_t count = inputs_.num_real_head_rows();
  if (count == 0) {
    return absl::OkStatus();
  }
  if (!has_logits) {
    TESSERA_RETURN_IF_ERROR(EnqueueHead(context));
  }
  TESSERA_RETURN_IF_ERROR(logits_.Collect(context, inputs_.head_rows().dim(0), count));
  // As late as it can be: the masks are made while the forward pass runs.
  proto::LateInput input;
  if (std::any_of(plan.work.begin(), plan.work.end(),
                  [](const proto::SlotWork& work) { return work.masked; })) {
    TESSERA_ASSIGN_OR_RETURN(input, late());
    if (const absl::Status taken = slots_.TakeMasks(plan, input); !taken.ok()) {
      slots_.DropMasks(plan);  // those before the bad one
      return taken;
    }
  }
  result.sampled.reserve(static_cast<size_t>(count));
  const absl::Status status = SampleRuns(
      runs_, slots_,
      [&](int64_t row, const SequenceSlot& slot, const SamplingHistory& history) {
        return logits_.Sample(row, sampler_, slot.sampling, history);
      },
      result.sampled, result.counters);
  slots_.DropMasks(plan);
  return status;
}

absl::Status ModelRunner::ScorePrompts(const StepContext& context,
                                       proto::StepResult& result) {
  int64_t first_row = 0;  // of the run, among the step's tokens
  for (const StepRun& run : runs_) {
    const SequenceSlot& slot = slots_.slot(run.slot);
    const int64_t wanted =
        slot.sampling.num_prompt_logprobs < 0
            ? 0
            : std::clamp<int64_t>(slot.prompt_length - 1 - run.begin, 0, run.count);
    for (int64_t done = 0; done < wanted; done += max_head_rows_) {
      const int64_t count = std::min(max_head_rows_, wanted - done);
      TESSERA_RETURN_IF_ERROR(logits_.Compute(
          context, StreamsView(context.num_tokens).Rows(first_row + done, count),
          [&](TensorView in, TensorView out) { decoder_->Head(context, in, out); }));
      for (int64_t row = 0; row < count; ++row) {
        const int64_t position = run.begin + done + row + 1;
        const int32_t token = position < std::ssize(slot.tokens)
                                  ? slot.tokens[static_cast<size_t>(position)]
                                  : run.next_token;
        if (token < 0) {
          return InvalidArgumentF("slot {}: no token at position {} of the prompt",
                                  run.slot, position);
        }
        TESSERA_ASSIGN_OR_RETURN(proto::SampledToken scored,
                                 logits_.Score(row, sampler_, token, position,
                                               slot.sampling.num_prompt_logprobs));
        scored.slot = run.slot;
        result.prompt.push_back(std::move(scored));
      }
    }
    first_row += run.count;
  }
  return absl::OkStatus();
}

void ModelRunner::FillCounters(const proto::StepPlan& plan, absl::Time begin,
                               proto::StepCounters* counters) {
  counters->num_tokens = static_cast<uint32_t>(inputs_.num_real_tokens());
  counters->collective_ns = static_cast<uint64_t>(collective_ns_);
  counters->collective_bytes = static_cast<uint64_t>(collective_bytes_);
  counters->expert_imbalance = routed_loads_->imbalance();
  if (plan.transfers) {
    counters->transfer_bytes = static_cast<uint64_t>(transfer_->sent_bytes());
  }
  if (engram_ != nullptr) {
    counters->engram_wait_ns = static_cast<uint64_t>(engram_->wait_ns());
    counters->engram_rows = static_cast<uint64_t>(engram_->num_rows());
    const engram_store::EngramSourceStats now = parts_.engram->stats();
    counters->engram_late_waits = now.late_waits - engram_seen_.late_waits;
    counters->engram_cache_hits = now.cache_hits - engram_seen_.cache_hits;
    counters->engram_cache_misses = now.cache_misses - engram_seen_.cache_misses;
    counters->engram_disk_bytes = now.disk_bytes - engram_seen_.disk_bytes;
    engram_seen_ = now;
  }
  counters->step_ns =
      static_cast<uint64_t>(absl::ToInt64Nanoseconds(parts_.clock->Now() - begin));
}

absl::StatusOr<proto::StepResult> ModelRunner::Execute(const proto::StepPlan& plan) {
  return Execute(plan, [&plan]() -> absl::StatusOr<proto::LateInput> {
    return InvalidArgumentF("step {} has masked work and no late input", plan.step);
  });
}

absl::StatusOr<proto::StepResult> ModelRunner::Execute(const proto::StepPlan& plan,
                                                       proto::LateInputFunction late) {
  runs_step_ = false;
  absl::StatusOr<proto::StepResult> result = RunStep(plan, late);
  if (!result.ok()) {
    absl::Status status = wait_.TakeError();
    status.Update(result.status());
    status = WithContext(status, fmt::format("step {}", plan.step));
    if (runs_step_) {
      wait_.EndGroups({status.message().data(), status.message().size()});
    }
    return status;
  }
  return result;
}

absl::StatusOr<proto::StepResult> ModelRunner::RunStep(const proto::StepPlan& plan,
                                                       proto::LateInputFunction late) {
  const absl::Time begin = parts_.clock->Now();
  TESSERA_RETURN_IF_ERROR(CheckOrder(plan));
  // Until the step has succeeded; an error below leaves slots and caches half-way.
  epoch_failed_ = true;
  proto::StepResult result;
  TESSERA_RETURN_IF_ERROR(host_blocks_->CopyDisk(plan, &result));
  TESSERA_RETURN_IF_ERROR(
      host_blocks_->Copy(*stream_, plan,
                         {.transfer = transfer_.get(),
                          .tp_rank = parts_.tp->rank(),
                          .tp_size = parts_.tp->size(),
                          .num_dp_ranks = parts_.ep->size() / parts_.tp->size()}));
  TESSERA_RETURN_IF_ERROR(slots_.Apply(plan));
  TESSERA_RETURN_IF_ERROR(CheckWork(plan));
  runs_step_ = true;
  collective_ns_ = 0;
  collective_bytes_ = 0;
  // The ranks of a TP group route the same tokens.
  routed_loads_->Begin(parts_.tp->rank() == 0 && !plan.leaves_expert_counts);
  if (drafter_ != nullptr) {
    inputs_.Begin();
    TESSERA_RETURN_IF_ERROR(drafter_->Propose(MakeContext(), plan));
  }
  TESSERA_RETURN_IF_ERROR(GatherInputs(plan));
  const DecodeGraphs::Step* const graph = FindGraph(plan);
  if (graph != nullptr) {
    inputs_.Pad(graph->num_rows);
    result.counters.graph_rows = static_cast<uint32_t>(graph->num_rows);
  }
  absl::Status status = engram_ == nullptr ? absl::OkStatus() : engram_->Issue();
  inputs_.Upload(*stream_, parts_.backend);
  const StepContext context = MakeContext();
  context.Trace("token_ids", -1, context.token_ids);
  TraceRows(context);
  if (status.ok()) {
    status = Forward(context, graph);
  }
  if (!status.ok() && engram_ != nullptr) {
    engram_->Drain();
  }
  TESSERA_RETURN_IF_ERROR(status);
  if (trace_all_logits_) {
    TESSERA_RETURN_IF_ERROR(TraceAllLogits(context));
  }
  result.epoch = plan.epoch;
  result.step = plan.step;
  TESSERA_RETURN_IF_ERROR(ScorePrompts(context, result));
  TESSERA_RETURN_IF_ERROR(SampleAll(context, graph != nullptr, plan, late, result));
  if (drafter_ != nullptr) {
    TESSERA_RETURN_IF_ERROR(
        drafter_->Observe(context, runs_, StreamsView(context.num_tokens)));
  }
  TESSERA_RETURN_IF_ERROR(wait_.Synchronize(*stream_));
  routed_loads_->Finish();
  TESSERA_RETURN_IF_ERROR(exchange_->Check());
  TESSERA_RETURN_IF_ERROR(draft_exchange()->Check());
  if (engram_ != nullptr) {
    TESSERA_RETURN_IF_ERROR(engram_->Check());
  }
  FillCounters(plan, begin, &result.counters);
  if (parts_.tp->rank() != 0) {
    result.sampled.clear();
    result.prompt.clear();
  } else if (plan.reports_expert_counts) {
    const std::span<const uint32_t> counts = routed_loads_->counts();
    result.expert_counts.assign(counts.begin(), counts.end());
    routed_loads_->ClearCounts();
  }
  epoch_failed_ = false;
  return result;
}

}  // namespace tessera::worker
