// Decode steps of a ModelRunner as graphs: their capture at the start, and a step by one.
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/log.h"
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

absl::Status ModelRunner::WarmUp(int64_t num_rows) {
  inputs_.Begin();
  inputs_.Pad(1);
  inputs_.Upload(*stream_, parts_.backend);
  const StepContext context = MakeContext();
  if (engram_ != nullptr) {
    // A padding row takes what earlier steps left, so there must have been one.
    engram_->Begin();
    for (int64_t row = 0; row < num_rows; ++row) {
      engram_->Add(std::array<int32_t, 1>{0}, 0);
    }
    absl::Status status = engram_->Issue();
    if (status.ok()) {
      status = engram_->Stage(context);
    }
    if (!status.ok()) {
      engram_->Drain();
      return status;
    }
  }
  TESSERA_RETURN_IF_ERROR(EnqueueDecode(context));
  TESSERA_RETURN_IF_ERROR(wait_.Synchronize(*stream_));
  return engram_ == nullptr ? absl::OkStatus() : engram_->Check();
}

void ModelRunner::CaptureDecodeSteps() {
  kernels::StreamGraphFactory* const factory = kernels::StreamGraphsOf(parts_.backend);
  if (!options_.decode_graphs || factory == nullptr) {
    return;
  }
  const auto stays_eager = [](std::string_view reason) {
    log::Info("worker", "decode steps run eagerly", {{"reason", reason}});
  };
  if (drafter_ != nullptr) {
    return stays_eager("a step with drafts has rows of its own for each sequence");
  }
  if (parts_.ep->size() > 1) {
    return stays_eager("ranks exchange rows by way of the host");
  }
  const int64_t max_rows = std::min(options_.max_slots, options_.max_tokens);
  if (const absl::Status status = WarmUp(max_rows); !status.ok()) {
    return stays_eager(status.ToString());
  }
  auto graphs = std::make_unique<DecodeGraphs>(max_rows);
  const DecodeGraphs::Report report = graphs->Capture(
      *factory, *stream_,
      {.time = options_.decode_graph_time, .device_bytes = options_.decode_graph_bytes},
      parts_.clock, [&](int64_t num_rows, int64_t* collective_bytes) {
        inputs_.Begin();
        inputs_.Pad(num_rows);
        collective_bytes_ = 0;
        const absl::Status status = EnqueueDecode(MakeContext());
        *collective_bytes = collective_bytes_;
        return status;
      });
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
  graphs_ = std::move(graphs);
  if (engram_ != nullptr) {
    engram_seen_ = parts_.engram->stats();
  }
}

const DecodeGraphs::Step* ModelRunner::FindGraph() const {
  if (graphs_ == nullptr || trace_ != nullptr || trace_all_logits_ ||
      !IsDecodeStep(runs_)) {
    return nullptr;
  }
  return graphs_->Find(inputs_.num_tokens());
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
