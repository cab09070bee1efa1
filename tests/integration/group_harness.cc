#include "tests/integration/group_harness.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "common/status_macros.h"
#include "coordinator/scheduler/scheduler.h"
#include "kernels/tensor_view.h"
#include "model/formats/dtype.h"
#include "proto/step_plan.h"
#include "worker/layers/step_context.h"
#include "worker/service/rank_thread.h"

namespace tessera::testing {
namespace {

uint64_t HashBytes(const void* data, size_t size) {
  uint64_t hash = 1469598103934665603ull;  // FNV-1a
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < size; ++i) {
    hash = (hash ^ bytes[i]) * 1099511628211ull;
  }
  return hash;
}

}  // namespace

// Attributes the rows of "all_logits" to sequences by following the plans; the sequence's
// id rides in its sampling seed, which greedy decoding does not read.
class GroupHarness::LogitsSink final : public worker::TraceSink {
 public:
  void BeginStep(const proto::StepPlan& plan) {
    rows_.clear();
    for (const proto::SlotAdmission& admission : plan.admissions) {
      slots_[admission.slot] = {admission.sampling.seed,
                                static_cast<int64_t>(admission.history.size())};
    }
    for (const proto::SlotWork& work : plan.work) {
      Slot& slot = slots_[work.slot];
      const size_t count = work.from_sample ? 1 : work.tokens.size();
      for (size_t i = 0; i < count; ++i) {
        rows_.push_back({slot.sequence, slot.position++});
      }
    }
    next_row_ = 0;
  }

  void Record(std::string_view what, int64_t, kernels::TensorView rows) override {
    if (what != "all_logits") {
      return;
    }
    MutexLock lock(&mutex_);
    for (int64_t i = 0; i < rows.dim(0); ++i) {
      const Slot& row = rows_[next_row_++];
      const size_t bytes =
          model::DTypeBytes(rows.dtype, static_cast<size_t>(rows.dim(1)));
      const auto* data =
          static_cast<const std::byte*>(rows.data) + static_cast<size_t>(i) * bytes;
      hashes_[row.sequence][row.position] = HashBytes(data, bytes);
    }
  }

  std::map<int64_t, uint64_t> Take(uint64_t sequence) {
    MutexLock lock(&mutex_);
    return std::move(hashes_[sequence]);
  }

 private:
  struct Slot {
    uint64_t sequence = 0;
    int64_t position = 0;
  };
  std::map<uint32_t, Slot> slots_;
  std::vector<Slot> rows_;
  size_t next_row_ = 0;
  Mutex mutex_;
  std::map<uint64_t, std::map<int64_t, uint64_t>> hashes_ ABSL_GUARDED_BY(mutex_);
};

GroupHarness::GroupHarness() = default;
GroupHarness::~GroupHarness() = default;

