// ModelOptions: the options that every subcommand which runs a model shares, spelled as
// users of vLLM type them, and how they become RankOptions.
#ifndef TESSERA_CLI_MODEL_OPTIONS_H_
#define TESSERA_CLI_MODEL_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/loaded_model.h"
#include "cli/numa/numa_options.h"
#include "cli/ranks/rank_assembly.h"
#include "cli/speculative_options.h"

#include "common/option_table.h"
#include "model/config/model_config.h"

namespace tessera::cli {

struct ModelOptions {
  std::string model;
  int tensor_parallel_size = 1;
  std::optional<int> data_parallel_size;
  int workers = 0;         // 0: rank threads in this process
  int ranks_per_node = 0;  // GroupShape
  std::string comm = "in-process";
  std::string backend = "cpu";
  LoadOptions load;
  std::string dtype = "auto";
  std::string kv_cache_dtype = "auto";
  std::string cpu_isa = "auto";
  std::string numerics = "f32";
  int threads_per_rank = 0;  // 0: the machine's cores shared by its ranks
  NumaOptions numa;
  std::optional<int64_t> max_model_len;
  int64_t max_num_seqs = 64;
  int64_t max_num_batched_tokens = 512;
  std::optional<int64_t> block_size;  // absent: the model's
  std::optional<int64_t> num_kv_blocks;
  std::optional<int64_t> num_tail_blocks;
  int64_t kv_cache_memory_bytes = int64_t{256} << 20;  // per rank; see cache_sizes.h
  double kv_host_gib = 0;                              // per rank; 0: no host tier
  std::optional<int64_t> num_host_blocks;
  std::string kv_disk_dir;  // empty: no disk tier
  double kv_disk_gib = 0;   // per rank
  int64_t kv_disk_staging_mib = 64;
  int prefill_ranks = 0;         // of the data-parallel ranks, that only prefill
  int64_t kv_transfer_mib = 64;  // per rank and step, sent and received each
  SpeculativeOptions speculative;
  std::string decode_graphs = "off";
  bool enforce_eager = false;
  std::string exchange_overlap = "auto";
  absl::Duration decode_graph_time = absl::Seconds(60);  // of all captures of a rank
  int64_t decode_graph_mib = 1024;                       // of a rank's device
  absl::Duration collective_timeout = absl::Seconds(30);
  absl::Duration engram_timeout = absl::Seconds(10);
};

// Adds them to `table`; `options` must outlive it. The model is the positional MODEL,
// too.
void AddModelOptions(OptionTable* table, ModelOptions* options);

// tp and dp from the flags: with workers N, dp defaults to N / tp. kInvalidArgument for a
// product that differs from N, a comm that does not fit, prefill ranks without one that
// decodes, or ranks that do not fit the NUMA options.
absl::StatusOr<GroupShape> ShapeOf(const ModelOptions& options);

// Puts this process where the NUMA options of its rank, or its ranks, want it, which may
// set `threads_per_rank`; nothing where they ask for nothing. To be called before threads
// start and weights are read; errors as PlaceProcess and PositionOnHost say.
absl::Status PlaceRank(ModelOptions* options);

// What PlaceRank would say to any of `num_ranks` ranks on this host: a server would start
// them in vain again and again.
absl::Status CheckRankPlacement(const ModelOptions& options, int num_ranks);

// What a rank needs; `ranks_here` share this machine's cores. kInvalidArgument: a value
// that the model or the backend does not allow; kUnimplemented: one that this build
// lacks.
absl::StatusOr<RankOptions> RankOptionsOf(const ModelOptions& options,
                                          const model::ModelConfig& config,
                                          int ranks_here);

// Bytes of what one copy between the caches of a rank and its host tier moves: a block's,
// or a tail block's where that is larger.
int64_t CopyBytes(const model::ModelConfig& config, const RankOptions& rank);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_MODEL_OPTIONS_H_
