#include "worker/runner/weight_loader.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/weight_view.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "model/formats/number_formats.h"
#include "model/tensors/checkpoint.h"

namespace tessera::worker {

using kernels::KSplit;
using model::DType;

namespace {

constexpr int64_t kFp4ScaleBlock = 32;
constexpr std::byte kE8M0Nan{255};

// Reads tensors by name into views, counting bytes. One per LoadWeights call.
class WeightReader {
 public:
  WeightReader(const model::Checkpoint& checkpoint, const model::ModelConfig& config,
               const WeightShard& shard)
      : checkpoint_(checkpoint), config_(config), shard_(shard) {}

  uint64_t bytes() const { return bytes_; }
  std::vector<std::unique_ptr<float[]>> TakeDecoded() { return std::move(decoded_); }

  absl::StatusOr<WeightView> Plain(const std::string& name, DType dtype, int64_t rows,
                                   int64_t cols, bool vector = false) {
    const std::array<int64_t, 2> shape = {vector ? cols : rows, cols};
    TESSERA_ASSIGN_OR_RETURN(
        const model::TensorRef tensor,
        checkpoint_.Require(name, dtype,
                            std::span<const int64_t>(shape).first(vector ? 1 : 2)));
    WeightView view;
    view.data = tensor.data.data();
    view.dtype = dtype;
    view.rows = rows;
    view.cols = cols;
    view.row_bytes =
        static_cast<int64_t>(model::DTypeBytes(dtype, static_cast<size_t>(cols)));
    return view;
  }

  // A [n] vector as [1, n].
  absl::StatusOr<WeightView> Norm(const std::string& name, int64_t size) {
    TESSERA_ASSIGN_OR_RETURN(WeightView view, Plain(name, DType::kBF16, 1, size, true));
    return Counted(view);
  }

  absl::StatusOr<WeightView> Matrix(const std::string& name, DType dtype, int64_t rows,
                                    int64_t cols) {
    TESSERA_ASSIGN_OR_RETURN(WeightView view, Plain(name, dtype, rows, cols));
    return Counted(view);
  }

  // F32, or decoded from BF16 where the checkpoint has that.
  absl::StatusOr<const float*> FloatsOrBf16(const std::string& name, int64_t size) {
    TESSERA_ASSIGN_OR_RETURN(const model::TensorRef found, checkpoint_.Find(name));
    if (found.dtype != DType::kBF16) {
      return Floats(name, size);
    }
    TESSERA_ASSIGN_OR_RETURN(const WeightView view,
                             Plain(name, DType::kBF16, 1, size, true));
    const auto count = static_cast<size_t>(size);
    decoded_.push_back(std::make_unique<float[]>(count));
    model::DecodeBf16({view.data, static_cast<size_t>(view.row_bytes)},
                      {decoded_.back().get(), count});
    bytes_ += static_cast<uint64_t>(view.row_bytes);
    return decoded_.back().get();
  }

  absl::StatusOr<const float*> Floats(const std::string& name, int64_t size) {
    TESSERA_ASSIGN_OR_RETURN(const WeightView view,
                             Plain(name, DType::kF32, 1, size, true));
    bytes_ += static_cast<uint64_t>(view.row_bytes);
    return reinterpret_cast<const float*>(view.data);
  }

  // `lin` of model.md 14.2: BF16, or FP8 with F32 block scales. Not counted: slices are.
  absl::StatusOr<WeightView> Linear(const std::string& prefix, int64_t rows,
                                    int64_t cols) {
    if (!config_.fp8_linears) {
      return Plain(prefix + ".weight", DType::kBF16, rows, cols);
    }
    const int64_t block = config_.weight_block;
    TESSERA_ASSIGN_OR_RETURN(WeightView view,
                             Plain(prefix + ".weight", DType::kF8E4M3, rows, cols));
    TESSERA_ASSIGN_OR_RETURN(
        const WeightView scales,
        Plain(prefix + ".weight_scale_inv", DType::kF32, (rows + block - 1) / block,
              (cols + block - 1) / block));
    view.scales = scales.data;
    view.scale_dtype = DType::kF32;
    view.scale_stride = scales.cols;
    view.block_rows = block;
    view.block_cols = block;
    return view;
  }

