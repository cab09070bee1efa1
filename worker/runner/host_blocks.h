// HostBlocks: copies of KV blocks and tail blocks of one rank in host memory, as the
// `offloads` and `restores` of step plans ask for. A copy holds the block's page of every
// cache of its kind, in the order of the cache layout, and has a CRC32C, made when it was
// written and checked before it is read back: a block comes back as it left or not at
// all. What other ranks of the group computed comes into the same memory with its
// checksum (`receives`), and leaves from the device (`sends`). With a disk (disk_slots.h)
// copies of copies go to its slots and come back, with the checksum as well. It decides
// nothing and knows no contents: those are the coordinator's.
#ifndef TESSERA_WORKER_RUNNER_HOST_BLOCKS_H_
#define TESSERA_WORKER_RUNNER_HOST_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "proto/step_plan.h"
#include "worker/comm/kv_transfer.h"
#include "worker/layers/cache_layout.h"
#include "worker/runner/disk_slots.h"

namespace tessera::worker {

// Step thread only. The backend and the memory of the caches must outlive it.
class HostBlocks {
 public:
  struct Options {
    int64_t num_blocks = 0;       // in host memory
    int64_t num_tail_blocks = 0;  // likewise
    KvCacheDtype dtype = KvCacheDtype::kActivations;
  };

  // How blocks go to other ranks: rank r of `transfer`'s group is TP rank r % tp_size of
  // DP rank r / tp_size.
  struct Peers {
    KvTransfer* transfer = nullptr;  // null: no plan has transfers
    int tp_rank = 0;
    int tp_size = 1;
    int num_dp_ranks = 1;
  };

  // Reserves the memory, which the system gives as it is written. `caches` are those of
  // KvPool for the same model and dtype. kInvalidArgument: tail blocks for a model that
  // keeps none; kResourceExhausted: the system has too little memory.
  static absl::StatusOr<HostBlocks> Create(const model::ModelConfig& config,
                                           kernels::KernelBackend* backend,
                                           const ModelCaches& caches,
                                           const Options& options);

  // Makes the copies of a plan: all offloads, then what goes to other ranks and comes
  // from them, then all restores. Those of the device may be on their way when it
  // returns, before anything that is enqueued later. Allocates nothing. Collective over
  // the group if the plan has transfers. kInvalidArgument: a block or a peer that does
  // not exist, or a host block without content; kDataLoss: a host block that is not what
  // was written, or a transfer that is not what was sent; kAborted, kDeadlineExceeded:
  // the group.
  absl::Status Copy(kernels::Stream& stream, const proto::StepPlan& plan,
                    const Peers& peers);
  absl::Status Copy(kernels::Stream& stream, const proto::StepPlan& plan) {
    return Copy(stream, plan, {});
  }

  // Forgets all contents: a new epoch. Waits for a disk as DiskSlots::Begin.
  void Clear(uint64_t epoch);

  // Bytes of a block, and of a tail block.
  size_t block_bytes(bool tail) const { return kinds_[tail ? 1 : 0].block_bytes; }

  // Plans may have disk copies from now on.
  void SetDisk(std::unique_ptr<DiskSlots> disk) { disk_ = std::move(disk); }

  // Puts what has come from the disk into its host blocks, hands the disk copies of the
  // plan over, and says in `result` which ones of the epoch are done. Waits for no disk.
  // Before Copy. kInvalidArgument: a block or slot that does not exist, or a host block
  // without content; kResourceExhausted: as DiskSlots.
  absl::Status CopyDisk(const proto::StepPlan& plan, proto::StepResult* result);

  // The bytes of a host block, for tests of damage.
  std::span<std::byte> block(bool tail, uint32_t host) {
    return kinds_[tail ? 1 : 0].Bytes(host);
  }

 private:
  // Blocks, or tail blocks.
  struct Kind {
    std::vector<kernels::TensorView> caches;  // [num_device, rows, width] each
    std::vector<size_t> page_bytes;           // of each cache
    size_t block_bytes = 0;                   // of all pages of a block
    int64_t num_device = 0;
    std::unique_ptr<std::byte[]> memory;  // [num_host, block_bytes]
    std::vector<uint32_t> crc;            // [num_host]
    std::vector<bool> has_content;        // [num_host]

    std::span<std::byte> Bytes(uint32_t host) const {
      return {memory.get() + host * block_bytes, block_bytes};
    }
  };

  HostBlocks() = default;
  absl::Status Check(const proto::BlockCopy& copy) const;
  // The pages of a block, one after the other.
  void Download(kernels::Stream& stream, const Kind& kind, uint32_t device,
                std::byte* to) const;
  void Offload(kernels::Stream& stream, const proto::BlockCopy& copy);
  absl::Status Restore(kernels::Stream& stream, const proto::BlockCopy& copy);
  // Both lists of a plan, before any of them is used.
  absl::Status CheckTransfers(const proto::StepPlan& plan, const Peers& peers) const;
  absl::Status Send(kernels::Stream& stream, const proto::StepPlan& plan,
                    const Peers& peers);
  absl::Status Receive(const proto::StepPlan& plan, const Peers& peers);

  // What the disk says to be done, into its host block.
  void TakeDisk(proto::StepResult* result);

  kernels::KernelBackend* backend_ = nullptr;
  Kind kinds_[2];                    // blocks, tail blocks
  std::unique_ptr<DiskSlots> disk_;  // null: no plan has disk copies
  uint64_t disk_done_ = 0;           // in this epoch
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_HOST_BLOCKS_H_
