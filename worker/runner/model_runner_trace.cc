// What `trace` asks of a ModelRunner beyond a step: its intermediates, the logits of all
// tokens, and drafts by themselves.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/runner/dspark_blocks.h"
#include "worker/runner/model_runner.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

// Appends a view of floats or doubles.
void AppendValues(TensorView view, std::vector<double>& out) {
  const auto count = static_cast<size_t>(view.num_elements());
  for (size_t i = 0; i < count; ++i) {
    out.push_back(view.dtype == DType::kF64 ? view.as<double>()[i]
                                            : static_cast<double>(view.as<float>()[i]));
  }
}

}  // namespace

void ModelRunner::SetTrace(TraceSink* sink, bool all_logits) {
  trace_ = sink == nullptr ? nullptr
                           : std::make_unique<SettledTrace>(&wait_, stream_.get(), sink);
  trace_all_logits_ = all_logits;
}

absl::Status ModelRunner::TraceAllLogits(const StepContext& context) {
  const TensorView streams = StreamsView(context.num_tokens);
  for (int64_t begin = 0; begin < context.num_tokens; begin += max_head_rows_) {
    const int64_t count = std::min(max_head_rows_, context.num_tokens - begin);
    TESSERA_RETURN_IF_ERROR(logits_.Compute(
        context, streams.Rows(begin, count),
        [&](TensorView in, TensorView out) { decoder_->Head(context, in, out); }));
    context.Trace("all_logits", -1, logits_.logits());
  }
  return absl::OkStatus();
}

void ModelRunner::TraceRows(const StepContext& context) {
  if (context.trace == nullptr || engram_ == nullptr) {
    return;
  }
  const std::vector<int64_t>& layers = config_.engram->layer_ids;
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::span<const uint32_t> rows = engram_->row_ids(static_cast<int64_t>(i));
    std::vector<int64_t> wide(rows.begin(), rows.end());
    context.Trace(
        "engram.rows", layers[i],
        {wide.data(), DType::kI64, {context.num_tokens, config_.engram->num_columns()}});
  }
}

absl::Status ModelRunner::RunDraft(uint32_t slot, int64_t begin,
                                   std::span<const int32_t> next_ids, DraftSource source,
                                   std::span<std::byte> streams,
                                   std::vector<double>& logits) {
  if (decoder_->num_drafts() == 0) {
    return absl::UnimplementedError("the model has no draft layer");
  }
  const auto count = static_cast<int64_t>(next_ids.size());
  const SequenceSlot& sequence = slots_.slot(slot);
  inputs_.Begin();
  if (count > 0) {
    inputs_.AddRun(next_ids, begin, {.blocks = sequence.blocks, .tail = sequence.tail});
  }
  inputs_.Upload(*stream_, parts_.backend);
  StepContext context = MakeContext();
  context.trace = nullptr;
  const TensorView device = StreamsView(count);
  parts_.backend->Upload(*stream_, streams.data(), device);
  if (source == DraftSource::kMainModel) {
    decoder_->BeginDrafts(context, device);
  }
  TESSERA_RETURN_IF_ERROR(decoder_->ForwardDraft(context, 0, context.token_ids, device));
  logits.clear();
  for (int64_t at = 0; at < count; at += max_head_rows_) {
    const int64_t rows = std::min(max_head_rows_, count - at);
    TESSERA_RETURN_IF_ERROR(logits_.Compute(context, device.Rows(at, rows),
                                            [&](TensorView in, TensorView out) {
                                              decoder_->DraftHead(context, 0, in, out);
                                            }));
    AppendValues(logits_.logits(), logits);
  }
  TESSERA_RETURN_IF_ERROR(wait_.Synchronize(*stream_));
  parts_.backend->Download(*stream_, device, streams.data());
  return stream_->Synchronize();
}

absl::StatusOr<DraftBlock> ModelRunner::RunDraftBlock(uint32_t slot, int64_t begin,
                                                      std::optional<int32_t> last_token) {
  if (decoder_->dspark() == nullptr) {
    return absl::UnimplementedError("the model has no block drafter");
  }
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<DsparkBlocks> blocks,
      DsparkBlocks::Create(InputOptions(), {.backend = parts_.backend,
                                            .draft = decoder_->dspark(),
                                            .logits = &logits_,
                                            .hidden_size = config_.hidden_size,
                                            .vocab_shard = decoder_->vocab_shard()}));
  DraftBlock block;
  inputs_.Begin();
  const StepContext context = MakeContext();
  blocks->Begin();
  if (last_token.has_value()) {
    const SequenceSlot& sequence = slots_.slot(slot);
    blocks->Add(*last_token, begin, blocks->block_size(),
                {.blocks = sequence.blocks, .tail = sequence.tail});
  }
  TESSERA_RETURN_IF_ERROR(blocks->Run(context));
  if (!last_token.has_value()) {
    return block;
  }
  std::vector<int32_t> previous = {*last_token};
  for (int64_t at = 0; at < blocks->block_size(); ++at) {
    TESSERA_RETURN_IF_ERROR(blocks->Base(context, at));
    AppendValues(logits_.logits(), block.base_logits);
    TESSERA_RETURN_IF_ERROR(blocks->Step(context, at, previous));
    AppendValues(logits_.logits(), block.logits);
    AppendValues(blocks->confidence(), block.confidence);
    const auto row = block.logits.end() - static_cast<std::ptrdiff_t>(config_.vocab_size);
    previous = {static_cast<int32_t>(std::max_element(row, block.logits.end()) - row)};
    block.tokens.push_back(previous.front());
  }
  return block;
}

}  // namespace tessera::worker
