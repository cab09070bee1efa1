// ModelRunner: the worker's end of StepExecutor. Executes one StepPlan after another on
// one rank: applies the plan's deltas, gathers inputs, asks for Engram rows, runs the
// forward pass, samples. Owns the rank's weights, caches and scratch; owns no queue,
// decides nothing.
#ifndef TESSERA_WORKER_RUNNER_MODEL_RUNNER_H_
#define TESSERA_WORKER_RUNNER_MODEL_RUNNER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "engram_store/client/engram_source.h"
#include "engram_store/hashing/engram_hash.h"
#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"
#include "proto/step_executor.h"
#include "proto/step_plan.h"
#include "routing/expert_placement.h"
#include "worker/comm/communicator.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/host_stream_communicator.h"
#include "worker/comm/kv_transfer.h"
#include "worker/comm/stream_wait.h"
#include "worker/comm/switched_exchange.h"
#include "worker/layers/decoder.h"
#include "worker/layers/routed_loads.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"
#include "worker/runner/decode_graphs.h"
#include "worker/runner/drafter.h"
#include "worker/runner/engram_prefetch.h"
#include "worker/runner/host_blocks.h"
#include "worker/runner/kv_pool.h"
#include "worker/runner/logit_rows.h"
#include "worker/runner/sampler.h"
#include "worker/runner/sequence_slots.h"
#include "worker/runner/step_inputs.h"

namespace tessera::worker {

struct RunnerOptions {
  int64_t max_tokens = 512;  // of one step
  int64_t max_slots = 64;
  int64_t max_model_len = 4096;
  int64_t num_blocks = 0;
  int64_t num_tail_blocks = 0;  // of models that keep tail blocks
  int64_t num_host_blocks = 0;  // copies of either in host memory
  int64_t num_host_tail_blocks = 0;
  // Copies of these in a file of `kv_disk_dir`, and how many are written and read at the
  // same time, at most. 0: none.
  int64_t num_disk_blocks = 0;
  int64_t num_disk_tail_blocks = 0;
  int64_t max_disk_copies = 0;
  std::string kv_disk_dir;
  // Blocks and tail blocks that a step sends to other ranks, and takes from them, at
  // most. 0: plans have no transfers.
  int64_t max_transfers = 0;
  int64_t block_size = 16;
  KvCacheDtype kv_cache_dtype = KvCacheDtype::kActivations;
  int64_t num_speculative_tokens = 0;  // drafts of one sequence and step, at most
  double min_draft_chance = 0.2;       // DrafterOptions::min_chance
  absl::Duration engram_timeout = absl::Seconds(5);
  // Rows go to the experts in FP8 where the backend's numerics round them so before they
  // are multiplied, which changes no bit; false: in float32. The same on every rank.
  bool fp8_dispatch = true;
  // Decode steps as graphs, where the backend has them (decode_graphs.h), within bounds
  // on all captures of a start.
  bool decode_graphs = false;
  absl::Duration decode_graph_time = absl::Seconds(60);
  int64_t decode_graph_bytes = int64_t{1} << 30;
  // How rows go to experts of other ranks and overlap with what these compute: those of a
  // captured step (SlotRounds::Create) and, on devices, of any other (RoutedPolicy). The
  // same on all ranks.
  std::optional<RoundPolicy> exchange_rounds = RoundPolicy{};
};

// What a runner works with; all must outlive it. `engram` and `hash` are null for a model
// without Engram.
struct RunnerParts {
  const model::Checkpoint* checkpoint = nullptr;
  kernels::KernelBackend* backend = nullptr;
  Communicator* tp = nullptr;
  Communicator* ep = nullptr;
  Communicator* node = nullptr;  // these two or neither: ExchangeGroups
  Communicator* rail = nullptr;
  engram_store::EngramSource* engram = nullptr;
  const engram_store::EngramHash* hash = nullptr;
  Clock* clock = nullptr;
};

// Where the streams that a draft starts from come from.
enum class DraftSource { kMainModel, kDraft };

// A draft block of B tokens: logits before and after the walk's term, [B V] each; the
// tokens, and the logit of each one's being accepted.
struct DraftBlock {
  std::vector<double> base_logits;
  std::vector<double> logits;
  std::vector<int32_t> tokens;
  std::vector<double> confidence;
};

// Step thread only.
class ModelRunner {
 public:
  // Maps the weights, allocates everything. kInvalidArgument: a shard or placement that
  // the model does not allow, a model too large for the backend's ops, or a disk tier
  // that its disk does not have; kResourceExhausted: memory; kUnavailable,
  // kFailedPrecondition: the tier's file (DiskSlots); kNotFound, kDataLoss: the
  // checkpoint.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(
      const model::ModelConfig& config, const RunnerOptions& options,
      const routing::ExpertPlacement& placement, const RunnerParts& parts);
  ~ModelRunner();

