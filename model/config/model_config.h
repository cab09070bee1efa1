// ModelConfig: config.json as a validated description of one model. A family is a row of
// choices (attention, residual, router, Engram, draft), never a type of its own: the
// forward pass is composed from the choices, and a new family is a new choice or a new
// row.
//
// Shape letters used across the repository (docs/glossary.md):
//   d hidden_size, L num_layers, H heads, q q_lora_rank, c kv_lora_rank, n/r/v head dims
//   (nope, rope, value), J/D indexer heads and head dim, E routed experts, k experts per
//   token, m expert width, M residual streams, V vocabulary, C Engram columns, W Engram
//   row width, N longest n-gram, T tokens. Compressed attention: D_h head_dim, G output
//   groups, R their rank.
#ifndef TESSERA_MODEL_CONFIG_MODEL_CONFIG_H_
#define TESSERA_MODEL_CONFIG_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "model/formats/dtype.h"

namespace tessera::model {

// kMla: over everything visible. kMlaDsa: over what the lightning indexer selects.
// kCompressed: over a window of tokens and over entries that each stand for several.
enum class AttentionKind { kMla, kMlaDsa, kCompressed };
// kHyperHandOff: mHC whose sublayers are fed by the `pre` of the sublayer before (V4.1).
enum class ResidualKind { kPlain, kHyperConnections, kHyperHandOff };
enum class RouterKind { kSigmoid, kSqrtSoftplus };
// What drafts. An MTP layer takes the residual streams as they are (kMtpStreams, and
// kMtpStreamsSplit, whose projections of embedding and streams are two), or what the head
// sees of them, after its norm (kMtpNormed). kDspark: a block of tokens at once.
enum class DraftKind { kNone, kMtpStreams, kMtpNormed, kMtpStreamsSplit, kDspark };
enum class EngramContract { kDemo, kV41 };
// Of the tensors: "model.layers.i.self_attn…" or "layers.i.attn…".
enum class TensorNames { kHuggingFace, kNative };

// Rotary positions. inv_freq_i = 1 / theta^(2i/r), blended by YaRN where `yarn` is set
// (arXiv 2309.00071; DeepSeek-V3 inference/model.py).
struct YarnConfig {
  double factor = 1;
  int64_t original_max_positions = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale_all_dim = 0;  // 0: the softmax scale is not touched
};
struct RopeConfig {
  double theta = 10000;
  std::optional<YarnConfig> yarn;
};

// Multi-head latent attention (arXiv 2405.04434 §2.1).
struct MlaConfig {
  int64_t num_heads = 0;         // H
  int64_t q_lora_rank = 0;       // q
  int64_t kv_lora_rank = 0;      // c
  int64_t qk_nope_head_dim = 0;  // n
  int64_t qk_rope_head_dim = 0;  // r, even
  int64_t v_head_dim = 0;        // v
};

// Window and compressed attention (DeepSeek-V4: CSA and HCA; V4.1: CSA2), with one shared
// K = V row per token, of which the last rope_dim values rotate.
struct CompressedAttentionConfig {
  int64_t num_heads = 0;           // H
  int64_t head_dim = 0;            // D_h
  int64_t rope_dim = 0;            // r, even
  int64_t q_lora_rank = 0;         // q
  int64_t num_output_groups = 0;   // G, divides H
  int64_t output_rank = 0;         // R, per group
  int64_t window = 0;              // in tokens, the query's own among them
  bool normalizes_heads = false;   // V4: RMS of each query head, without weight
  bool has_position_bias = false;  // V4: ape
  // V4: index keys are pooled from the layer's input; V4.1: made of its entries.
  bool pools_index_keys = false;
  int64_t overlapping_ratio = 0;    // V4: 4; V4.1: 0, none overlaps
  int64_t indexed_ratio_limit = 0;  // layers of a ratio up to it select entries: 4 or 2
  // Fake quantisation of window rows (e4m3, ue8m0): V4 in groups of 64 over the values
  // that do not rotate, V4.1 of 32 over all.
  int64_t window_quant_group = 0;
  bool window_quant_covers_rope = false;
  // Of entries: V4 as window rows; V4.1 e2m1 with an e4m3 scale, over all values.
  int64_t entry_quant_group = 0;
  bool entry_quant_is_fp4 = false;
  // [num_layers + num_draft_layers] tokens per entry; 0: the window alone.
  std::vector<int64_t> ratios;
  // [num_layers] the layer whose entries a layer reads; -1 where its ratio is 0.
  std::vector<int64_t> kv_sources;
  // [num_layers] the layer whose selection a layer uses; -1: it sees all entries.
  std::vector<int64_t> index_sources;
  // V4.1: the layer that picks candidate blocks for later index sources; -1: none.
  int64_t candidate_source = -1;
  int64_t candidate_blocks = 0;      // how many it picks
  int64_t candidate_block_size = 0;  // in entries
};

// The indexer: which tokens (DSA of DeepSeek-V3.2) or entries a query attends to.
struct IndexerConfig {
  int64_t num_heads = 0;  // J
  int64_t head_dim = 0;   // D >= r; a power of two where a Hadamard transform applies
  int64_t topk = 0;
  bool rotates_tail = false;  // the last r values, in pairs, rather than the first
  bool applies_hadamard = false;
  int64_t quant_group = 0;  // of queries and keys in FP4 with E8M0 scales; 0: not FP4
  // True: queries and keys are rounded to e4m3 with one power-of-two scale per vector,
  // in every numeric mode, because the model was trained so.
  bool quantizes_vectors = false;
  // The norm of the keys is F32 on disk; true: or BF16.
  bool allows_bf16_norm = false;
};

// mHC: M residual streams mixed by a doubly stochastic matrix. Zero streams where the
// residual is plain: see ModelConfig::num_streams.
struct HyperConnectionConfig {
  int64_t num_streams = 0;  // M, 2..8
  int64_t sinkhorn_iters = 0;
  double eps = 0;
};

// The block drafter (DSpark): `block_size` tokens from one pass over the draft layers.
struct DsparkConfig {
  int64_t block_size = 0;
  int64_t noise_token_id = 0;
  int64_t markov_rank = 0;
  std::vector<int64_t> targets;  // rising layers whose streams it taps
  bool taps_inputs = false;      // V4.1: of what enters them, else of what leaves them
  // Of the two tensors [V, rank] of its Markov head, under the last draft layer.
  std::string_view markov_embedding_name;
  std::string_view markov_head_name;
};

struct MoeConfig {
  int64_t num_experts = 0;         // E
  int64_t experts_per_token = 0;   // k
  int64_t expert_width = 0;        // m
  int64_t num_shared_experts = 0;  // one MLP of width num_shared_experts * m; 0 = none
  int64_t num_groups = 1;          // 1: no grouping
  int64_t top_groups = 1;
  bool normalize_weights = true;
  double scaling_factor = 1;
  DType expert_dtype = DType::kBF16;  // kFp4, kF8E4M3 or kBF16
  // The routing weight multiplies what enters the down projection, not what leaves it.
  bool weights_before_down = false;
  // V4.1: a second bias, of image tokens. Loaded and not used: requests have none.
  bool has_image_bias = false;
};

// Hashed n-gram memory (arXiv 2601.07372). Absent where layer_ids is empty.
struct EngramConfig {
  EngramContract contract = EngramContract::kV41;
  std::vector<int64_t> layer_ids;     // ascending, 0-based; they seed the hash
  int64_t max_ngram = 0;              // N: orders 2..N
  int64_t num_heads = 0;              // K per order
  int64_t head_dim = 0;               // W
  std::vector<int64_t> bucket_bases;  // one per order, N-1 of them
  int64_t compressed_vocab_size = 0;  // V'
  int64_t pad_token_id = 0;           // raw id
  uint64_t seed = 0;
  // Rows of each layer's table: the sums of its bucket primes (bucket_primes.h). Parsing
  // fills it whether or not the config names them; a config made by hand may leave it
  // empty.
  std::vector<int64_t> num_embeddings;

