#include "cli/cache_sizes.h"

#include <algorithm>

#include "absl/status/status.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/scheduler/block_manager.h"

namespace tessera::cli {
namespace {

int64_t BlocksOfSequence(const CacheDemand& demand) {
  return (demand.max_model_len + demand.block_size - 1) / demand.block_size;
}

int64_t LeastTailBlocks(const CacheDemand& demand) {
  return demand.tail_tokens == 0 ? 0
                                 : coordinator::BlockManager::MinTailBlocks(
                                       demand.tail_tokens, demand.block_size);
}

// Tail blocks before it is known what KV blocks leave.
int64_t FirstTailBlocks(const CacheDemand& demand) {
  if (demand.tail_tokens == 0) {
    return 0;
  }
  const int64_t beside_one_sequence =
      demand.memory_bytes - BlocksOfSequence(demand) * demand.block_bytes;
  return std::max(
      LeastTailBlocks(demand),
      std::min(demand.memory_bytes / 2, beside_one_sequence) / demand.tail_block_bytes);
}

absl::Status Check(const CacheDemand& demand, const CacheSizes& sizes) {
  const int64_t least_tails = LeastTailBlocks(demand);
  if (sizes.num_tail_blocks < least_tails) {
    return InvalidArgumentF(
        "{} tail blocks; one sequence needs {}: raise "
        "--num-tail-blocks",
        sizes.num_tail_blocks, least_tails);
  }
  if (demand.tail_tokens == 0 && sizes.num_tail_blocks != 0) {
    return InvalidArgumentF("--num-tail-blocks {}: the model keeps no tail blocks",
                            sizes.num_tail_blocks);
  }
  if (sizes.num_blocks < BlocksOfSequence(demand)) {
    return InvalidArgumentF(
        "{} KV blocks of {} bytes beside {} tail blocks of {}; one sequence of {} tokens "
        "needs {}: raise --kv-cache-memory-bytes or lower --max-model-len",
        sizes.num_blocks, demand.block_bytes, sizes.num_tail_blocks,
        demand.tail_block_bytes, demand.max_model_len, BlocksOfSequence(demand));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CacheSizes> SizeCaches(const CacheDemand& demand) {
  const int64_t tails = demand.num_tail_blocks.value_or(FirstTailBlocks(demand));
  const int64_t memory =
      std::max<int64_t>(0, demand.memory_bytes - tails * demand.tail_block_bytes);
  CacheSizes sizes;
  sizes.num_blocks = demand.num_blocks.value_or(
      std::min(memory / std::max<int64_t>(1, demand.block_bytes),
               BlocksOfSequence(demand) * demand.max_slots));
  sizes.num_tail_blocks = tails;
  if (demand.tail_tokens > 0 && !demand.num_tail_blocks.has_value()) {
    const int64_t left = (demand.memory_bytes - sizes.num_blocks * demand.block_bytes) /
                         demand.tail_block_bytes;
    const int64_t most = std::max(sizes.num_blocks, LeastTailBlocks(demand));
    sizes.num_tail_blocks = std::min(std::max(tails, left), most);
  }
  TESSERA_RETURN_IF_ERROR(Check(demand, sizes));
  return sizes;
}

}  // namespace tessera::cli
