// ModelConfig: config.json as a validated description of one model. A family is a row of
// choices (attention, residual, router, Engram, draft), never a type of its own: the
// forward pass is composed from the choices, and a new family is a new choice or a new
// row.
//
// Shape letters used across the repository (docs/glossary.md):
//   d hidden_size, L num_layers, H heads, q q_lora_rank, c kv_lora_rank, n/r/v head dims
//   (nope, rope, value), J/D indexer heads and head dim, E routed experts, k experts per
//   token, m expert width, M residual streams, V vocabulary, C Engram columns, W Engram
//   row width, N longest n-gram, T tokens.
#ifndef TESSERA_MODEL_CONFIG_MODEL_CONFIG_H_
#define TESSERA_MODEL_CONFIG_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "model/formats/dtype.h"

namespace tessera::model {

// kMla: over everything visible. kMlaDsa: over what the lightning indexer selects.
enum class AttentionKind { kMla, kMlaDsa };
enum class ResidualKind { kPlain, kHyperConnections };
enum class RouterKind { kSigmoid };
// What an MTP layer takes from the layers before it: the residual streams as they are, or
// what the head sees of them, after its norm.
enum class DraftKind { kNone, kMtpStreams, kMtpNormed };
enum class EngramContract { kDemo, kV41 };

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

// The lightning indexer of DSA (DeepSeek-V3.2): which tokens a query attends to.
struct IndexerConfig {
  int64_t num_heads = 0;  // J
  int64_t head_dim = 0;   // D, a power of two >= r
  int64_t topk = 0;
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

struct ModelConfig {
  std::string family;      // "v3", "v3.2", "v4_mla"
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
  int64_t num_draft_layers = 0;  // MTP layers, stored as layers L..
  // Draft layers come with copies of embedding and head, which nobody reads.
  bool draft_has_copies = false;

  MlaConfig mla;
  IndexerConfig indexer;
  RopeConfig rope;
  HyperConnectionConfig hyper;
  MoeConfig moe;
  std::optional<EngramConfig> engram;

  // True: linears are FP8 with 128x128 block scales; false: a BF16 checkpoint.
  bool fp8_linears = false;
  int64_t weight_block = 128;

  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;

  bool is_dense_layer(int64_t layer) const { return layer < num_dense_layers; }
  bool is_engram_layer(int64_t layer) const;
  // M: 1 where the residual is plain.
  int64_t num_streams() const {
    return residual == ResidualKind::kPlain ? 1 : hyper.num_streams;
  }
  // (n + r)^-1/2, times the square of YaRN's mscale where it is set.
  double softmax_scale() const;
};

// Parses and validates config.json. kInvalidArgument names the field, what was found and
// what was expected; fields that belong to another family are refused, unknown
// informative ones are ignored. kUnimplemented: a family of DeepSeek's that this build
// does not run. Sizes are bounded so that any product of them that counts elements or
// bytes fits int64_t.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json);

// Reads DIR/config.json and, where it exists, DIR/generation_config.json (eos ids).
// kNotFound if config.json is missing.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory);

// r/2 frequencies with the bits of the published code, which evaluates every step in
// float: at long positions the last bit of a frequency is felt.
std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t rope_dim);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CONFIG_MODEL_CONFIG_H_
