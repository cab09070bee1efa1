#include "worker/runner/kv_pool.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cache_view.h"
#include "kernels/kernel_backend.h"
#include "kernels/row_format.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"

namespace tessera::worker {

namespace {

// Where a cache begins, so that the rows of every format are aligned.
constexpr size_t kCacheAlignment = 64;

size_t AlignUp(size_t bytes) {
  return (bytes + kCacheAlignment - 1) / kCacheAlignment * kCacheAlignment;
}

size_t RowBytes(const kernels::RowFormat& row, kernels::DType activations) {
  return row.is_packed() ? static_cast<size_t>(row.packed_bytes())
                         : model::DTypeBytes(activations, static_cast<size_t>(row.width));
}

size_t PageBytes(const model::ModelConfig& config, const KvPool::PageFormat& format,
                 bool of_tail) {
  size_t bytes = 0;
  for (const CacheSpec& spec : DescribeCaches(config, format.dtype)) {
    if (spec.in_tail == of_tail) {
      bytes += RowBytes(spec.row, format.activations) *
               static_cast<size_t>(format.block_size / spec.ratio);
    }
  }
  return bytes;
}

// The cache of `spec` at `at`.
kernels::CacheView ViewOf(const CacheSpec& spec, std::byte* at, kernels::DType dtype,
                          int64_t num_pages, int64_t block_size) {
  const int64_t rows = block_size / spec.ratio;
  if (spec.row.is_packed()) {
    return {{at, kernels::DType::kU8, {num_pages, rows, spec.row.packed_bytes()}},
            spec.row};
  }
  return {{at, dtype, {num_pages, rows, spec.row.width}}, spec.row};
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

size_t KvPool::BlockBytes(const model::ModelConfig& config, const PageFormat& format) {
  return PageBytes(config, format, false);
}

size_t KvPool::TailBlockBytes(const model::ModelConfig& config,
                              const PageFormat& format) {
  return PageBytes(config, format, true);
}

absl::StatusOr<KvPool> KvPool::Create(const model::ModelConfig& config,
                                      kernels::KernelBackend* backend,
                                      const Options& options) {
  const std::vector<CacheSpec> specs = DescribeCaches(config, options.dtype);
  TESSERA_RETURN_IF_ERROR(CheckOptions(options, specs));
  TESSERA_RETURN_IF_ERROR(CheckKvCacheDtype(config, options.dtype));
  const kernels::DType dtype = backend->activation_dtype();
  const auto num_pages = [&](const CacheSpec& spec) {
    return spec.in_tail ? options.num_tail_blocks : options.num_blocks;
  };
  const auto bytes_of = [&](const CacheSpec& spec) {
    return AlignUp(
        RowBytes(spec.row, dtype) *
        static_cast<size_t>(num_pages(spec) * options.block_size / spec.ratio));
  };
  size_t bytes = 0;
  for (const CacheSpec& spec : specs) {
    bytes += bytes_of(spec);
  }
  KvPool pool;
  TESSERA_ASSIGN_OR_RETURN(pool.buffer_, backend->Allocate(bytes));
  pool.caches_.resize(static_cast<size_t>(config.num_layers + config.num_draft_layers));
  auto* at = static_cast<std::byte*>(pool.buffer_.data());
  for (const CacheSpec& spec : specs) {
    pool.caches_[static_cast<size_t>(spec.layer)][spec.role] =
        ViewOf(spec, at, dtype, num_pages(spec), options.block_size);
    at += bytes_of(spec);
  }
  return pool;
}

}  // namespace tessera::worker
