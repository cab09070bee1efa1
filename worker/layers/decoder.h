// Decoder: the composed forward pass of one rank. One attention, one residual, one
// feed-forward per layer and Engram where the config says; which ones is decided once, at
// Create. What drafts (an MTP layer, DSpark's stages) rides along.
//
//   embedding -> streams -> layers (decoder_layer.h) -> collapse -> norm -> head
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
#include "worker/layers/cache_layout.h"
#include "worker/layers/decoder_layer.h"
#include "worker/layers/dspark_draft.h"
#include "worker/layers/engram_layer.h"
#include "worker/layers/entry_indexer.h"
#include "worker/layers/residual.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

struct DecoderOptions {
  int tp_rank = 0;
  int tp_size = 1;
  int64_t max_tokens = 0;  // of one step
};

// Of the experts of the layers, and of the draft layers; null where there are none. Both
// may be the same.
struct DecoderExchanges {
  ExpertExchange* layers = nullptr;
  ExpertExchange* drafts = nullptr;
};

// Step thread only.
class Decoder {
 public:
  // Weights and caches are views whose memory must outlive it, as must the exchanges.
  // kUnimplemented: a choice of the config that this build has no layer for.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(
      const model::ModelConfig& config, const DecoderOptions& options,
      ModelWeights weights, const ModelCaches& caches, const DecoderExchanges& exchanges);

  // Runs all layers; streams (out) [T, M, d] are what Head and BeginDrafts take. `rows`
  // may be null for a model without Engram.
  absl::Status Forward(const StepContext& context, EngramRows* rows,
                       kernels::TensorView streams);

  // logits (out) [n, V_local] = this rank's shard for rows `streams` [n, M, d].
  void Head(const StepContext& context, kernels::TensorView streams,
            kernels::TensorView logits);

  // Makes the streams that Forward gave into what the first draft takes, in place: as
  // they are, or what the final norm makes of them (DraftKind).
  void BeginDrafts(const StepContext& context, kernels::TensorView streams);
  // One MTP layer (model.md 5.5, 6.8, 14.4): streams [T, M, d] of the positions in
  // `context`, from BeginDrafts or from a draft, next_ids [T] i32 the tokens one further
  // on. In place: streams become what DraftHead and the next draft take.
  absl::Status ForwardDraft(const StepContext& context, int64_t depth,
                            kernels::TensorView next_ids, kernels::TensorView streams);
  // As Head, for the streams of ForwardDraft.
  void DraftHead(const StepContext& context, int64_t depth, kernels::TensorView streams,
                 kernels::TensorView logits);

  // MTP layers.
  int64_t num_drafts() const { return static_cast<int64_t>(drafts_.size()); }
  // The block drafter; null where the model has none.
  DsparkDraft* dspark() const { return dspark_.get(); }
  int64_t vocab_shard() const { return weights_.head.rows; }
  // Scratch that any call takes at max_tokens tokens.
  size_t scratch_bytes() const { return scratch_bytes_; }

 private:
  Decoder(const model::ModelConfig& config, ModelWeights weights);
  absl::Status BuildLayers(const DecoderOptions& options, const ModelCaches& caches,
                           const DecoderExchanges& exchanges);
  size_t MeasureScratch(int64_t max_tokens) const;
  // streams (out) = the draft layer's input, of next ids and streams.
  void JoinDraftInput(const StepContext& context, const DraftWeights& weights,
                      kernels::TensorView next_ids, kernels::TensorView streams);
  void CollapseAndProject(const StepContext& context, const HyperWeights& hyper,
                          const WeightView& norm, kernels::TensorView streams,
                          kernels::TensorView logits);

  const model::ModelConfig config_;
  const ModelWeights weights_;
  std::unique_ptr<Residual> residual_;
  std::unique_ptr<EntrySelection> selection_;  // null for attention that selects none
  std::vector<DecoderLayer> layers_;
  std::vector<DecoderLayer> drafts_;
  std::unique_ptr<DsparkDraft> dspark_;  // may be null
  size_t scratch_bytes_ = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_DECODER_H_
