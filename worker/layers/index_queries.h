// IndexQueries: whether an indexer's layer makes queries in a step, or selects all that
// competes without a score. The one rule for the layers, which leave the projections out,
// and for whoever counts what a step must read.
#ifndef TESSERA_WORKER_LAYERS_INDEX_QUERIES_H_
#define TESSERA_WORKER_LAYERS_INDEX_QUERIES_H_

#include <cstddef>
#include <cstdint>

#include "model/config/model_config.h"

namespace tessera::worker {

// Immutable.
class IndexQueries {
 public:
  // `layer`: one whose indexer selects.
  IndexQueries(const model::ModelConfig& config, int64_t layer)
      : topk_(config.indexer.topk) {
    const model::CompressedAttentionConfig& compressed = config.compressed;
    if (!compressed.ratios.empty()) {
      ratio_ = compressed.ratios[static_cast<size_t>(layer)];
      names_candidates_ = layer == compressed.candidate_source;
    }
  }

  // In a step whose queries see `most_visible` tokens at most. Candidates are named by
  // score even where few entries compete.
  bool AreMade(int64_t most_visible) const {
    return names_candidates_ || most_visible / ratio_ > topk_;
  }

 private:
  int64_t topk_;
  int64_t ratio_ = 1;  // tokens per entry
  bool names_candidates_ = false;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_INDEX_QUERIES_H_