  absl::StatusOr<WeightView> WholeLinear(const std::string& prefix, int64_t rows,
                                         int64_t cols) {
    TESSERA_ASSIGN_OR_RETURN(WeightView view, Linear(prefix, rows, cols));
    return Counted(view);
  }

  // Rows [rank * rows / tp, …) of a linear.
  absl::StatusOr<WeightView> RowShard(const std::string& prefix, int64_t rows,
                                      int64_t cols) {
    TESSERA_ASSIGN_OR_RETURN(const WeightView view, Linear(prefix, rows, cols));
    return Counted(view.RowSlice(Begin(rows), End(rows) - Begin(rows)));
  }

  // Columns of this rank's leaves.
  absl::StatusOr<SplitLinear> ColumnShard(const std::string& prefix, int64_t rows,
                                          int64_t cols) {
    TESSERA_ASSIGN_OR_RETURN(const WeightView view, Linear(prefix, rows, cols));
    SplitLinear out;
    out.weight = Counted(view.ColSlice(Begin(cols), End(cols) - Begin(cols)));
    out.split.total = cols;
    out.split.num_leaves = KSplit::kLeaves / shard_.tp_size;
    out.split.first_leaf = shard_.tp_rank * out.split.num_leaves;
    return out;
  }

  absl::StatusOr<WeightView> Expert(const std::string& prefix, int64_t rows,
                                    int64_t cols) {
    switch (config_.moe.expert_dtype) {
      case DType::kFp4:
        return Fp4(prefix, rows, cols);
      case DType::kBF16:
        return Matrix(prefix + ".weight", DType::kBF16, rows, cols);
      default:
        return WholeLinear(prefix, rows, cols);
    }
  }

  WeightView Counted(const WeightView& view) {
    bytes_ += static_cast<uint64_t>(view.rows) *
              model::DTypeBytes(view.dtype, static_cast<size_t>(view.cols));
    return view;
  }

  int64_t Begin(int64_t total) const { return total * shard_.tp_rank / shard_.tp_size; }
  int64_t End(int64_t total) const {
    return total * (shard_.tp_rank + 1) / shard_.tp_size;
  }

 private:
  absl::StatusOr<WeightView> Fp4(const std::string& prefix, int64_t rows, int64_t cols) {
    if (cols % kFp4ScaleBlock != 0) {
      return InvalidArgumentF("{}: {} inputs, expected a multiple of {} for MXFP4",
                              prefix, cols, kFp4ScaleBlock);
    }
    TESSERA_ASSIGN_OR_RETURN(WeightView view,
                             Plain(prefix + ".weight", DType::kI8, rows, cols / 2));
    TESSERA_ASSIGN_OR_RETURN(
        const WeightView scales,
        Plain(prefix + ".scale", DType::kF8E8M0, rows, cols / kFp4ScaleBlock));
    const std::byte* const end = scales.data + rows * scales.cols;
    if (std::find(scales.data, end, kE8M0Nan) != end) {
      return DataLossF("{}.scale: NaN scale (byte 255)", prefix);
    }
    view.dtype = DType::kFp4;
    view.cols = cols;
    view.scales = scales.data;
    view.scale_dtype = DType::kF8E8M0;
    view.scale_stride = scales.cols;
    view.block_rows = 1;
    view.block_cols = kFp4ScaleBlock;
    return Counted(view);
  }

