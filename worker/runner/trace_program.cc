#include "worker/runner/trace_program.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "proto/step_plan.h"
#include "worker/layers/step_context.h"
#include "worker/runner/model_runner.h"
#include "worker/runner/trace_recorder.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

constexpr uint32_t kSlot = 0;

// Keeps what the draft layer needs of the main pass (streams of the last layer, argmax of
// the last logits) and hands everything on to the recorder.
class DraftInputs final : public TraceSink {
 public:
  DraftInputs(int64_t last_layer, TraceRecorder* recorder)
      : last_layer_(last_layer), recorder_(recorder) {}

  void Record(std::string_view what, int64_t layer, TensorView rows) override {
    if (recorder_ != nullptr) {
      recorder_->Record(what, layer, rows);
    }
    if (rows.dim(0) == 0) {
      return;
    }
    if (what == "hidden" && layer == last_layer_) {
      const auto* bytes = static_cast<const std::byte*>(rows.data);
      const size_t size =
          model::DTypeBytes(rows.dtype, static_cast<size_t>(rows.num_elements()));
      streams_.insert(streams_.end(), bytes, bytes + size);
    } else if (what == "all_logits") {
      const int64_t last = rows.dim(0) - 1;
      best_ = rows.dtype == DType::kF64 ? ArgMax(rows.row<double>(last), rows.dim(1))
                                        : ArgMax(rows.row<float>(last), rows.dim(1));
    }
  }

  template <typename T>
  static int32_t ArgMax(const T* values, int64_t count) {
    return static_cast<int32_t>(std::max_element(values, values + count) - values);
  }

  std::vector<std::byte>& streams() { return streams_; }
  int32_t best() const { return best_; }

 private:
  const int64_t last_layer_;
  TraceRecorder* const recorder_;
  std::vector<std::byte> streams_;  // [N, M, d]
  int32_t best_ = 0;
};

RecordedTensor FloatTensor(std::span<const double> values, std::vector<int64_t> shape) {
  RecordedTensor out;
  out.shape = std::move(shape);
  for (const double value : values) {
    const auto narrow = static_cast<float>(value);
    const auto* bytes = reinterpret_cast<const std::byte*>(&narrow);
    out.data.insert(out.data.end(), bytes, bytes + sizeof(narrow));
  }
  return out;
}

class TraceRun {
 public:
  TraceRun(const model::ModelConfig& config, const TraceRequest& request,
           int64_t max_tokens, ModelRunner& runner, TraceRecorder* recorder)
      : config_(config),
        request_(request),
        chunk_(request.chunk > 0 ? std::min(request.chunk, max_tokens) : max_tokens),
        runner_(runner),
        recorder_(recorder),
        inputs_(config.num_layers - 1, recorder) {}

  absl::StatusOr<std::vector<int32_t>> Run() {
    TESSERA_RETURN_IF_ERROR(Prefill());
    runner_.SetTrace(nullptr, false);
    if (request_.drafts && config_.dspark.has_value()) {
      TESSERA_RETURN_IF_ERROR(DraftABlock());
    } else if (request_.drafts && config_.draft != model::DraftKind::kNone) {
      TESSERA_RETURN_IF_ERROR(Draft());
    }
    TESSERA_RETURN_IF_ERROR(Continue());
    return generated_;
  }

 private:
  int64_t size() const { return static_cast<int64_t>(request_.ids.size()); }

  // One numbered step; an idle rank gets it without work.
  absl::Status Step(proto::StepPlan plan) {
    plan.epoch = request_.epoch;
    plan.step = ++step_;
    plan.placement_version = request_.placement_version;
    if (request_.idle) {
      plan.admissions.clear();
      plan.work.clear();
    }
    TESSERA_ASSIGN_OR_RETURN(const proto::StepResult result, runner_.Execute(plan));
    for (const proto::SampledToken& token : result.sampled) {
      generated_.push_back(token.token);
    }
    return absl::OkStatus();
  }

  absl::Status Prefill() {
    runner_.SetTrace(&inputs_, true);
    const int64_t drafts = config_.dspark.has_value() ? config_.dspark->block_size : 1;
    const int64_t tokens = size() + std::max(request_.greedy_tokens, drafts);
    proto::SlotAdmission admission;
    admission.slot = kSlot;
    admission.prompt_length = static_cast<uint32_t>(size());
    admission.sampling.temperature = 0;
    for (int64_t block = 0; block * request_.block_size < tokens; ++block) {
      admission.blocks.push_back(static_cast<uint32_t>(block));
    }
    if (config_.tail_tokens() > 0) {
      // All of them: the draft layer goes over the whole prompt once more.
      admission.tail_blocks = admission.blocks;
    }
    for (int64_t begin = 0; begin < size(); begin += chunk_) {
      const int64_t end = std::min(begin + chunk_, size());
      proto::StepPlan plan;
      if (begin == 0) {
        plan.admissions.push_back(admission);
      }
      plan.work.push_back(
          {.slot = kSlot,
           .from_sample = false,
           .sample = end == size(),
           .tokens = {request_.ids.begin() + begin, request_.ids.begin() + end}});
      TESSERA_RETURN_IF_ERROR(Step(std::move(plan)));
    }
    return absl::OkStatus();
  }

