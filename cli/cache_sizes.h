// How many KV blocks and tail blocks a rank gets of its cache memory.
//
// Tail blocks hold what only the next `tail_tokens` positions see (V4: 48 MB for 128
// tokens of V4-Flash in float32, where a KV block is 1.8 MB), KV blocks all that stays.
// The rule where the options say nothing else:
// - The tail pool takes half of the memory, but leaves the KV blocks of one sequence of
//   max_model_len, and is never smaller than what one sequence needs to advance:
//   ceil(tail_tokens / block_size) + 1 blocks.
// - Running sequences hold about so many each, and two steps in flight 2 ceil(max_tokens
// /
//   block_size) together; what they leave keeps the tails of cached prefixes.
// - KV blocks get the rest, up to what all slots could fill; tail blocks what they leave,
//   up to one for each KV block: without the KV block of the same tokens one is of no
//   use.
// A model without tail blocks gives everything to KV blocks.
//
// Host memory (the second tier of the prefix cache) holds copies of both: half of it tail
// blocks where the model keeps them, at most one for each host block.
#ifndef TESSERA_CLI_CACHE_SIZES_H_
#define TESSERA_CLI_CACHE_SIZES_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"

namespace tessera::cli {

struct CacheDemand {
  int64_t memory_bytes = 0;  // of both pools
  int64_t block_bytes = 0;
  int64_t tail_block_bytes = 0;
  int64_t block_size = 0;   // tokens
  int64_t tail_tokens = 0;  // 0: the model keeps no tail blocks
  int64_t max_model_len = 0;
  int64_t max_slots = 0;
  std::optional<int64_t> num_blocks = {};       // the user's word
  std::optional<int64_t> num_tail_blocks = {};  // likewise
};

struct CacheSizes {
  int64_t num_blocks = 0;
  int64_t num_tail_blocks = 0;
};

// kInvalidArgument: too little memory, or too few blocks, for one sequence of
// max_model_len; tail blocks for a model that keeps none.
absl::StatusOr<CacheSizes> SizeCaches(const CacheDemand& demand);

struct HostDemand {
  int64_t memory_bytes = 0;     // of one rank; 0: as the numbers say
  int64_t available_bytes = 0;  // of the machine
  int64_t num_ranks = 1;        // that share it
  int64_t block_bytes = 0;
  int64_t tail_block_bytes = 0;
  std::optional<int64_t> num_blocks = {};  // the user's word
};

// Copies in the host memory of one rank. kInvalidArgument: less memory than one copy of
// each kind; kResourceExhausted: more than the machine has available.
absl::StatusOr<CacheSizes> SizeHostTier(const HostDemand& demand);

// The same on a disk, whose room is known when its files are made.
absl::StatusOr<CacheSizes> SizeDiskTier(const HostDemand& demand);

// Bytes that the machine could give to programs now, by /proc/meminfo; 0 where it cannot
// be read.
int64_t AvailableMemory();

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CACHE_SIZES_H_