  // Captures decode steps as graphs if the options ask for them; logs which, or why none.
  // Start-up, before the first step. Collective over the group, whose ranks have the same
  // options: all of them have the same graphs then, or all have none. That a rank cannot
  // capture is no error, its group runs those steps eagerly; an error is the group's end.
  absl::Status CaptureDecodeSteps();

  // Runs one step. Collective over the group. `late` is called before the sampler if the
  // plan has masked work; what it returns in error is the step's. kInvalidArgument,
  // kFailedPrecondition: the plan is wrong; kAborted, kDeadlineExceeded: the group;
  // kUnavailable…: Engram rows; kDataLoss: a logit that is not finite, or a damaged host
  // block or transfer. After any error the epoch is over: only a plan of a new epoch may
  // follow.
  absl::StatusOr<proto::StepResult> Execute(const proto::StepPlan& plan,
                                            proto::LateInputFunction late);
  // A plan without masked work.
  absl::StatusOr<proto::StepResult> Execute(const proto::StepPlan& plan);

  // Streams and logits of the draft layer for `trace`: `streams` (host, [n, M, d] of the
  // activation type) of positions begin.. of a live slot, as the last layer or a draft
  // left them; next_ids [n]. In place; `logits` [n * V]. Collective; n <= max_tokens.
  absl::Status RunDraft(uint32_t slot, int64_t begin, std::span<const int32_t> next_ids,
                        DraftSource source, std::span<std::byte> streams,
                        std::vector<double>& logits);

  // What the block drafter makes of a live slot for `trace`: a block at `begin` after
  // `last_token`, walked along its best tokens (lower ids at ties). Nothing where
  // `last_token` is empty: the rank takes part in the collectives alone. Collective. The
  // slot holds pages for the whole block.
  absl::StatusOr<DraftBlock> RunDraftBlock(uint32_t slot, int64_t begin,
                                           std::optional<int32_t> last_token);

  // From the next step on, rank-local intermediates go to `sink` (null: none). With
  // `all_logits` the head runs for every token ("all_logits"). No such step is a graph:
  // where plans name decode steps, all ranks of a group are traced or none is.
  void SetTrace(TraceSink* sink, bool all_logits);

  uint64_t weight_bytes() const { return weight_bytes_; }
  size_t kv_bytes() const { return kv_.size_bytes(); }
  size_t scratch_bytes() const { return scratch_.size_bytes(); }

 private:
  ModelRunner(const model::ModelConfig& config, const RunnerOptions& options,
              const RunnerParts& parts);
  StepInputs::Options InputOptions() const;
  // Whether the experts of `moe` round their rows to FP8 on this backend.
  bool RoundsRowsOf(const model::MoeConfig& moe) const;
  absl::Status CreateExchanges(const routing::ExpertPlacement& placement);
  absl::Status CreateTransfer();
  absl::Status CreateDisk();
  absl::Status AllocateActivations();
  // Why no step is captured, whatever a capture says, which is the same on all ranks;
  // empty: some may be.
  std::string_view WhyEager() const;
  bool captures() const { return options_.decode_graphs && WhyEager().empty(); }
  // Rows of the largest decode step.
  int64_t max_decode_rows() const {
    return std::min(options_.max_slots, options_.max_tokens);
  }
  // Of a step of `num_rows` rows, those that a rank dispatches to experts, at most.
  int64_t SlotRows(int64_t num_rows) const {
    return (num_rows + parts_.tp->size() - 1) / parts_.tp->size();
  }
  // Brings rows of Engram for `num_rows` tokens, of which padding rows take what earlier
  // steps left. This rank alone.
  absl::Status StageRows(int64_t num_rows);
  // Runs a decode step of padding alone, so that what is made at a first call is there.
  absl::Status WarmUp();
  DecodeGraphs::Report Capture(DecodeGraphs& graphs);
  // Enqueues the forward pass and the head of the inputs, a row for each token, with
  // Engram rows that have been staged. Waits for nothing.
  absl::Status EnqueueDecode(const StepContext& context);
  // The same of a step that is captured: its rows go to experts in slots.
  absl::Status EnqueueInSlots(const StepContext& context);
  absl::Status EnqueueHead(const StepContext& context);
  // The graph that can run the step; null: it runs eagerly.
  const DecodeGraphs::Step* FindGraph(const proto::StepPlan& plan) const;
  // The forward pass of the inputs by `graph` or, if that is null, eagerly.
  absl::Status Forward(const StepContext& context, const DecodeGraphs::Step* graph);
  absl::StatusOr<proto::StepResult> RunStep(const proto::StepPlan& plan,
                                            proto::LateInputFunction late);
  absl::Status CheckOrder(const proto::StepPlan& plan);
  // Every work by itself, and all together, before any is applied.
  absl::Status CheckWork(const proto::StepPlan& plan);
  absl::Status GatherInputs(const proto::StepPlan& plan);
  StepContext MakeContext();
  // `has_logits`: those of the head rows are on the device already.
  absl::Status SampleAll(const StepContext& context, bool has_logits,
                         const proto::StepPlan& plan, proto::LateInputFunction late,
                         proto::StepResult& result);
  // Log-probabilities of the prompt tokens that follow what the step computed, of slots
  // that ask for them; a bounded number of rows at a time.
  absl::Status ScorePrompts(const StepContext& context, proto::StepResult& result);
  // What the step that began at `begin` took.
  void FillCounters(const proto::StepPlan& plan, absl::Time begin,
                    proto::StepCounters* counters);
  absl::Status TraceAllLogits(const StepContext& context);
  void TraceRows(const StepContext& context);
  kernels::TensorView StreamsView(int64_t rows) const;
  ExpertExchange* draft_exchange() const {
    return own_draft_exchange_ ? own_draft_exchange_.get() : exchange_.get();
  }

