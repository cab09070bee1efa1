#include "worker/runner/kv_pool.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"

namespace tessera::worker {

using kernels::TensorView;

namespace {

size_t PageBytes(const model::ModelConfig& config, kernels::DType dtype,
                 int64_t block_size, bool of_tail) {
  int64_t values = 0;
  for (const CacheSpec& spec : DescribeCaches(config)) {
    values += spec.in_tail == of_tail ? spec.width * (block_size / spec.ratio) : 0;
  }
  return model::DTypeBytes(dtype, static_cast<size_t>(values));
}

absl::Status CheckOptions(const KvPool::Options& options,
                          const std::vector<CacheSpec>& specs) {
  for (const CacheSpec& spec : specs) {
    if (options.block_size % spec.ratio != 0) {
      return InvalidArgumentF("blocks of {} tokens, expected a multiple of {}",
                              options.block_size, spec.ratio);
    }
    if (spec.in_tail && options.num_tail_blocks < 1) {
      return InvalidArgumentF("{} tail blocks, expected at least 1",
                              options.num_tail_blocks);
    }
  }
  return absl::OkStatus();
}

}  // namespace

size_t KvPool::BlockBytes(const model::ModelConfig& config, kernels::DType dtype,
                          int64_t block_size) {
  return PageBytes(config, dtype, block_size, false);
}

size_t KvPool::TailBlockBytes(const model::ModelConfig& config, kernels::DType dtype,
                              int64_t block_size) {
  return PageBytes(config, dtype, block_size, true);
}

absl::StatusOr<KvPool> KvPool::Create(const model::ModelConfig& config,
                                      kernels::KernelBackend* backend,
                                      const Options& options) {
  const std::vector<CacheSpec> specs = DescribeCaches(config);
  TESSERA_RETURN_IF_ERROR(CheckOptions(options, specs));
  const kernels::DType dtype = backend->activation_dtype();
  const auto num_pages = [&](bool of_tail) {
    return of_tail ? options.num_tail_blocks : options.num_blocks;
  };
  size_t bytes = 0;
  for (const bool of_tail : {false, true}) {
    bytes += PageBytes(config, dtype, options.block_size, of_tail) *
             static_cast<size_t>(num_pages(of_tail));
  }
  KvPool pool;
  TESSERA_ASSIGN_OR_RETURN(pool.buffer_, backend->Allocate(bytes));
  pool.caches_.resize(static_cast<size_t>(config.num_layers + config.num_draft_layers));
  auto* at = static_cast<std::byte*>(pool.buffer_.data());
  for (const CacheSpec& spec : specs) {
    const TensorView view(
        at, dtype,
        {num_pages(spec.in_tail), options.block_size / spec.ratio, spec.width});
    at += model::DTypeBytes(dtype, static_cast<size_t>(view.num_elements()));
    pool.caches_[static_cast<size_t>(spec.layer)][spec.role] = view;
  }
  return pool;
}

}  // namespace tessera::worker
