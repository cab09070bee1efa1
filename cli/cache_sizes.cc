#include "cli/cache_sizes.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

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

// How the tier's bytes are shared; less than one block where they are too few.
CacheSizes ShareTier(const HostDemand& demand) {
  CacheSizes sizes;
  const bool has_tails = demand.tail_block_bytes > 0;
  const int64_t for_tails = has_tails ? demand.memory_bytes / 2 : 0;
  sizes.num_blocks = demand.num_blocks.value_or((demand.memory_bytes - for_tails) /
                                                std::max<int64_t>(1, demand.block_bytes));
  if (has_tails) {
    sizes.num_tail_blocks =
        demand.memory_bytes == 0 ? sizes.num_blocks : for_tails / demand.tail_block_bytes;
    sizes.num_tail_blocks = std::min(sizes.num_tail_blocks, sizes.num_blocks);
  }
  return sizes;
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

absl::StatusOr<CacheSizes> SizeDiskTier(const HostDemand& demand) {
  const CacheSizes sizes = ShareTier(demand);
  const bool has_tails = demand.tail_block_bytes > 0;
  if (sizes.num_blocks < 1 || (has_tails && sizes.num_tail_blocks < 1)) {
    return InvalidArgumentF(
        "{} bytes of disk, expected at least {} for one block and {} for a tail block: "
        "raise --kv-disk-gib",
        demand.memory_bytes, demand.block_bytes, 2 * demand.tail_block_bytes);
  }
  return sizes;
}

absl::StatusOr<CacheSizes> SizeHostTier(const HostDemand& demand) {
  CacheSizes sizes;
  if (demand.memory_bytes == 0 && demand.num_blocks.value_or(0) == 0) {
    return sizes;
  }
  sizes = ShareTier(demand);
  const bool has_tails = demand.tail_block_bytes > 0;
  if (sizes.num_blocks < 1 || (has_tails && sizes.num_tail_blocks < 1)) {
    return InvalidArgumentF(
        "host memory of {} bytes, expected at least {} for one copy of a block and {} of "
        "a tail block: raise --kv-host-gib",
        demand.memory_bytes, demand.block_bytes, 2 * demand.tail_block_bytes);
  }
  // As doubles: numbers of blocks that the user gives may be absurd.
  const double bytes =
      static_cast<double>(demand.num_ranks) *
      (static_cast<double>(sizes.num_blocks) * static_cast<double>(demand.block_bytes) +
       static_cast<double>(sizes.num_tail_blocks) *
           static_cast<double>(demand.tail_block_bytes));
  if (demand.available_bytes > 0 && bytes > static_cast<double>(demand.available_bytes)) {
    return StatusF(absl::StatusCode::kResourceExhausted,
                   "{} ranks with {} host blocks of {} bytes and {} host tail blocks of "
                   "{} need {:.0f} bytes, the machine has {} available",
                   demand.num_ranks, sizes.num_blocks, demand.block_bytes,
                   sizes.num_tail_blocks, demand.tail_block_bytes, bytes,
                   demand.available_bytes);
  }
  return sizes;
}

int64_t AvailableMemory() {
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    int64_t kib = 0;
    if (words >> name >> kib && name == "MemAvailable:") {
      return kib * 1024;
    }
  }
  return 0;
}

}  // namespace tessera::cli
