// CacheLayout: which paged caches each layer of a model has, as a list that a family is
// described by; worker/runner/kv_pool.h allocates what the list says and layers take
// their views by role. A cache lies in the pages of blocks, which a sequence keeps as
// long as it lives, or in tail blocks, which it gives back when no token to come can see
// them (docs/design/0003).
#ifndef TESSERA_WORKER_LAYERS_CACHE_LAYOUT_H_
#define TESSERA_WORKER_LAYERS_CACHE_LAYOUT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"

#include "kernels/cache_view.h"
#include "kernels/row_format.h"
#include "model/config/model_config.h"

namespace tessera::worker {

// What rows of attention are kept as: activations, or the packed rows of
// kernels/row_format.h. Raw rows of entries to come and of convolutions stay activations.
enum class KvCacheDtype { kActivations, kFp8 };

enum class CacheRole : size_t {
  kLatent,      // MLA: latent and rope key, width c + r
  kIndexKey,    // of the indexer, per token or per entry: width D
  kEngramConv,  // rows of the demo contract's convolution: width M d
  kEntry,       // compressed attention: width D_h
  kWindow,      // window rows, K = V: width D_h
  kEntryValue,  // raw rows that entries are made of: width C
  kEntryGate,   // their gates, with the position bias
  kIndexValue,  // the same of index keys
  kIndexGate,
};
inline constexpr size_t kNumCacheRoles = static_cast<size_t>(CacheRole::kIndexGate) + 1;

struct CacheSpec {
  CacheRole role = CacheRole::kLatent;
  int64_t layer = 0;  // draft layers follow the others
  kernels::RowFormat row = {};
  int64_t ratio = 1;     // tokens per row; divides the block size
  bool in_tail = false;  // in tail blocks
};

// In the order in which they lie in memory, rising in layers.
std::vector<CacheSpec> DescribeCaches(const model::ModelConfig& config,
                                      KvCacheDtype dtype);

// kInvalidArgument: rows of this model that are wider than a packed row may be.
absl::Status CheckKvCacheDtype(const model::ModelConfig& config, KvCacheDtype dtype);

// One layer's caches: [num_blocks, block_size / ratio, width]; none where it has none.
class LayerCaches {
 public:
  const kernels::CacheView& operator[](CacheRole role) const {
    return views_[static_cast<size_t>(role)];
  }
  kernels::CacheView& operator[](CacheRole role) {
    return views_[static_cast<size_t>(role)];
  }

 private:
  std::array<kernels::CacheView, kNumCacheRoles> views_;
};

// Of all layers of a rank, draft layers last.
using ModelCaches = std::vector<LayerCaches>;

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_CACHE_LAYOUT_H_