  // C: columns per layer.
  int64_t num_columns() const { return (max_ngram - 1) * num_heads; }
};

// A vision tower that the checkpoint has and Tessera neither loads nor runs.
struct VisionConfig {
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t num_heads = 0;
  int64_t mlp_width = 0;
  int64_t patch_size = 0;
  int64_t downsample_ratio = 0;
};

struct ModelConfig {
  std::string family;      // "v3", "v3.2", "v4_mla", "v4", "v4.1"
  std::string model_type;  // as in config.json
  AttentionKind attention = AttentionKind::kMlaDsa;
  ResidualKind residual = ResidualKind::kHyperConnections;
  RouterKind router = RouterKind::kSigmoid;
  DraftKind draft = DraftKind::kNone;

  int64_t vocab_size = 0;        // V
  int64_t hidden_size = 0;       // d
  int64_t num_layers = 0;        // L, without the draft layers
  int64_t num_dense_layers = 0;  // layers below are dense, the rest MoE
  int64_t dense_width = 0;       // inner width of a dense MLP
  int64_t max_positions = 0;
  double rms_norm_eps = 1e-6;
  int64_t num_draft_layers = 0;  // MTP layers or DSpark stages
  // Draft layers come with copies of embedding and head, which nobody reads.
  bool draft_has_copies = false;

