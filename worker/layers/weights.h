// The weights of one rank, as views into the mapped checkpoint: whole where a tensor is
// replicated, a slice where TP splits it (model/design shard rule).
// worker/runner/weights/weight_loader fills them.
#ifndef TESSERA_WORKER_LAYERS_WEIGHTS_H_
#define TESSERA_WORKER_LAYERS_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
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

// Makes an entry of several tokens (DeepSeek-V4 inference/model.py, Compressor): of keys
// and values, or of index keys.
struct CompressorWeights {
  WeightView kv;                       // [C, d], C = 2 D where entries overlap, else D
  std::optional<WeightView> gate;      // [C, d]; none at ratio 1
  std::optional<WeightView> position;  // [ratio, C] F32, added to the gate
  WeightView norm;                     // [1, D]
};

// The indexer over entries, whole on every rank. Keys only where the layer makes the
// entries that it selects from.
struct EntryIndexerWeights {
  WeightView q;                                 // [J D, q]
  WeightView head_weights;                      // [J, d]
  std::optional<CompressorWeights> compressor;  // V4: keys from the layer's input
  std::optional<WeightView> k;                  // V4.1: [D, D_h], keys from the entry
  std::optional<WeightView> k_norm;             // V4.1: [1, D]
};

// Window and compressed attention. H_local heads of this rank; compressor and indexer are
// whole, and there only where the layer is a source of entries or of a selection.
struct CompressedAttentionWeights {
  WeightView q_a;                // [q, d]
  WeightView q_a_norm;           // [1, q]
  WeightView q_b;                // [H_local D_h, q]
  WeightView kv;                 // [D_h, d]
  WeightView kv_norm;            // [1, D_h]
  const float* sinks = nullptr;  // [H_local]
  // The first output projection: the rows [G R rank / tp, G R (rank + 1) / tp), which
  // feed this rank's columns of o_b. Row i of the whole (row_offset says where this part
  // begins) belongs to group i / R and takes in that group's heads, H D_h / G values,
  // which are this rank's own where tp divides G.
  WeightView o_a;
  SplitLinear o_b;  // [d, G R / tp]
  std::optional<CompressorWeights> compressor;
  std::optional<EntryIndexerWeights> indexer;
};

// SwiGLU MLP: gate and up rows of this rank, down columns of this rank.
struct MlpWeights {
  WeightView gate;   // [m_local, d]
  WeightView up;     // [m_local, d]
  SplitLinear down;  // [d, m_local]
};

struct MoeWeights {
  WeightView router;                      // [E, d]
  const float* router_bias = nullptr;     // [E]; null where no score chooses
  const float* router_bias_vl = nullptr;  // [E], of image tokens, or null
  // [V, k]: the experts of each token id, in slot order; null where the score chooses.
  const int64_t* fixed_experts = nullptr;
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
  std::variant<MlaWeights, CompressedAttentionWeights> attention;
  std::optional<MlpWeights> dense;  // exactly one of dense and moe
  std::optional<MoeWeights> moe;
  std::optional<EngramWeights> engram;
};

// The MTP layer: a MoE layer and what surrounds it.
struct DraftWeights {
  LayerWeights layer;
  WeightView embedding_norm;  // enorm [1, d]
  WeightView hidden_norm;     // hnorm [1, d]
  WeightView head_norm;       // [1, d]
  WeightView join;            // eh_proj [d, 2d], or instead of it, kMtpStreamsSplit:
  WeightView e_proj;          // [d, d] of the embedding
  WeightView h_proj;          // [d, d] of each stream
  HyperWeights head_hyper;
};

// The block drafter: layers over a window, what feeds them and what reads them.
struct DsparkWeights {
  WeightView main_proj;  // [d, d targets]
  WeightView main_norm;  // [1, d]
  std::vector<LayerWeights> stages;
  WeightView norm;              // [1, d]
  HyperWeights head_hyper;      // empty where `pre` is handed on
  WeightView markov_embedding;  // [V, rank], whole on every rank
  WeightView markov_head;       // [V_local, rank]: this rank's rows of the vocabulary
  WeightView confidence;        // [1, d + rank]
};

struct ModelWeights {
  WeightView embedding;   // [V, d]
  WeightView head;        // [V_local, d]: this rank's rows of the vocabulary
  WeightView final_norm;  // [1, d]
  HyperWeights head_hyper;
  std::vector<LayerWeights> layers;
  std::vector<DraftWeights> drafts;  // MTP
  std::optional<DsparkWeights> dspark;
  // Small tensors that the checkpoint has in another format than the one they are read
  // in, or at an address that does not fit their type; pointers above lead here.
  std::vector<std::unique_ptr<std::byte[]>> owned;
  // The backend's own copies of weights that it has prepared.
  std::vector<kernels::DeviceBuffer> prepared;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_WEIGHTS_H_
