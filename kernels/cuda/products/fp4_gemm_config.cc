#include "kernels/cuda/products/fp4_gemm_config.h"

#include <algorithm>

#include "fmt/format.h"

#include "common/check.h"
#include "kernels/cuda/primitives/device_types.h"

namespace tessera::kernels::cuda {
namespace {

// Six of them are in flight (fp4_gemm.cu): 60 KiB of the smallest wide tile, twice what
// an SM must have under way to be given its share of 3.35 TB/s at 1 us of latency.
constexpr uint32_t kMaxStages = 8;

uint32_t StagesOf(const Fp4GemmConfig& config, int64_t inputs) {
  const uint32_t fixed = Fp4FixedBytes(config.consumers, inputs, kMaxStages);
  return std::min(kMaxStages, (kMaxSharedBytes - fixed) /
                                  Fp4StageBytes(config.consumers, config.tile_tokens));
}

}  // namespace

std::string Fp4GemmConfig::ToString() const {
  return fmt::format("{} x {} outputs x tokens, {} stages, {} threads, {} bytes",
                     tile_outputs(), tile_tokens, stages, threads(), shared_bytes);
}

Fp4GemmConfig ChooseFp4Gemm(const Fp8GemmShape& shape) {
  TESSERA_CHECK_LE(shape.inputs, 16 * 1024);
  Fp4GemmConfig config;
  config.tile_tokens = shape.tokens <= 16 ? 16 : 64;
  // As ChooseFp8Gemm has it.
  const int64_t tiles = (shape.outputs + 127) / 128 * shape.groups;
  config.consumers = config.tile_tokens == 16 && tiles < shape.multiprocessors ? 1 : 2;
  config.stages = StagesOf(config, shape.inputs);
  config.shared_bytes =
      config.stages * Fp4StageBytes(config.consumers, config.tile_tokens) +
      Fp4FixedBytes(config.consumers, shape.inputs, config.stages);
  return config;
}

}  // namespace tessera::kernels::cuda
