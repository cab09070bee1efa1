// Decode steps of a ModelRunner as graphs: their capture at the start, and a step by one.
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/runtime/stream_graph.h"
#include "worker/runner/decode_graphs.h"
#include "worker/runner/model_runner.h"

namespace tessera::worker {

absl::Status ModelRunner::EnqueueDecode(const StepContext& context) {
  TESSERA_RETURN_IF_ERROR(
      decoder_->Forward(context, engram_ == nullptr ? nullptr : engram_->staged(),
                        StreamsView(context.num_tokens)));
  return EnqueueHead(context);
}

absl::Status ModelRunner::StageRows(int64_t num_rows) {
  if (engram_ == nullptr) {
    return absl::OkStatus();
  }
  inputs_.Begin();
  inputs_.Pad(1);
  inputs_.Upload(*stream_, parts_.backend);
  engram_->Begin();
  for (int64_t row = 0; row < num_rows; ++row) {
    engram_->Add(std::array<int32_t, 1>{0}, 0);
  }
  absl::Status status = engram_->Issue();
  if (status.ok()) {
    status = engram_->Stage(MakeContext());
  }
  if (!status.ok()) {
    engram_->Drain();
    return status;
  }
  TESSERA_RETURN_IF_ERROR(stream_->Synchronize());
  engram_seen_ = parts_.engram->stats();
  return engram_->Check();
}

absl::Status ModelRunner::WarmUp() {
  inputs_.Begin();
  inputs_.Pad(1);
  inputs_.Upload(*stream_, parts_.backend);
  TESSERA_RETURN_IF_ERROR(EnqueueInSlots(MakeContext()));
  return wait_.Synchronize(*stream_);
}

absl::Status ModelRunner::EnqueueInSlots(const StepContext& context) {
  if (switched_ == nullptr) {
    return EnqueueDecode(context);
  }
  switched_->UseSlots(SlotRows(context.num_tokens));
  const absl::Status status = EnqueueDecode(context);
  switched_->UseSlots(0);
  return status;
}

std::string_view ModelRunner::WhyEager() const {
  if (kernels::StreamGraphsOf(parts_.backend) == nullptr) {
    return "the backend has no graphs";
  }
  if (options_.num_speculative_tokens > 0) {
    return "a step with drafts has rows of its own for each sequence";
  }
  for (Communicator* const group : {parts_.tp, parts_.ep}) {
    if (group->size() > 1 && group->on_stream() == nullptr) {
      return "ranks reach each other by way of the host";
    }
  }
  return "";
}

DecodeGraphs::Report ModelRunner::Capture(DecodeGraphs& graphs) {
  return graphs.Capture(
      *kernels::StreamGraphsOf(parts_.backend), *stream_,
      {.time = options_.decode_graph_time, .device_bytes = options_.decode_graph_bytes},
      parts_.clock, [&](int64_t num_rows, int64_t* collective_bytes) {
        inputs_.Begin();
        inputs_.Pad(num_rows);
        collective_bytes_ = 0;
        StepContext context = MakeContext();
        context.most_visible = StepContext().most_visible;  // of any step to come
        const absl::Status status = EnqueueInSlots(context);
        *collective_bytes = collective_bytes_;
        return status;
      });
}

absl::Status ModelRunner::CaptureDecodeSteps() {
  if (!options_.decode_graphs) {
    return absl::OkStatus();
  }
  const auto stay_eager = [](std::string_view reason) {
    log::Info("worker", "decode steps run eagerly", {{"reason", reason}});
    return absl::OkStatus();
  };
  if (const std::string_view reason = WhyEager(); !reason.empty()) {
    return stay_eager(reason);
  }
  // What a rank may fail at by itself comes before the first collective, and the others
  // hear of it.
  const int64_t max_rows = max_decode_rows();
  const absl::Status staged = StageRows(max_rows);
  TESSERA_ASSIGN_OR_RETURN(
      const int64_t ready,
      AgreeOnBuckets(*parts_.ep, max_rows, /*num_buckets=*/staged.ok() ? 1 : 0));
  if (ready == 0) {
    return stay_eager(staged.ok() ? "another rank cannot capture them"
                                  : staged.ToString());
  }
  if (const absl::Status status = WarmUp(); !status.ok()) {
    wait_.EndGroups({status.message().data(), status.message().size()});
    return WithContext(status, "the first decode step");
  }
  auto graphs = std::make_unique<DecodeGraphs>(max_rows);
  const DecodeGraphs::Report report = Capture(*graphs);
  log::Info("worker", "decode steps were captured",
            {{"rows", report.captured},
             {"eager_rows", report.eager},
             {"nodes", report.num_nodes},
             {"seconds", absl::ToDoubleSeconds(report.time)},
             {"budget_seconds", absl::ToDoubleSeconds(options_.decode_graph_time)},
             {"device_bytes", report.device_bytes},
             {"budget_bytes", options_.decode_graph_bytes}});
  if (!report.error.ok()) {
    log::Warning("worker", "a decode step was not captured",
                 {{"error", report.error.ToString()}});
  }
  TESSERA_ASSIGN_OR_RETURN(const int64_t num_buckets,
                           AgreeOnBuckets(*parts_.ep, max_rows, graphs->num_buckets()));
  if (const std::string dropped = graphs->KeepFirst(num_buckets); !dropped.empty()) {
    log::Info("worker", "decode steps run eagerly",
              {{"rows", dropped}, {"reason", "another rank has not captured them"}});
  }
  graphs_ = std::move(graphs);
  return absl::OkStatus();
}

const DecodeGraphs::Step* ModelRunner::FindGraph(const proto::StepPlan& plan) const {
  return graphs_ == nullptr || trace_ != nullptr || trace_all_logits_
             ? nullptr
             : graphs_->Find(plan.decode_rows);
}

absl::Status ModelRunner::Forward(const StepContext& context,
                                  const DecodeGraphs::Step* graph) {
  if (graph == nullptr) {
    return decoder_->Forward(context, engram_.get(), StreamsView(context.num_tokens));
  }
  if (engram_ != nullptr) {
    // Before the launch: a graph holds no wait for a host that gathers rows.
    TESSERA_RETURN_IF_ERROR(engram_->Stage(context));
  }
  collective_bytes_ += graph->collective_bytes;
  routed_loads_->CountedByGraph();
  return graph->graph->Launch(*stream_);
}

}  // namespace tessera::worker