  const model::ModelConfig config_;
  const RunnerOptions options_;
  const RunnerParts parts_;
  HostStreamCommunicator host_tp_;
  StreamCommunicator* const tp_;  // on the device's stream, or host_tp_
  StreamWait wait_;               // for stream_
  uint64_t placement_version_ = 0;
  uint64_t weight_bytes_ = 0;
  int64_t max_head_rows_ = 0;
  std::unique_ptr<kernels::Stream> stream_;
  KvPool kv_;
  std::unique_ptr<HostBlocks> host_blocks_;
  std::unique_ptr<KvTransfer> transfer_;  // null without transfers
  std::unique_ptr<ExpertExchange> exchange_;
  SwitchedExchange* switched_ =
      nullptr;  // exchange_, where steps of a group are captured
  std::unique_ptr<ExpertExchange> own_draft_exchange_;  // null: drafts use exchange_
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<EngramPrefetch> engram_;  // null without Engram
  ScratchArena scratch_;
  SequenceSlots slots_;
  StepInputs inputs_;
  Sampler sampler_;
  LogitRows logits_;
  std::unique_ptr<Drafter> drafter_;      // null without speculation
  std::vector<StepRun> runs_;             // of this step's work, in its order
  std::unique_ptr<DecodeGraphs> graphs_;  // null: all steps run eagerly

  kernels::DeviceBuffer streams_;       // [max_tokens, M, d]
  kernels::DeviceBuffer head_streams_;  // [max_head_rows, M, d]

  // Waits for the ops that make a record's rows before the sink reads them.
  class SettledTrace final : public TraceSink {
   public:
    SettledTrace(StreamWait* wait, kernels::Stream* stream, TraceSink* sink)
        : wait_(*wait), stream_(*stream), sink_(sink) {}
    void Record(std::string_view what, int64_t layer, kernels::TensorView rows) override {
      // An error stays with the wait or the stream, and the step fails.
      if (wait_.Synchronize(stream_).ok()) {
        sink_->Record(what, layer, rows);
      }
    }

   private:
    StreamWait& wait_;
    kernels::Stream& stream_;
    TraceSink* const sink_;
  };
  std::unique_ptr<SettledTrace> trace_;  // or null
  bool trace_all_logits_ = false;
  bool epoch_failed_ = false;
  bool runs_step_ = false;  // the last plan was good
  uint64_t epoch_ = 0;
  uint64_t last_step_ = 0;
  uint64_t plan_serial_ = 0;  // of all epochs
  bool epoch_begun_ = false;
  int64_t collective_ns_ = 0;
  int64_t collective_bytes_ = 0;
  std::unique_ptr<RoutedLoads> routed_loads_;
  engram_store::EngramSourceStats engram_seen_;  // up to the last step
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_MODEL_RUNNER_H_