absl::StatusOr<std::unique_ptr<GroupHarness>> GroupHarness::Create(
    const cli::LoadedModel& model, const HarnessOptions& options,
    const cli::EngramSourceFactory& engram) {
  std::unique_ptr<GroupHarness> harness(new GroupHarness());
  harness->tp_size_ = options.shape.tp;
  harness->step_timeout_ = options.step_timeout;
  cli::RankOptions rank_options = options.rank;
  rank_options.runner.max_tokens = options.max_batched_tokens;
  rank_options.runner.max_slots = options.max_sequences;
  // Not about time: a sanitizer on a busy machine is slow.
  rank_options.runner.engram_timeout = options.step_timeout;
  Clock* const clock = Clock::Real();
  TESSERA_ASSIGN_OR_RETURN(
      harness->ranks_,
      options.devices == nullptr
          ? cli::AssembleLocalGroup(model, options.shape, rank_options, engram, clock)
          : cli::AssembleLocalGroup(model, options.shape, rank_options, engram,
                                    *options.devices, clock));
  TESSERA_ASSIGN_OR_RETURN(
      harness->scheduler_,
      coordinator::Scheduler::Create(
          {.num_dp_ranks = options.shape.dp,
           .max_num_seqs = options.max_sequences,
           .max_num_batched_tokens = options.max_batched_tokens,
           .max_model_len = rank_options.runner.max_model_len,
           .block_size = rank_options.runner.block_size,
           .num_blocks = rank_options.runner.num_blocks,
           .num_tail_blocks = rank_options.runner.num_tail_blocks,
           .tail_tokens = model.config.tail_tokens(),
           .num_host_blocks = rank_options.runner.num_host_blocks,
           .num_host_tail_blocks = rank_options.runner.num_host_tail_blocks,
           .num_disk_blocks = rank_options.runner.num_disk_blocks,
           .num_disk_tail_blocks = rank_options.runner.num_disk_tail_blocks,
           .max_disk_copies = rank_options.runner.max_disk_copies,
           .max_disk_wait = options.max_disk_wait,
           .max_restores = options.max_restores,
           .num_prefill_ranks = options.num_prefill_ranks,
           .prefill_min_tokens = options.prefill_min_tokens,
           .max_transfers = rank_options.runner.max_transfers,
           .enable_prefix_caching = options.prefix_caching,
           .num_speculative_tokens = rank_options.runner.num_speculative_tokens,
           .cache_key_prefix = "test"}));
  harness->scheduler_->StartEpoch(1);
  for (int dp_rank = 0; dp_rank < options.shape.dp; ++dp_rank) {
    harness->sinks_.push_back(std::make_unique<LogitsSink>());
  }
  for (size_t rank = 0; rank < harness->ranks_.size(); ++rank) {
    cli::AssembledRank& parts = harness->ranks_[rank];
    LogitsSink* const sink =
        parts.groups.tp->rank() == 0 && options.record_logits
            ? harness->sinks_[rank / static_cast<size_t>(options.shape.tp)].get()
            : nullptr;
    // Every rank of a TP group gathers all logits: it is a collective.
    parts.runner->SetTrace(sink, options.record_logits);
    const uint64_t version = rank_options.placement_version;
    TESSERA_ASSIGN_OR_RETURN(
        std::unique_ptr<worker::RankThread> thread,
        worker::RankThread::Create(
            {.name = fmt::format("rank {}", rank)},
            [&parts, sink, version](const proto::StepPlan& plan,
                                    proto::LateInputFunction late) {
              proto::StepPlan versioned = plan;
              versioned.placement_version = version;
              if (sink != nullptr) {
                sink->BeginStep(versioned);
              }
              return parts.runner->Execute(versioned, late);
            },
            [&parts](const absl::Status&) { parts.groups.Abort("test group ended"); }));
    harness->threads_.push_back(std::move(thread));
  }
  return harness;
}

