#include "kernels/cuda/products/fp8_gemm_config.h"

#include <algorithm>

#include "fmt/format.h"

#include "common/status.h"
#include "kernels/cuda/primitives/device_types.h"

namespace tessera::kernels::cuda {
namespace {

// More are never needed: 8 stages of the smallest tile are 81 KiB, three times what an SM
// must have in flight to be given its share of 3.35 TB/s at 1 us of latency.
constexpr uint32_t kMaxStages = 8;
constexpr int64_t kCopyAlignment = 16;
// Weight scales of a tile lie in shared memory beside the stages.
constexpr int64_t kMaxInputs = 128 * 1024;

uint32_t StagesOf(const Fp8GemmConfig& config, int64_t inputs) {
  const uint32_t stage = Fp8StageBytes(config.consumers, config.tile_tokens);
  const uint32_t room = kMaxSharedBytes - Fp8FixedBytes(inputs, kMaxStages);
  return std::min(kMaxStages, room / stage);
}

}  // namespace

std::string Fp8GemmConfig::ToString() const {
  return fmt::format("{} x {} outputs x tokens, {} stages, {} threads, {} bytes",
                     tile_outputs(), tile_tokens, stages, threads(), shared_bytes);
}

Fp8GemmConfig ChooseFp8Gemm(const Fp8GemmShape& shape) {
  Fp8GemmConfig config;
  // A tile's width costs time whether tokens fill it or not.
  config.tile_tokens = shape.tokens <= 16 ? 16 : shape.tokens <= 64 ? 64 : 128;
  // 128 outputs use a token's tile twice; 64 where that leaves processors without work,
  // which only a tile of few tokens is worth.
  const int64_t tiles = (shape.outputs + 127) / 128 * shape.groups;
  config.consumers = config.tile_tokens == 16 && tiles < shape.multiprocessors ? 1 : 2;
  config.stages = StagesOf(config, shape.inputs);
  config.shared_bytes =
      config.stages * Fp8StageBytes(config.consumers, config.tile_tokens) +
      Fp8FixedBytes(shape.inputs, config.stages);
  return config;
}

absl::Status CheckFp8Weight(const WeightView& w) {
  if (w.dtype != model::DType::kF8E4M3 || !w.has_scales() || w.block_rows != kFp8Block ||
      w.block_cols != kFp8Block) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "fp8 product: weights not e4m3 with scales of {0} x {0}", kFp8Block);
  }
  if (w.col_offset % kFp8Block != 0) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "fp8 product: weights cut at column {}, inside a block", w.col_offset);
  }
  if (reinterpret_cast<uintptr_t>(w.data) % kCopyAlignment != 0 ||
      w.row_bytes % kCopyAlignment != 0 || w.cols > kMaxInputs) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "fp8 product: weights {} mod {}, rows of {} inputs {} bytes apart",
                   reinterpret_cast<uintptr_t>(w.data) % kCopyAlignment, kCopyAlignment,
                   w.cols, w.row_bytes);
  }
  return absl::OkStatus();
}

}  // namespace tessera::kernels::cuda
