// Decoder: the composed forward pass of one rank. One attention, one residual, one
// feed-forward per layer and Engram where the config says; which ones is decided once, at
// Create. The draft (MTP) layer rides along and runs only when asked.
//
//   embedding -> streams -> for each layer: [Engram] -> residual(attention) ->
//   residual(feed-forward)
//   -> collapse -> norm -> head
#ifndef TESSERA_WORKER_LAYERS_DECODER_H_
#define TESSERA_WORKER_LAYERS_DECODER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/comm/expert_exchange.h"
#include "worker/layers/attention.h"
#include "worker/layers/engram_layer.h"
#include "worker/layers/feed_forward.h"
#include "worker/layers/mla_attention.h"
#include "worker/layers/residual.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// Cache views of one rank: one MlaCache per layer, draft layers last; one conv cache
// per engram layer of the demo contract (empty views for v41).
struct DecoderCaches {
  std::vector<MlaCache> attention;
  std::vector<kernels::TensorView> engram_conv;
};

struct DecoderOptions {
  int tp_size = 1;
  int64_t max_tokens = 0;  // of one step
};

// Step thread only.
class Decoder {
 public:
  // `exchange` must outlive it; weights and caches are views whose memory must outlive
  // it. kUnimplemented: a choice of the config that this build has no layer for.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(const model::ModelConfig& config,
                                                         const DecoderOptions& options,
                                                         ModelWeights weights,
                                                         const DecoderCaches& caches,
                                                         ExpertExchange* exchange);

  // Runs all layers; streams (out) [T, M, d] are what leaves the last one. `rows` may be
  // null for a model without Engram.
  absl::Status Forward(const StepContext& context, EngramRows* rows,
                       kernels::TensorView streams);

  // logits (out) [n, V_local] = this rank's shard for rows `streams` [n, M, d].
  void Head(const StepContext& context, kernels::TensorView streams,
            kernels::TensorView logits);

  // Makes the streams that Forward gave into what the first draft takes, in place: as
  // they are, or what the final norm makes of them (DraftKind).
  void BeginDrafts(const StepContext& context, kernels::TensorView streams);
  // One draft layer (model.md 5.5, 14.4): streams [T, M, d] of the positions in
  // `context`, from BeginDrafts or from a draft, next_ids [T] i32 the tokens one further
  // on. In place: streams become what DraftHead and the next draft take.
  absl::Status ForwardDraft(const StepContext& context, int64_t depth,
                            kernels::TensorView next_ids, kernels::TensorView streams);
  // As Head, for the streams of ForwardDraft.
  void DraftHead(const StepContext& context, int64_t depth, kernels::TensorView streams,
                 kernels::TensorView logits);

  int64_t num_drafts() const { return static_cast<int64_t>(drafts_.size()); }
  int64_t vocab_shard() const { return weights_.head.rows; }
  // Scratch that any call takes at max_tokens tokens.
  size_t scratch_bytes() const { return scratch_bytes_; }

 private:
  struct Layer {
    const LayerWeights* weights = nullptr;
    std::unique_ptr<Attention> attention;
    std::unique_ptr<FeedForward> feed_forward;
    std::unique_ptr<EngramLayer> engram;  // may be null
  };

  Decoder(const model::ModelConfig& config, ModelWeights weights);
  absl::StatusOr<Layer> BuildLayer(int64_t index, const LayerWeights& weights,
                                   const DecoderOptions& options,
                                   const DecoderCaches& caches, ExpertExchange* exchange);
  size_t MeasureScratch(int64_t max_tokens) const;
  absl::Status RunLayer(const StepContext& context, const Layer& layer,
                        kernels::TensorView streams);
  void CollapseAndProject(const StepContext& context, const HyperWeights& hyper,
                          const WeightView& norm, kernels::TensorView streams,
                          kernels::TensorView logits);

  const model::ModelConfig config_;
  const ModelWeights weights_;
  std::unique_ptr<Residual> residual_;
  std::vector<Layer> layers_;
  std::vector<Layer> drafts_;
  size_t scratch_bytes_ = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_DECODER_H_
