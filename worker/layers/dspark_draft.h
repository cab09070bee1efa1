// DsparkDraft: drafts a block of tokens in one pass (DeepSeek-V4-Flash-0731, model.md
// 6.9; V4.1, 9.2). Its few layers ("stages") see the main model through taps: the mean
// over the residual streams at a few target layers, joined and projected, stands for a
// token in every stage's window. The main pass writes these rows for each token that it
// computes; rows of rejected drafts are written over by the tokens that replace them.
//
// A block of B positions p+1 .. p+B after the committed position p holds the last sampled
// token and B-1 noise tokens; each position sees the committed window and the whole
// block. A walk from left to right then adds what the token before makes likely.
//
//   context row = keys of norm(main_proj(taps)); logits_i = head(norm(x_i)) +
//   markov_head(markov_embedding[token before i])
#ifndef TESSERA_WORKER_LAYERS_DSPARK_DRAFT_H_
#define TESSERA_WORKER_LAYERS_DSPARK_DRAFT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/decoder_layer.h"
#include "worker/layers/residual.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// Row `at` of every block of `block_size` rows of x [n block_size, w]: [n, w].
kernels::TensorView RowOfBlocks(kernels::TensorView x, int64_t block_size, int64_t at);

// Step thread only. Views of weights and the residual must outlive it.
class DsparkDraft {
 public:
  // `model` holds `dspark`, and the embedding and head that the draft shares. `parts` is
  // of the draft layers. kUnimplemented as DecoderLayer::Create.
  static absl::StatusOr<std::unique_ptr<DsparkDraft>> Create(const LayerParts& parts,
                                                             const ModelWeights& model,
                                                             Residual* residual);

  // ---- beside the main pass, in this order ----

  // Takes the scratch memory of the taps; it must stay until StoreContext.
  void BeginTaps(const StepContext& context);
  // Notes streams [T, M, d] that enter, or leave, layer `layer`, if that is a target.
  void TapEntering(const StepContext& context, int64_t layer,
                   kernels::TensorView streams);
  void TapLeaving(const StepContext& context, int64_t layer, kernels::TensorView streams);
  // Writes every stage's rows of the step's tokens.
  void StoreContext(const StepContext& context);

  // ---- drafting ----

  // B.
  int64_t block_size() const { return dspark_.block_size; }
  int64_t noise_token_id() const { return dspark_.noise_token_id; }

  // x (out) [n B, d] = what the head sees of the blocks in `context`: n runs of B tokens
  // at positions p+1 .., whose window_begin is max(0, p + 1 - window) and window_end
  // p + 1 + B for all of them. Overwrites the stages' rows at these positions. Collective
  // over the group; n may be 0.
  absl::Status ForwardBlock(const StepContext& context, kernels::TensorView x);

  // logits (out) [n B, V_local] before the walk's term. x is what ForwardBlock gave.
  void Head(const StepContext& context, kernels::TensorView x,
            kernels::TensorView logits);
  // Of block position `at` of every block: adds the walk's term to `logits` [n, V_local]
  // for the tokens before them, previous [n] i32, and gives confidence (out) [n, 1]: the
  // logit of the draft's being accepted. Reads V_local rank weights a position, where
  // Head reads V_local d once.
  void Walk(const StepContext& context, kernels::TensorView x, int64_t at,
            kernels::TensorView previous, kernels::TensorView logits,
            kernels::TensorView confidence);

  // Scratch of any call at max_tokens tokens, without the residual's.
  size_t scratch_bytes(int64_t max_tokens) const;

 private:
  DsparkDraft(const model::ModelConfig& config, const ModelWeights& model,
              Residual* residual);
  void Tap(const StepContext& context, int64_t layer, kernels::TensorView streams);

  const model::DsparkConfig dspark_;
  const int64_t hidden_;
  const double norm_eps_;
  const WeightView embedding_;  // of the model
  const WeightView head_;       // of the model: [V_local, d]
  const DsparkWeights& weights_;
  Residual* const residual_;
  std::vector<DecoderLayer> stages_;
  kernels::TensorView taps_;  // [T, targets d] of the pass in progress
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_DSPARK_DRAFT_H_
