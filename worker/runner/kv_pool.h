// KvPool: the paged caches of one rank, allocated once as worker/layers/cache_layout.h
// describes the model. A block of the block manager is one page of `block_size` tokens in
// every cache of its kind: block pages hold what a sequence keeps, tail pages what only
// the tokens just behind can still see. Engram's convolution rows of the demo contract
// lie in block pages, so that a prefix hit restores them like any other state.
#ifndef TESSERA_WORKER_RUNNER_KV_POOL_H_
#define TESSERA_WORKER_RUNNER_KV_POOL_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "model/config/model_config.h"
#include "worker/layers/cache_layout.h"

namespace tessera::worker {

// Owns the memory behind `caches()`.
class KvPool {
 public:
  struct Options {
    int64_t num_blocks = 0;
    int64_t num_tail_blocks = 0;  // 0 for a model that keeps no tail
    int64_t block_size = 0;
    KvCacheDtype dtype = KvCacheDtype::kActivations;
  };

  // kInvalidArgument: a block that would cut an entry, or no tail block for a model that
  // keeps tails, or as CheckKvCacheDtype; kResourceExhausted: the device has too little
  // memory.
  static absl::StatusOr<KvPool> Create(const model::ModelConfig& config,
                                       kernels::KernelBackend* backend,
                                       const Options& options);

  // What a block is made of.
  struct PageFormat {
    kernels::DType activations = kernels::DType::kF32;
    KvCacheDtype dtype = KvCacheDtype::kActivations;
    int64_t block_size = 0;  // a multiple of the model's `block_multiple`
  };
  // Bytes of one block, and of one tail block, over all layers.
  static size_t BlockBytes(const model::ModelConfig& config, const PageFormat& format);
  static size_t TailBlockBytes(const model::ModelConfig& config,
                               const PageFormat& format);

  const ModelCaches& caches() const { return caches_; }
  size_t size_bytes() const { return buffer_.size_bytes(); }

 private:
  kernels::DeviceBuffer buffer_;
  ModelCaches caches_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_KV_POOL_H_
