// KvPool: the paged caches of one rank, allocated once. A block of the block manager is
// one page of `block_size` tokens in every layer's pool: latent (c), rope key (r) and
// index key (D) per attention layer, draft layers last; and, for Engram's demo contract,
// the convolution rows (M d) per engram layer, so that a prefix hit restores them like
// any other state.
#ifndef TESSERA_WORKER_RUNNER_KV_POOL_H_
#define TESSERA_WORKER_RUNNER_KV_POOL_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "model/config/model_config.h"
#include "worker/layers/decoder.h"

namespace tessera::worker {

// Owns the memory behind `caches()`.
class KvPool {
 public:
  // kResourceExhausted when the device has too little memory.
  static absl::StatusOr<KvPool> Create(const model::ModelConfig& config,
                                       kernels::KernelBackend* backend,
                                       int64_t num_blocks, int64_t block_size);

  // Bytes of one block over all layers.
  static size_t BlockBytes(const model::ModelConfig& config, kernels::DType dtype,
                           int64_t block_size);

  const DecoderCaches& caches() const { return caches_; }
  size_t size_bytes() const { return buffer_.size_bytes(); }

 private:
  kernels::DeviceBuffer buffer_;
  DecoderCaches caches_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_KV_POOL_H_