  MlaConfig mla;                         // kMla, kMlaDsa
  CompressedAttentionConfig compressed;  // kCompressed
  IndexerConfig indexer;
  RopeConfig rope;  // kCompressed: of layers without entries
  RopeConfig compressed_rope;
  HyperConnectionConfig hyper;
  MoeConfig moe;
  MoeConfig draft_moe;  // of draft layers
  // V4: layers below take their experts from a table by token id.
  int64_t num_hash_layers = 0;
  double swiglu_limit = 0;  // of every MLP: gate <= limit, |up| <= limit; 0: no limit
  std::optional<DsparkConfig> dspark;
  std::optional<EngramConfig> engram;
  std::optional<VisionConfig> vision;

  TensorNames names = TensorNames::kHuggingFace;
  // True: linears are FP8 with block scales; false: a BF16 checkpoint.
  bool fp8_linears = false;
  int64_t weight_block = 128;  // rows and columns of a block: 128 or 32
  bool scales_are_e8m0 =
      false;  // block scales: ".scale" E8M0, or ".weight_scale_inv" F32

  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;
  // Stands for a patch of an image; requests may not have it.
  std::optional<int32_t> image_token_id;

  bool is_dense_layer(int64_t layer) const { return layer < num_dense_layers; }
  bool is_engram_layer(int64_t layer) const;
  // M: 1 where the residual is plain.
  int64_t num_streams() const {
    return residual == ResidualKind::kPlain ? 1 : hyper.num_streams;
  }
  bool has_window() const { return attention == AttentionKind::kCompressed; }
  // H of the attention that is.
  int64_t num_heads() const {
    return has_window() ? compressed.num_heads : mla.num_heads;
  }
  // MLA: (n + r)^-1/2, times the square of YaRN's mscale where it is set. kCompressed:
  // D_h^-1/2, whatever YaRN says.
  double softmax_scale() const;
  // Router and experts of a layer; draft layers are num_layers and up.
  const MoeConfig& moe_of(int64_t layer) const {
    return layer < num_layers ? moe : draft_moe;
  }
  // True where a table by token id says which experts a token takes.
  bool is_hash_layer(int64_t layer) const { return layer < num_hash_layers; }
  // Tokens whose block must stay with a sequence although they are no prefix any more:
  // what a token to come can still see of the window and of raw compressor rows.
  int64_t tail_tokens() const;
  // A cache block holds a multiple of so many tokens, so that entries are never cut.
  int64_t block_multiple() const;
  // The ratios above 0 that layers have, rising.
  std::vector<int64_t> distinct_ratios() const;
  int64_t default_block_size() const { return has_window() ? 128 : 16; }
};

// Parses and validates config.json. kInvalidArgument names the field, what was found and
// what was expected; fields that belong to another family are refused, unknown
// informative ones are ignored. kUnimplemented: rotary scaling that no supported
// checkpoint has. Sizes are bounded so that any product of them that counts elements or
// bytes fits int64_t.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json);
// After these overrides (config_overrides.h).
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json,
                                             std::span<const std::string> overrides);

// Reads DIR/config.json and, where it exists, DIR/generation_config.json (eos ids).
// kNotFound if config.json is missing.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory,
                                            std::span<const std::string> overrides = {});

// r/2 frequencies with the bits of the published code, which evaluates every step in
// float: at long positions the last bit of a frequency is felt.
std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t rope_dim);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CONFIG_MODEL_CONFIG_H_
