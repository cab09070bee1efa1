// The weights of one rank, as views into the mapped checkpoint: whole where a tensor is
// replicated, a slice where TP splits it (model/design shard rule).
// worker/runner/weight_loader fills them.
#ifndef TESSERA_WORKER_LAYERS_WEIGHTS_H_
#define TESSERA_WORKER_LAYERS_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/kernel_backend.h"
#include "kernels/weight_view.h"

namespace tessera::worker {

using kernels::WeightView;

// A linear whose inputs TP splits: this rank's columns, and which leaves of the sum they
// are.
struct SplitLinear {
  WeightView weight;      // [N, K_local]
  kernels::KSplit split;  // over the whole K
};

// mHC of one sublayer, or of the head (base and scale are then shorter). All F32. Empty
// where the residual is plain.
struct HyperWeights {
  WeightView fn;
  const float* base = nullptr;
  const float* scale = nullptr;
};

// The lightning indexer, whole on every rank.
struct IndexerWeights {
  WeightView q;                          // [J D, q]
  WeightView k;                          // [D, d]
  const float* k_norm_weight = nullptr;  // [D]
  const float* k_norm_bias = nullptr;    // [D]
  WeightView head_weights;               // [J, d]
};

// MLA, with or without an indexer. H_local heads of this rank; the rest is whole.
struct MlaWeights {
  WeightView q_a;        // [q, d]
  WeightView q_a_norm;   // [1, q]
  WeightView q_b;        // [H_local (n+r), q]
  WeightView kv_a;       // [c+r, d]
  WeightView kv_a_norm;  // [1, c]
  WeightView kv_b;       // [H_local (n+v), c]
  SplitLinear o;         // [d, H_local v]
  std::optional<IndexerWeights> indexer;
};

// SwiGLU MLP: gate and up rows of this rank, down columns of this rank.
struct MlpWeights {
  WeightView gate;   // [m_local, d]
  WeightView up;     // [m_local, d]
  SplitLinear down;  // [d, m_local]
};

struct MoeWeights {
  WeightView router;                   // [E, d]
  const float* router_bias = nullptr;  // [E]
  std::vector<kernels::ExpertWeights>
      experts;  // of this rank, in the exchange's local order
  std::optional<MlpWeights> shared;
};

struct EngramWeights {
  WeightView wkv;       // [(M+1) d, C W]
  WeightView q_weight;  // [M, d]
  WeightView k_weight;  // [M, d]
  // Contract demo only.
  std::optional<WeightView> conv;       // [M d, 4]
  std::optional<WeightView> conv_norm;  // [M, d]
};

struct LayerWeights {
  WeightView input_norm;           // [1, d]
  WeightView post_attention_norm;  // [1, d]
  HyperWeights attention_hyper;
  HyperWeights ffn_hyper;
  MlaWeights attention;
  std::optional<MlpWeights> dense;  // exactly one of dense and moe
  std::optional<MoeWeights> moe;
  std::optional<EngramWeights> engram;
};

// The MTP layer: a MoE layer and what surrounds it.
struct DraftWeights {
  LayerWeights layer;
  WeightView embedding_norm;  // enorm [1, d]
  WeightView hidden_norm;     // hnorm [1, d]
  WeightView head_norm;       // shared_head.norm [1, d]
  WeightView join;            // eh_proj [d, 2d]
  HyperWeights head_hyper;
};

struct ModelWeights {
  WeightView embedding;   // [V, d]
  WeightView head;        // [V_local, d]: this rank's rows of the vocabulary
  WeightView final_norm;  // [1, d]
  HyperWeights head_hyper;
  std::vector<LayerWeights> layers;
  std::vector<DraftWeights> drafts;
  // Small vectors that the checkpoint has in another format than the one they are read
  // in; pointers above lead here.
  std::vector<std::unique_ptr<float[]>> decoded;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_WEIGHTS_H_
