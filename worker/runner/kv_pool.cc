#include "worker/runner/kv_pool.h"

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"

namespace tessera::worker {

using kernels::TensorView;

namespace {

int64_t NumConvCaches(const model::ModelConfig& config) {
  const bool demo = config.engram.has_value() &&
                    config.engram->contract == model::EngramContract::kDemo;
  return demo ? static_cast<int64_t>(config.engram->layer_ids.size()) : 0;
}

// Of the indexer's keys; 0 without one.
int64_t IndexWidth(const model::ModelConfig& config) {
  return config.attention == model::AttentionKind::kMlaDsa ? config.indexer.head_dim : 0;
}

// Values per token over all layers.
int64_t TokenWidth(const model::ModelConfig& config) {
  const int64_t attention =
      config.mla.kv_lora_rank + config.mla.qk_rope_head_dim + IndexWidth(config);
  return (config.num_layers + config.num_draft_layers) * attention +
         NumConvCaches(config) * config.num_streams() * config.hidden_size;
}

}  // namespace

size_t KvPool::BlockBytes(const model::ModelConfig& config, kernels::DType dtype,
                          int64_t block_size) {
  return model::DTypeBytes(dtype, static_cast<size_t>(TokenWidth(config) * block_size));
}

absl::StatusOr<KvPool> KvPool::Create(const model::ModelConfig& config,
                                      kernels::KernelBackend* backend, int64_t num_blocks,
                                      int64_t block_size) {
  KvPool pool;
  const kernels::DType dtype = backend->activation_dtype();
  TESSERA_ASSIGN_OR_RETURN(pool.buffer_,
                           backend->Allocate(BlockBytes(config, dtype, block_size) *
                                             static_cast<size_t>(num_blocks)));
  auto* at = static_cast<std::byte*>(pool.buffer_.data());
  const auto take = [&](int64_t width) {
    TensorView view(at, dtype, {num_blocks, block_size, width});
    at += model::DTypeBytes(dtype, static_cast<size_t>(view.num_elements()));
    return view;
  };
  for (int64_t i = 0; i < config.num_layers + config.num_draft_layers; ++i) {
    MlaCache cache;
    cache.latent = take(config.mla.kv_lora_rank);
    cache.k_rope = take(config.mla.qk_rope_head_dim);
    if (IndexWidth(config) > 0) {
      cache.index_key = take(IndexWidth(config));
    }
    pool.caches_.attention.push_back(cache);
  }
  if (config.engram.has_value()) {
    pool.caches_.engram_conv.resize(config.engram->layer_ids.size());
  }
  for (int64_t i = 0; i < NumConvCaches(config); ++i) {
    pool.caches_.engram_conv[static_cast<size_t>(i)] =
        take(config.num_streams() * config.hidden_size);
  }
  return pool;
}

}  // namespace tessera::worker
