// CompressedAttention: attention over a window of tokens and over compressed entries
// (DeepSeek-V4: CSA, HCA and plain window layers, model.md 6.3-6.5; V4.1: CSA2, 9.2).
// Keys are values: one row per token or entry for all heads, whose last r values rotate;
// what comes out is rotated back at the query's position and goes through a low-rank
// projection by groups of heads. A layer may read the entries, and the selection of
// entries, of a layer before it.
//
// Tensor parallelism: q_b and the sinks by heads, o_a by rows, o_b by columns (the one
// reduction). Where the ranks hold whole groups, a rank's rows of o_a are those of its
// heads; where a group's heads span ranks, all heads are gathered before it.
// Rows, entries and the indexer are computed alike on every rank.
//
// Per token beyond the projections: 4 H_local D_h (window + entries seen) FLOPs; reads
// (window + entries seen) D_h values; the gather moves T H D_h values over tp.
#ifndef TESSERA_WORKER_LAYERS_COMPRESSED_ATTENTION_H_
#define TESSERA_WORKER_LAYERS_COMPRESSED_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"

#include "kernels/cache_view.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/attention.h"
#include "worker/layers/cache_layout.h"
#include "worker/layers/compressor.h"
#include "worker/layers/entry_indexer.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

class CompressedAttention final : public Attention {
 public:
  struct Options {
    int64_t layer = 0;  // draft layers are num_layers and up
    int tp_rank = 0;
    int tp_size = 1;  // divides the heads
  };

  // `caches` are those of all layers. Weights, cache views and `selection` (null for a
  // model that selects nothing) must outlive the object.
  CompressedAttention(const model::ModelConfig& config, const Options& options,
                      const CompressedAttentionWeights& weights,
                      const ModelCaches& caches, EntrySelection* selection);

  absl::Status Forward(const StepContext& context, kernels::TensorView x,
                       kernels::TensorView out) override;
  void StoreKeys(const StepContext& context, kernels::TensorView x) const override;
  size_t scratch_bytes(int64_t max_tokens) const override;

 private:
  const StepContext::Entries* FindEntries(const StepContext& context) const;
  // The low-rank queries [T, q] and the rotated queries [T, H_local, D_h].
  struct Queries {
    kernels::TensorView low;
    kernels::TensorView heads;
  };
  Queries ProjectQueries(const StepContext& context, kernels::TensorView x) const;
  // Caches the window row of each token; entries, and their index keys, that this step
  // completes.
  void StoreWindow(const StepContext& context, kernels::TensorView x) const;
  void StoreEntries(const StepContext& context, const StepContext::Entries& entries,
                    kernels::TensorView x) const;
  void Attend(const StepContext& context, const StepContext::Entries* entries,
              kernels::TensorView q, kernels::TensorView o) const;
  absl::Status ProjectOut(const StepContext& context, kernels::TensorView o,
                          kernels::TensorView out);
  // low (out) [T, rows of o_a] = this rank's rows of the projection by groups.
  absl::Status ProjectGroups(const StepContext& context, kernels::TensorView o,
                             kernels::TensorView low);
  // The heads of all ranks, [T, H D_h].
  absl::StatusOr<kernels::TensorView> GatherHeads(const StepContext& context,
                                                  kernels::TensorView o);
  bool groups_span_ranks() const {
    return config_.num_output_groups % options_.tp_size != 0;
  }

  const model::CompressedAttentionConfig config_;
  const Options options_;
  const double norm_eps_;
  const double softmax_scale_;
  const int64_t ratio_;      // 0: the window alone
  const bool selects_;       // sees the entries that are selected, not all
  const int64_t num_heads_;  // H_local
  const std::vector<float> inv_freq_;
  const std::vector<float> inverse_freq_;  // rotates back
  const CompressedAttentionWeights weights_;
  const kernels::CacheView window_;   // [num_tail_blocks, block_size, D_h]
  const kernels::CacheView entries_;  // [num_blocks, block_size / ratio, D_h], or none
  const std::optional<Compressor> compressor_;
  const std::optional<EntryIndexer> indexer_;
  const EntrySelection* const selection_;
  std::vector<int64_t> gather_counts_;  // [tp] bytes of each rank's heads
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_COMPRESSED_ATTENTION_H_