  // Draft logits for every position and, with the draft's own output, for one further.
  absl::Status Draft() {
    std::vector<int32_t> next_ids(request_.ids.begin() + 1, request_.ids.end());
    next_ids.push_back(inputs_.best());
    std::vector<std::byte>& streams = inputs_.streams();
    const size_t row_bytes = streams.size() / request_.ids.size();
    std::vector<double> all;
    std::vector<double> logits;
    for (int64_t begin = 0; begin < size(); begin += chunk_) {
      const auto count = static_cast<size_t>(std::min(chunk_, size() - begin));
      TESSERA_RETURN_IF_ERROR(RunDraft(
          begin, DraftSource::kMainModel,
          std::span<const int32_t>(next_ids).subspan(static_cast<size_t>(begin), count),
          std::span<std::byte>(streams).subspan(static_cast<size_t>(begin) * row_bytes,
                                                request_.idle ? 0 : count * row_bytes),
          logits));
      all.insert(all.end(), logits.begin(), logits.end());
    }
    const auto vocab = static_cast<size_t>(config_.vocab_size);
    int32_t second_next = 0;
    if (!request_.idle) {
      second_next =
          DraftInputs::ArgMax(all.data() + all.size() - vocab, config_.vocab_size);
      streams.erase(streams.begin(),
                    streams.end() - static_cast<std::ptrdiff_t>(row_bytes));
    }
    TESSERA_RETURN_IF_ERROR(
        RunDraft(size(), DraftSource::kDraft, {&second_next, 1}, streams, logits));
    if (recorder_ != nullptr && !request_.idle) {
      recorder_->Put("mtp.all_logits", FloatTensor(all, {size(), config_.vocab_size}));
      recorder_->Put("mtp.second_logits", FloatTensor(logits, {config_.vocab_size}));
    }
    return absl::OkStatus();
  }

  // A block behind the prompt, its first token the argmax of the last logits.
  absl::Status DraftABlock() {
    TESSERA_ASSIGN_OR_RETURN(
        const DraftBlock block,
        runner_.RunDraftBlock(
            kSlot, size(),
            request_.idle ? std::nullopt : std::optional<int32_t>(inputs_.best())));
    if (recorder_ == nullptr || request_.idle) {
      return absl::OkStatus();
    }
    const int64_t count = config_.dspark->block_size;
    const int64_t vocab = config_.vocab_size;
    recorder_->Put("dspark.base_logits", FloatTensor(block.base_logits, {count, vocab}));
    recorder_->Put("dspark.logits", FloatTensor(block.logits, {count, vocab}));
    recorder_->Put("dspark.confidence", FloatTensor(block.confidence, {count}));
    std::vector<int32_t> tokens = block.tokens;
    recorder_->Put("dspark.tokens",
                   CopyTensor(TensorView(tokens.data(), DType::kI32, {count})));
    return absl::OkStatus();
  }

  absl::Status RunDraft(int64_t begin, DraftSource source,
                        std::span<const int32_t> next_ids, std::span<std::byte> streams,
                        std::vector<double>& logits) {
    return runner_.RunDraft(kSlot, begin,
                            request_.idle ? std::span<const int32_t>() : next_ids, source,
                            streams, logits);
  }

  absl::Status Continue() {
    for (int64_t i = 1; i < request_.greedy_tokens; ++i) {
      proto::StepPlan plan;
      plan.work.push_back(
          {.slot = kSlot, .from_sample = true, .sample = true, .tokens = {}});
      TESSERA_RETURN_IF_ERROR(Step(std::move(plan)));
    }
    return absl::OkStatus();
  }

  const model::ModelConfig& config_;
  const TraceRequest& request_;
  const int64_t chunk_;
  ModelRunner& runner_;
  TraceRecorder* const recorder_;
  DraftInputs inputs_;
  uint64_t step_ = 0;
  std::vector<int32_t> generated_;
};

}  // namespace

absl::StatusOr<std::vector<int32_t>> RunTrace(const model::ModelConfig& config,
                                              const TraceRequest& request,
                                              int64_t max_tokens, ModelRunner& runner,
                                              TraceRecorder* recorder) {
  if (request.ids.empty()) {
    return absl::InvalidArgumentError("a trace needs at least one token id");
  }
  return TraceRun(config, request, max_tokens, runner, recorder).Run();
}

}  // namespace tessera::worker
