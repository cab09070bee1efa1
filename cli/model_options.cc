#include "cli/model_options.h"

#include <algorithm>
#include <cstdint>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/cache_sizes.h"
#include "cli/numa/numa_options.h"
#include "cli/numa/numa_topology.h"
#include "cli/numa/process_placement.h"
#include "cli/ranks/process_group_registry.h"
#include "cli/ranks/rank_assembly.h"
#include "cli/speculative_options.h"

#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "proto/step_convert.h"
#include "worker/layers/cache_layout.h"
#include "worker/runner/disk_slots.h"
#include "worker/runner/kv_pool.h"
#include "worker/runner/weights/weight_loader.h"

namespace tessera::cli {
namespace {

// Of either kind on a rank: as many as BlockManager takes at most, so that their bytes
// can be counted.
constexpr double kMaxBlocks = 2147483648.0;

void AddOtherServersOptions(OptionTable* table) {
  table->Ignore("enable-expert-parallel", false,
                "experts are always parallel over all ranks");
  table->Ignore("enable-chunked-prefill", false, "prefill is always chunked");
  table->Ignore("trust-remote-code", false, "no remote code ever runs");
  table->Ignore("gpu-memory-utilization", true,
                "this backend takes --kv-cache-memory-bytes");
  table->Refuse("chat-template", "the chat encoding comes from the checkpoint");
  table->Refuse("pipeline-parallel-size", "layers are not split over ranks");
  table->Refuse("enable-lora", "adapters are not served");
  table->Refuse("quantization", "the checkpoint's formats are served as they are");
}

void AddKernelOptions(OptionTable* table, ModelOptions* options) {
  table
      ->Add("backend", &options->backend,
            "kernels: cpu, reference, or cuda: a GPU where the build has its code "
            "(TESSERA_CUDA=ON), otherwise a simulated one, correct and thousands of "
            "times slower")
      .OneOf({"cpu", "reference", "cuda"});
  table->Add("cpu-isa", &options->cpu_isa, "instruction set of the cpu backend")
      .OneOf({"auto", "scalar", "avx2", "avx512", "avx512vnni", "amx"});
  table
      ->Add("numerics", &options->numerics,
            "rounding: f32; on cpu int8-g32, inputs of 4-bit experts in 8 bits, or "
            "w8a8-g32, wider weights too; on cuda (and reference) fp8-g128, inputs of "
            "FP8 weights and of experts in FP8, by the tensor cores: compared with no "
            "GPU so far. Each with answers of its own")
      .OneOf({"f32", "int8-g32", "w8a8-g32", "fp8-g128"});
}

void AddGraphOptions(OptionTable* table, ModelOptions* options) {
  table
      ->Add("decode-graphs", &options->decode_graphs,
            "decode steps captured at the start, each then one launch: auto, where the "
            "backend has graphs (cuda) and the group allows it, or off. No bit depends "
            "on it")
      .OneOf({"auto", "off"});
  table->Add("enforce-eager", &options->enforce_eager, "the same as --decode-graphs off");
  table
      ->Add("exchange-overlap", &options->exchange_overlap,
            "on devices, rows on their way to experts of other ranks while others are "
            "computed: auto, the shared expert's, and from 256 rows a rank on those of "
            "two rounds of the exchange, or off. No bit depends on it")
      .OneOf({"auto", "off"});
  table
      ->Add("decode-graph-time", &options->decode_graph_time,
            "what the captures of a rank may take; batch sizes that it leaves run "
            "eagerly, and the log says which")
      .AtLeast(0);
  table
      ->Add("decode-graph-mib", &options->decode_graph_mib,
            "MiB of its device that they may take")
      .Range(0, 1 << 20);
}

void AddCacheOptions(OptionTable* table, ModelOptions* options) {
  table
      ->Add("block-size", &options->block_size,
            "tokens of one KV block; default: the model's, 16 or 128")
      .Range(1, 1024);
  table
      ->Add("num-kv-blocks", &options->num_kv_blocks,
            "KV blocks per rank; default: from --kv-cache-memory-bytes")
      .Range(1, kMaxBlocks);
  table
      ->Add("num-tail-blocks", &options->num_tail_blocks,
            "blocks per rank of rows that only the next tokens see, of models that have "
            "them; default: from --kv-cache-memory-bytes")
      .Range(0, kMaxBlocks);
  table
      ->Add("kv-cache-memory-bytes", &options->kv_cache_memory_bytes,
            "memory of the KV and tail blocks of one rank")
      .AtLeast(1);
  table
      ->Add("kv-host-gib", &options->kv_host_gib,
            "GiB of main memory per rank for cached prefixes and preempted sequences "
            "that the KV blocks have no room for; 0: none")
      .Range(0, 1 << 20);
  table
      ->Add("num-host-blocks", &options->num_host_blocks,
            "the same in blocks per rank, with a tail block each; default: from "
            "--kv-host-gib")
      .Range(0, kMaxBlocks);
  table->Add("kv-disk-dir", &options->kv_disk_dir,
             "folder of a local disk for cached prefixes that main memory has no room "
             "for: a file per rank, which begins empty and goes with the server; empty: "
             "none");
  table
      ->Add("kv-disk-gib", &options->kv_disk_gib,
            "GiB of --kv-disk-dir per rank, taken at the start")
      .Range(0, 1 << 20);
  table
      ->Add("kv-disk-staging-mib", &options->kv_disk_staging_mib,
            "MiB of main memory per rank for what is on its way to that disk or back")
      .Range(1, 1 << 20);
  table
      ->Add("kv-transfer-mib", &options->kv_transfer_mib,
            "MiB of KV blocks that a rank sends to others in one step, and receives, at "
            "most; at least one block; for --prefill-ranks")
      .Range(1, 1 << 20);
}

worker::KvPool::PageFormat PageOf(const RankOptions& rank) {
  return {.activations = rank.dtype,
          .dtype = rank.runner.kv_cache_dtype,
          .block_size = rank.runner.block_size};
}

CacheDemand DemandOf(const ModelOptions& options, const model::ModelConfig& config,
                     const RankOptions& rank) {
  const worker::RunnerOptions& runner = rank.runner;
  const worker::KvPool::PageFormat page = PageOf(rank);
  return {.memory_bytes = options.kv_cache_memory_bytes,
          .block_bytes = static_cast<int64_t>(worker::KvPool::BlockBytes(config, page)),
          .tail_block_bytes =
              static_cast<int64_t>(worker::KvPool::TailBlockBytes(config, page)),
          .block_size = runner.block_size,
          .tail_tokens = config.tail_tokens(),
          .max_model_len = runner.max_model_len,
          .max_slots = runner.max_slots,
          .num_blocks = options.num_kv_blocks,
          .num_tail_blocks = options.num_tail_blocks};
}

absl::Status SizeHost(const ModelOptions& options, const CacheDemand& demand,
                      int ranks_here, worker::RunnerOptions* runner) {
  TESSERA_ASSIGN_OR_RETURN(
      const CacheSizes host,
      SizeHostTier({.memory_bytes = static_cast<int64_t>(options.kv_host_gib *
                                                         static_cast<double>(1 << 30)),
                    .available_bytes = AvailableMemory(),
                    .num_ranks = ranks_here,
                    .block_bytes = demand.block_bytes,
                    .tail_block_bytes = demand.tail_block_bytes,
                    .num_blocks = options.num_host_blocks}));
  runner->num_host_blocks = host.num_blocks;
  runner->num_host_tail_blocks = host.num_tail_blocks;
  return absl::OkStatus();
}

absl::Status CheckDisk(const ModelOptions& options, int64_t num_host_blocks) {
  if (options.kv_disk_dir.empty() != (options.kv_disk_gib == 0)) {
    return InvalidArgumentF(
        "--kv-disk-dir '{}' and --kv-disk-gib {}, expected both or "
        "none of them",
        options.kv_disk_dir, options.kv_disk_gib);
  }
  if (!options.kv_disk_dir.empty() && num_host_blocks == 0) {
    return InvalidArgumentF(
        "--kv-disk-dir {} without main memory, through which blocks come and go: give "
        "--kv-host-gib or --num-host-blocks",
        options.kv_disk_dir);
  }
  if (!options.kv_disk_dir.empty() && options.prefill_ranks > 0) {
    return InvalidArgumentF(
        "--kv-disk-dir {} and --prefill-ranks {}, expected one of "
        "them: both want the same host blocks",
        options.kv_disk_dir, options.prefill_ranks);
  }
  return absl::OkStatus();
}

absl::Status SizeDisk(const ModelOptions& options, const CacheDemand& demand,
                      worker::RunnerOptions* runner) {
  TESSERA_RETURN_IF_ERROR(CheckDisk(options, runner->num_host_blocks));
  if (options.kv_disk_dir.empty()) {
    return absl::OkStatus();
  }
  const auto slot_bytes = [](int64_t bytes) {
    return bytes == 0 ? 0 : worker::DiskSlots::SlotBytes(bytes);
  };
  TESSERA_ASSIGN_OR_RETURN(
      const CacheSizes disk,
      SizeDiskTier({.memory_bytes = static_cast<int64_t>(options.kv_disk_gib *
                                                         static_cast<double>(1 << 30)),
                    .block_bytes = slot_bytes(demand.block_bytes),
                    .tail_block_bytes = slot_bytes(demand.tail_block_bytes)}));
  runner->num_disk_blocks = disk.num_blocks;
  runner->num_disk_tail_blocks = disk.num_tail_blocks;
  runner->kv_disk_dir = options.kv_disk_dir;
  const int64_t largest = std::max(demand.block_bytes, demand.tail_block_bytes);
  runner->max_disk_copies = std::clamp<int64_t>(
      (options.kv_disk_staging_mib << 20) / largest, 1, proto::kMaxDiskCopies);
  return absl::OkStatus();
}

absl::Status CheckNumerics(const RankOptions& rank) {
  const bool is_fp8 = rank.numerics == "fp8-g128";
  if (rank.numerics != "f32" && (rank.backend == "cpu") == is_fp8) {
    return InvalidArgumentF("--numerics {} runs on --backend {} only, got {}",
                            rank.numerics, is_fp8 ? "cuda or reference" : "cpu",
                            rank.backend);
  }
  if (is_fp8 && rank.dtype != model::DType::kF32) {
    return InvalidArgumentF("--numerics {} with --dtype float64, expected float32",
                            rank.numerics);
  }
  return absl::OkStatus();
}

absl::StatusOr<GroupShape> CountRanks(const ModelOptions& options) {
  GroupShape shape;
  shape.tp = options.tensor_parallel_size;
  if (options.workers == 0) {
    if (options.comm != "in-process") {
      return InvalidArgumentF("--comm {} needs --workers", options.comm);
    }
    shape.dp = options.data_parallel_size.value_or(1);
    return shape;
  }
  if (options.comm != "mpi") {
    return InvalidArgumentF("--workers {} needs --comm mpi, got {}", options.workers,
                            options.comm);
  }
  shape.dp = options.data_parallel_size.value_or(options.workers / shape.tp);
  if (shape.num_ranks() != options.workers) {
    return InvalidArgumentF("--workers {}, expected tp {} x dp {} = {}", options.workers,
                            shape.tp, shape.dp, shape.num_ranks());
  }
  return shape;
}

PlacementRequest RequestOf(const ModelOptions& options, const HostPosition& position) {
  return {.numa = options.numa.mode,
          .pin_threads = options.numa.pin_threads,
          .threads_per_rank = options.threads_per_rank,
          .position = position};
}

}  // namespace

void AddModelOptions(OptionTable* table, ModelOptions* options) {
  table->Heading("Model");
  table->Add("model", &options->model, "checkpoint folder").Positional("MODEL");
  AddLoadOptions(table, &options->load);
  table
      ->Add("max-model-len", &options->max_model_len,
            "longest prompt plus output, in tokens; default: what the model was made for")
      .AtLeast(1);
  table
      ->Add("dtype", &options->dtype,
            "activations: auto (float32 on cpu), float32, or float64 on reference")
      .OneOf({"auto", "float32", "float64"});
  table
      ->Add("kv-cache-dtype", &options->kv_cache_dtype,
            "auto: as the activations; fp8: packed rows, about a quarter of the bytes, "
            "with answers of their own (numerics id +kv-fp8)")
      .OneOf({"auto", "fp8"});
  table->Heading("Parallelism");
  table->Add("tensor-parallel-size", &options->tensor_parallel_size, "1, 2, 4 or 8")
      .Short("tp")
      .Range(1, 8);
  table
      ->Add("data-parallel-size", &options->data_parallel_size,
            "tensor-parallel groups with sequences of their own; default 1, or workers / "
            "tp")
      .Short("dp")
      .Range(1, 64);
  table
      ->Add("prefill-ranks", &options->prefill_ranks,
            "of the data-parallel ranks, how many only prefill: they hand the KV blocks "
            "of long prompts to the others, which decode, through their host memory; 0: "
            "every rank does both")
      .Range(0, 63);
  table
      ->Add("workers", &options->workers,
            "worker processes; 0: the ranks are threads of this process")
      .Range(0, 64);
  table
      ->Add("ranks-per-node", &options->ranks_per_node,
            "neighbouring ranks that share a node: expert rows then cross once to each "
            "node and spread inside it; 0: as the hosts of the workers say")
      .Range(0, 64);
  table->Add("comm", &options->comm, "collectives between ranks: in-process or mpi")
      .OneOf({"in-process", "mpi"});
  AddKernelOptions(table, options);
  table
      ->Add("threads-per-rank", &options->threads_per_rank,
            "0: the cores of the machine shared by its ranks; with --numa bind, those of "
            "a node by the ranks on it")
      .Range(0, 1024);
  AddNumaOptions(table, &options->numa);
  table->Heading("Scheduler and cache");
  table
      ->Add("max-num-seqs", &options->max_num_seqs,
            "sequences that run at once, per data-parallel rank")
      // A plan names no other slots.
      .Range(1, static_cast<double>(proto::StepLimits().max_slots));
  table
      ->Add("max-num-batched-tokens", &options->max_num_batched_tokens,
            "tokens of one step, per data-parallel rank")
      .Range(1, 1 << 20);
  AddCacheOptions(table, options);
  AddSpeculativeOptions(table, &options->speculative);
  AddGraphOptions(table, options);
  table->Heading("Deadlines");
  table->Add("collective-timeout", &options->collective_timeout,
             "a collective that takes longer ends the group");
  table->Add("engram-timeout", &options->engram_timeout,
             "a step whose Engram rows take longer ends the group");
  AddOtherServersOptions(table);
}

absl::StatusOr<GroupShape> ShapeOf(const ModelOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(GroupShape shape, CountRanks(options));
  shape.ranks_per_node = options.ranks_per_node;
  if (shape.ranks_per_node > 0 && shape.num_ranks() % shape.ranks_per_node != 0) {
    return InvalidArgumentF("--ranks-per-node {}, expected a divisor of the {} ranks",
                            shape.ranks_per_node, shape.num_ranks());
  }
  if (options.prefill_ranks >= shape.dp && options.prefill_ranks > 0) {
    return InvalidArgumentF(
        "--prefill-ranks {} of {} data-parallel ranks, expected at least one that "
        "decodes",
        options.prefill_ranks, shape.dp);
  }
  TESSERA_RETURN_IF_ERROR(CheckNumaOptions(options.numa, options.backend, options.workers,
                                           shape.num_ranks()));
  return shape;
}

absl::Status PlaceRank(ModelOptions* options) {
  if (!options->numa.asks()) {
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(const HostPosition position, PositionOnHost());
  TESSERA_ASSIGN_OR_RETURN(const int num_threads,
                           PlaceProcess(RequestOf(*options, position), kNumaNodeFolder));
  if (options->threads_per_rank == 0) {
    options->threads_per_rank = num_threads;
  }
  return absl::OkStatus();
}

absl::Status CheckRankPlacement(const ModelOptions& options, int num_ranks) {
  return CheckPlacement(RequestOf(options, {.rank = 0, .num_ranks = num_ranks}),
                        kNumaNodeFolder);
}

absl::StatusOr<RankOptions> RankOptionsOf(const ModelOptions& options,
                                          const model::ModelConfig& config,
                                          int ranks_here) {
  // A server would try in vain to form such a group, again and again.
  TESSERA_RETURN_IF_ERROR(
      worker::CheckTensorParallel(config, options.tensor_parallel_size));
  RankOptions rank;
  rank.backend = options.backend;
  rank.cpu_isa = options.cpu_isa;
  rank.numerics = options.numerics;
  rank.pin_threads = options.numa.pin_threads;
  rank.dtype = options.dtype == "float64" ? model::DType::kF64 : model::DType::kF32;
  if (rank.dtype == model::DType::kF64 && rank.backend != "reference") {
    return InvalidArgumentF("--dtype float64 runs on --backend reference only, got {}",
                            rank.backend);
  }
  TESSERA_RETURN_IF_ERROR(CheckNumerics(rank));
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  rank.num_threads = options.threads_per_rank > 0 ? options.threads_per_rank
                                                  : std::max(1, cores / ranks_here);
  rank.comm.timeout = options.collective_timeout;
  worker::RunnerOptions& runner = rank.runner;
  runner.max_model_len = options.max_model_len.value_or(config.max_positions);
  if (runner.max_model_len > config.max_positions) {
    return InvalidArgumentF("--max-model-len {}, the model was made for {}",
                            runner.max_model_len, config.max_positions);
  }
  runner.max_tokens = options.max_num_batched_tokens;
  runner.max_slots = options.max_num_seqs;
  runner.engram_timeout = options.engram_timeout;
  runner.decode_graphs = options.decode_graphs == "auto" && !options.enforce_eager;
  runner.decode_graph_time = options.decode_graph_time;
  if (options.exchange_overlap == "off") {
    runner.exchange_rounds.reset();
  }
  runner.decode_graph_bytes = options.decode_graph_mib << 20;
  runner.kv_cache_dtype = options.kv_cache_dtype == "fp8"
                              ? worker::KvCacheDtype::kFp8
                              : worker::KvCacheDtype::kActivations;
  TESSERA_RETURN_IF_ERROR(worker::CheckKvCacheDtype(config, runner.kv_cache_dtype));
  TESSERA_ASSIGN_OR_RETURN(runner.num_speculative_tokens,
                           SpeculativeTokensOf(options.speculative, config));
  // A group of such ranks could never be formed either.
  if (runner.num_speculative_tokens > 0 && config.dspark.has_value() &&
      runner.max_tokens < config.dspark->block_size) {
    return InvalidArgumentF(
        "--max-num-batched-tokens {}, a draft block of this model has {} tokens",
        runner.max_tokens, config.dspark->block_size);
  }
  runner.block_size = options.block_size.value_or(config.default_block_size());
  if (runner.block_size % config.block_multiple() != 0) {
    return InvalidArgumentF("--block-size {}, this model needs a multiple of {}",
                            runner.block_size, config.block_multiple());
  }
  const CacheDemand demand = DemandOf(options, config, rank);
  TESSERA_ASSIGN_OR_RETURN(const CacheSizes sizes, SizeCaches(demand));
  runner.num_blocks = sizes.num_blocks;
  runner.num_tail_blocks = sizes.num_tail_blocks;
  TESSERA_RETURN_IF_ERROR(SizeHost(options, demand, ranks_here, &runner));
  TESSERA_RETURN_IF_ERROR(SizeDisk(options, demand, &runner));
  if (options.prefill_ranks > 0) {
    if (runner.num_host_blocks == 0) {
      return InvalidArgumentF(
          "--prefill-ranks {} without host memory, through which blocks are handed over: "
          "give --kv-host-gib or --num-host-blocks",
          options.prefill_ranks);
    }
    rank.prefill_ranks = options.prefill_ranks;
    runner.max_transfers =
        std::max<int64_t>(1, (options.kv_transfer_mib << 20) / CopyBytes(config, rank));
  }
  return rank;
}

int64_t CopyBytes(const model::ModelConfig& config, const RankOptions& rank) {
  const worker::KvPool::PageFormat page = PageOf(rank);
  return static_cast<int64_t>(std::max(worker::KvPool::BlockBytes(config, page),
                                       worker::KvPool::TailBlockBytes(config, page)));
}

}  // namespace tessera::cli
