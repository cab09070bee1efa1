// DecoderLayer: one layer of the forward pass: [Engram] -> residual(attention) ->
// residual(feed-forward), each behind its norm. Which ones they are was decided when the
// layer was made.
#ifndef TESSERA_WORKER_LAYERS_DECODER_LAYER_H_
#define TESSERA_WORKER_LAYERS_DECODER_LAYER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/comm/expert_exchange.h"
#include "worker/layers/attention.h"
#include "worker/layers/cache_layout.h"
#include "worker/layers/engram_layer.h"
#include "worker/layers/entry_indexer.h"
#include "worker/layers/feed_forward.h"
#include "worker/layers/residual.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// What the layers of a rank have in common. Views and pointers must outlive the layers.
struct LayerParts {
  const model::ModelConfig* config = nullptr;
  int tp_rank = 0;
  int tp_size = 1;
  const ModelCaches* caches = nullptr;  // of all layers
  EntrySelection* selection = nullptr;  // null for attention that selects no entries
  ExpertExchange* exchange = nullptr;   // over the experts of these layers
};

// Step thread only.
class DecoderLayer {
 public:
  // `index` counts all layers, draft layers last. `weights` must outlive the layer.
  // kUnimplemented: a choice of the config that this build has no layer for.
  static absl::StatusOr<DecoderLayer> Create(const LayerParts& parts, int64_t index,
                                             const LayerWeights& weights);

  // In place on streams [T, M, d]. `rows` may be null for a layer without Engram.
  // Collective over the group, also for a step without tokens. Errors of the parts.
  absl::Status Run(const StepContext& context, Residual& residual, EngramRows* rows,
                   kernels::TensorView streams);

  // Writes the attention's cache entries of x [T, d], already normed, and no more; a
  // no-op for a step without tokens.
  void StoreKeys(const StepContext& context, kernels::TensorView x) const {
    if (context.num_tokens > 0) {
      attention_->StoreKeys(context, x);
    }
  }

  // Scratch of Run, without the residual's.
  size_t scratch_bytes(int64_t max_tokens) const;

 private:
  DecoderLayer() = default;

  const LayerWeights* weights_ = nullptr;
  int64_t hidden_ = 0;
  double norm_eps_ = 0;
  std::unique_ptr<Attention> attention_;
  std::unique_ptr<FeedForward> feed_forward_;
  std::unique_ptr<EngramLayer> engram_;  // may be null
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_DECODER_LAYER_H_