  const model::Checkpoint& checkpoint_;
  const model::ModelConfig& config_;
  const WeightShard& shard_;
  std::vector<std::unique_ptr<float[]>> decoded_;
  uint64_t bytes_ = 0;
};

absl::StatusOr<HyperWeights> LoadHyper(WeightReader& reader, const std::string& prefix,
                                       const model::ModelConfig& config, int64_t rows,
                                       int64_t num_scales) {
  HyperWeights out;
  if (config.residual != model::ResidualKind::kHyperConnections) {
    return out;
  }
  const int64_t width = config.num_streams() * config.hidden_size;
  TESSERA_ASSIGN_OR_RETURN(out.fn,
                           reader.Matrix(prefix + ".fn", DType::kF32, rows, width));
  TESSERA_ASSIGN_OR_RETURN(out.base, reader.Floats(prefix + ".base", rows));
  TESSERA_ASSIGN_OR_RETURN(out.scale, reader.Floats(prefix + ".scale", num_scales));
  return out;
}

absl::StatusOr<HyperWeights> LoadHyperHead(WeightReader& reader,
                                           const std::string& prefix,
                                           const model::ModelConfig& config) {
  return LoadHyper(reader, prefix, config, config.num_streams(), 1);
}

absl::StatusOr<MlpWeights> LoadMlp(WeightReader& reader, const std::string& prefix,
                                   const model::ModelConfig& config, int64_t width) {
  MlpWeights out;
  const int64_t d = config.hidden_size;
  TESSERA_ASSIGN_OR_RETURN(out.gate, reader.RowShard(prefix + ".gate_proj", width, d));
  TESSERA_ASSIGN_OR_RETURN(out.up, reader.RowShard(prefix + ".up_proj", width, d));
  TESSERA_ASSIGN_OR_RETURN(out.down, reader.ColumnShard(prefix + ".down_proj", d, width));
  return out;
}

absl::StatusOr<IndexerWeights> LoadIndexer(WeightReader& reader,
                                           const std::string& prefix,
                                           const model::ModelConfig& config) {
  IndexerWeights out;
  const model::IndexerConfig& index = config.indexer;
  const int64_t d = config.hidden_size;
  TESSERA_ASSIGN_OR_RETURN(
      out.q, reader.WholeLinear(prefix + "wq_b", index.num_heads * index.head_dim,
                                config.mla.q_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(out.k, reader.WholeLinear(prefix + "wk", index.head_dim, d));
  TESSERA_ASSIGN_OR_RETURN(out.k_norm_weight,
                           reader.FloatsOrBf16(prefix + "k_norm.weight", index.head_dim));
  TESSERA_ASSIGN_OR_RETURN(out.k_norm_bias,
                           reader.FloatsOrBf16(prefix + "k_norm.bias", index.head_dim));
  TESSERA_ASSIGN_OR_RETURN(
      out.head_weights,
      reader.Matrix(prefix + "weights_proj.weight", DType::kBF16, index.num_heads, d));
  return out;
}

absl::StatusOr<MlaWeights> LoadAttention(WeightReader& reader, const std::string& prefix,
                                         const model::ModelConfig& config) {
  MlaWeights out;
  const model::MlaConfig& mla = config.mla;
  const int64_t d = config.hidden_size;
  const int64_t n = mla.qk_nope_head_dim;
  const int64_t r = mla.qk_rope_head_dim;
  const int64_t v = mla.v_head_dim;
  TESSERA_ASSIGN_OR_RETURN(out.q_a,
                           reader.WholeLinear(prefix + "q_a_proj", mla.q_lora_rank, d));
  TESSERA_ASSIGN_OR_RETURN(out.q_a_norm,
                           reader.Norm(prefix + "q_a_layernorm.weight", mla.q_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(
      out.q_b,
      reader.RowShard(prefix + "q_b_proj", mla.num_heads * (n + r), mla.q_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(out.kv_a, reader.WholeLinear(prefix + "kv_a_proj_with_mqa",
                                                        mla.kv_lora_rank + r, d));
  TESSERA_ASSIGN_OR_RETURN(
      out.kv_a_norm, reader.Norm(prefix + "kv_a_layernorm.weight", mla.kv_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(
      out.kv_b,
      reader.RowShard(prefix + "kv_b_proj", mla.num_heads * (n + v), mla.kv_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(out.o,
                           reader.ColumnShard(prefix + "o_proj", d, mla.num_heads * v));
  if (config.attention == model::AttentionKind::kMlaDsa) {
    TESSERA_ASSIGN_OR_RETURN(out.indexer,
                             LoadIndexer(reader, prefix + "indexer.", config));
  }
  return out;
}

absl::StatusOr<MoeWeights> LoadMoe(WeightReader& reader, const std::string& prefix,
                                   const model::ModelConfig& config,
                                   std::span<const int> local_experts) {
  MoeWeights out;
  const model::MoeConfig& moe = config.moe;
  const int64_t d = config.hidden_size;
  TESSERA_ASSIGN_OR_RETURN(out.router, reader.Matrix(prefix + "gate.weight", DType::kBF16,
                                                     moe.num_experts, d));
  TESSERA_ASSIGN_OR_RETURN(
      out.router_bias,
      reader.Floats(prefix + "gate.e_score_correction_bias", moe.num_experts));
  for (const int expert : local_experts) {
    const std::string name = fmt::format("{}experts.{}.", prefix, expert);
    kernels::ExpertWeights weights;
    TESSERA_ASSIGN_OR_RETURN(weights.gate,
                             reader.Expert(name + "gate_proj", moe.expert_width, d));
    TESSERA_ASSIGN_OR_RETURN(weights.up,
                             reader.Expert(name + "up_proj", moe.expert_width, d));
    TESSERA_ASSIGN_OR_RETURN(weights.down,
                             reader.Expert(name + "down_proj", d, moe.expert_width));
    out.experts.push_back(weights);
  }
  if (moe.num_shared_experts > 0) {
    TESSERA_ASSIGN_OR_RETURN(MlpWeights shared,
                             LoadMlp(reader, prefix + "shared_experts", config,
                                     moe.num_shared_experts * moe.expert_width));
    out.shared = shared;
  }
  return out;
}

absl::StatusOr<EngramWeights> LoadEngram(WeightReader& reader, const std::string& prefix,
                                         const model::ModelConfig& config) {
  EngramWeights out;
  const model::EngramConfig& engram = *config.engram;
  const int64_t d = config.hidden_size;
  const int64_t streams = config.num_streams();
  TESSERA_ASSIGN_OR_RETURN(out.wkv,
                           reader.WholeLinear(prefix + "wkv", (streams + 1) * d,
                                              engram.num_columns() * engram.head_dim));
  TESSERA_ASSIGN_OR_RETURN(out.q_weight,
                           reader.Matrix(prefix + "q_weight", DType::kBF16, streams, d));
  TESSERA_ASSIGN_OR_RETURN(out.k_weight,
                           reader.Matrix(prefix + "k_weight", DType::kBF16, streams, d));
  if (engram.contract == model::EngramContract::kDemo) {
    // Kernel width 4 is part of the contract (engram.md 6.1).
    TESSERA_ASSIGN_OR_RETURN(
        WeightView conv,
        reader.Matrix(prefix + "conv.weight", DType::kBF16, streams * d, 4));
    TESSERA_ASSIGN_OR_RETURN(WeightView norm, reader.Matrix(prefix + "conv_norm.weight",
                                                            DType::kBF16, streams, d));
    out.conv = conv;
    out.conv_norm = norm;
  }
  return out;
}

absl::StatusOr<LayerWeights> LoadLayer(WeightReader& reader, int64_t index,
                                       const model::ModelConfig& config,
                                       std::span<const int> local_experts) {
  LayerWeights out;
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const int64_t d = config.hidden_size;
  const int64_t streams = config.num_streams();
  TESSERA_ASSIGN_OR_RETURN(out.input_norm,
                           reader.Norm(prefix + "input_layernorm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.post_attention_norm,
                           reader.Norm(prefix + "post_attention_layernorm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(
      out.attention_hyper,
      LoadHyper(reader, prefix + "hc_attn", config, streams * (streams + 2), 3));
  TESSERA_ASSIGN_OR_RETURN(out.ffn_hyper, LoadHyper(reader, prefix + "hc_ffn", config,
                                                    streams * (streams + 2), 3));
  TESSERA_ASSIGN_OR_RETURN(out.attention,
                           LoadAttention(reader, prefix + "self_attn.", config));
  if (config.is_dense_layer(index)) {
    TESSERA_ASSIGN_OR_RETURN(MlpWeights dense,
                             LoadMlp(reader, prefix + "mlp", config, config.dense_width));
    out.dense = dense;
  } else {
    TESSERA_ASSIGN_OR_RETURN(MoeWeights moe,
                             LoadMoe(reader, prefix + "mlp.", config, local_experts));
    out.moe = std::move(moe);
  }
  if (config.is_engram_layer(index)) {
    TESSERA_ASSIGN_OR_RETURN(EngramWeights engram,
                             LoadEngram(reader, prefix + "engram.", config));
    out.engram = engram;
  }
  return out;
}

absl::StatusOr<DraftWeights> LoadDraft(WeightReader& reader, int64_t index,
                                       const model::ModelConfig& config,
                                       std::span<const int> local_experts) {
  DraftWeights out;
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const int64_t d = config.hidden_size;
  TESSERA_ASSIGN_OR_RETURN(out.layer, LoadLayer(reader, index, config, local_experts));
  TESSERA_ASSIGN_OR_RETURN(out.embedding_norm, reader.Norm(prefix + "enorm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.hidden_norm, reader.Norm(prefix + "hnorm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.head_norm,
                           reader.Norm(prefix + "shared_head.norm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(
      out.join, reader.Matrix(prefix + "eh_proj.weight", DType::kBF16, d, 2 * d));
  TESSERA_ASSIGN_OR_RETURN(out.head_hyper,
                           LoadHyperHead(reader, prefix + "hc_head", config));
  return out;
}

}  // namespace

absl::Status CheckTensorParallel(const model::ModelConfig& config, int tp_size) {
  if (tp_size != 1 && tp_size != 2 && tp_size != 4 && tp_size != 8) {
    return InvalidArgumentF("tensor parallel size {}, expected 1, 2, 4 or 8", tp_size);
  }
  if (config.mla.num_heads % tp_size != 0) {
    return InvalidArgumentF("tensor parallel size {} does not divide {} attention heads",
                            tp_size, config.mla.num_heads);
  }
  return absl::OkStatus();
}

absl::StatusOr<LoadedWeights> LoadWeights(const model::Checkpoint& checkpoint,
                                          const model::ModelConfig& config,
                                          const WeightShard& shard) {
  TESSERA_RETURN_IF_ERROR(CheckTensorParallel(config, shard.tp_size));
  TESSERA_CHECK(shard.tp_rank >= 0 && shard.tp_rank < shard.tp_size);
  WeightReader reader(checkpoint, config, shard);
  LoadedWeights out;
  ModelWeights& weights = out.weights;
  const int64_t d = config.hidden_size;
  const int64_t vocab = config.vocab_size;
  TESSERA_ASSIGN_OR_RETURN(weights.embedding, reader.Matrix("model.embed_tokens.weight",
                                                            DType::kBF16, vocab, d));
  TESSERA_ASSIGN_OR_RETURN(const WeightView head,
                           reader.Plain("lm_head.weight", DType::kBF16, vocab, d));
  weights.head = reader.Counted(
      head.RowSlice(reader.Begin(vocab), reader.End(vocab) - reader.Begin(vocab)));
  TESSERA_ASSIGN_OR_RETURN(weights.final_norm, reader.Norm("model.norm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(weights.head_hyper,
                           LoadHyperHead(reader, "model.hc_head", config));
  for (int64_t i = 0; i < config.num_layers; ++i) {
    TESSERA_ASSIGN_OR_RETURN(LayerWeights layer,
                             LoadLayer(reader, i, config, shard.local_experts));
    weights.layers.push_back(std::move(layer));
  }
  for (int64_t i = 0; i < config.num_draft_layers; ++i) {
    TESSERA_ASSIGN_OR_RETURN(DraftWeights draft, LoadDraft(reader, config.num_layers + i,
                                                           config, shard.local_experts));
    weights.drafts.push_back(std::move(draft));
  }
  weights.decoded = reader.TakeDecoded();
  out.bytes = reader.bytes();
  return out;
}

}  // namespace tessera::worker