absl::Status GroupHarness::SubmitStep(const coordinator::PlannedStep& step) {
  for (size_t rank = 0; rank < threads_.size(); ++rank) {
    TESSERA_RETURN_IF_ERROR(
        threads_[rank]->Submit(step.plans[rank / static_cast<size_t>(tp_size_)]));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<proto::StepResult>> GroupHarness::WaitStep() {
  ++totals_.num_steps;
  std::vector<proto::StepResult> results;
  size_t num_graphs = 0;
  for (size_t rank = 0; rank < threads_.size(); ++rank) {
    TESSERA_ASSIGN_OR_RETURN(proto::StepResult result,
                             threads_[rank]->Wait(absl::Now() + step_timeout_));
    num_graphs += result.counters.graph_rows > 0 ? 1 : 0;
    if (rank % static_cast<size_t>(tp_size_) == 0) {
      totals_.collective_bytes += result.counters.collective_bytes;
      totals_.drafts.num_drafts += result.counters.num_drafts;
      totals_.drafts.num_draft_tokens += result.counters.num_draft_tokens;
      for (size_t i = 0; i < proto::kMaxDrafts; ++i) {
        totals_.drafts.accepted_drafts[i] += result.counters.accepted_drafts[i];
      }
      results.push_back(std::move(result));
    }
  }
  totals_.num_graph_steps += num_graphs == threads_.size() ? 1 : 0;
  return results;
}

absl::StatusOr<std::vector<SequenceOutput>> GroupHarness::Run(
    const std::vector<std::vector<int32_t>>& prompts, int64_t num_tokens) {
  std::vector<coordinator::SequenceSpec> specs;
  for (const std::vector<int32_t>& prompt : prompts) {
    coordinator::SequenceSpec spec;
    spec.prompt = prompt;
    spec.max_tokens = num_tokens;
    spec.sampling.temperature = 0;
    spec.sampling.seed = next_id_ + specs.size();
    specs.push_back(std::move(spec));
  }
  return Run(std::move(specs));
}

bool GroupHarness::TakeToken(const coordinator::AcceptedToken& token,
                             const coordinator::SequenceSpec& spec,
                             SequenceOutput* output) {
  output->tokens.push_back(token.sampled.token);
  output->sampled.push_back(token.sampled);
  if (!token.prompt.empty()) {
    output->prompt_scores = token.prompt;
  }
  ++totals_.num_tokens;
  const std::vector<int32_t>& stops = spec.sampling.stop_token_ids;
  const bool stops_here =
      std::ssize(output->tokens) > spec.sampling.min_tokens &&
      std::find(stops.begin(), stops.end(), token.sampled.token) != stops.end();
  if (!stops_here && !token.length_reached) {
    return false;
  }
  output->cached_tokens = scheduler_->cached_tokens(token.sequence);
  scheduler_->Finish(token.sequence);
  return true;
}

absl::StatusOr<std::vector<SequenceOutput>> GroupHarness::Run(
    std::vector<coordinator::SequenceSpec> specs) {
  const uint64_t first_id = next_id_;
  for (coordinator::SequenceSpec& spec : specs) {
    spec.id = next_id_++;
    if (spec.tenant.empty()) {
      spec.tenant.assign(1, 't');
    }
    spec.arrival = absl::Now();
    spec.deadline = absl::InfiniteFuture();
    TESSERA_RETURN_IF_ERROR(scheduler_->Enqueue(spec));
  }
  std::vector<SequenceOutput> outputs(specs.size());
  std::vector<bool> ended(specs.size(), false);
  size_t unfinished = specs.size();
  int in_flight = 0;
  while (unfinished > 0 || in_flight > 0) {
    if (in_flight < 2 && scheduler_->has_work()) {
      TESSERA_RETURN_IF_ERROR(SubmitStep(scheduler_->Plan(absl::Now())));
      ++in_flight;
      if (in_flight < 2) {
        continue;
      }
    }
    if (in_flight == 0) {
      return absl::InternalError("nothing to do, yet sequences are unfinished");
    }
    TESSERA_ASSIGN_OR_RETURN(const std::vector<proto::StepResult> results, WaitStep());
    --in_flight;
    TESSERA_ASSIGN_OR_RETURN(const std::vector<coordinator::AcceptedToken> accepted,
                             scheduler_->Accept(results));
    for (const coordinator::AcceptedToken& token : accepted) {
      const size_t idx = token.sequence - first_id;
      // Tokens of the same step may follow the last one.
      if (!ended[idx] && TakeToken(token, specs[idx], &outputs[idx])) {
        ended[idx] = true;
        --unfinished;
      }
    }
  }
  totals_.preemptions = scheduler_->stats().preemptions;
  for (size_t i = 0; i < outputs.size(); ++i) {
    for (const std::unique_ptr<LogitsSink>& sink : sinks_) {
      outputs[i].logits_of_position.merge(sink->Take(first_id + i));
    }
  }
  return outputs;
}

}  // namespace tessera::testing
