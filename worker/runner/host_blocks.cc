#include "worker/runner/host_blocks.h"

#include <algorithm>
#include <new>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/crc32c.h"
#include "kernels/cache_view.h"
#include "model/formats/dtype.h"

namespace tessera::worker {
namespace {

const char* NameOf(bool tail) { return tail ? "tail block" : "kv block"; }

// Of one block in one cache.
size_t PageBytes(const kernels::TensorView& cache) {
  return model::DTypeBytes(cache.dtype, static_cast<size_t>(cache.dim(1) * cache.dim(2)));
}

}  // namespace

absl::StatusOr<HostBlocks> HostBlocks::Create(const model::ModelConfig& config,
                                              kernels::KernelBackend* backend,
                                              const ModelCaches& caches,
                                              const Options& options) {
  HostBlocks host;
  host.backend_ = backend;
  for (const CacheSpec& spec : DescribeCaches(config, options.dtype)) {
    const kernels::CacheView& cache = caches[static_cast<size_t>(spec.layer)][spec.role];
    Kind& kind = host.kinds_[spec.in_tail ? 1 : 0];
    kind.caches.push_back(cache.rows);
    kind.page_bytes.push_back(PageBytes(cache.rows));
    kind.block_bytes += kind.page_bytes.back();
    kind.num_device = cache.num_blocks();
  }
  const int64_t counts[2] = {options.num_blocks, options.num_tail_blocks};
  for (size_t i = 0; i < 2; ++i) {
    Kind& kind = host.kinds_[i];
    if (counts[i] > 0 && kind.caches.empty()) {
      return InvalidArgumentF("{} host {}s of a model that keeps none", counts[i],
                              NameOf(i == 1));
    }
    const auto count = static_cast<size_t>(counts[i]);
    size_t bytes = 0;
    if (!__builtin_mul_overflow(count, kind.block_bytes, &bytes)) {
      kind.memory.reset(new (std::nothrow) std::byte[bytes]);
    }
    if (kind.memory == nullptr) {
      return StatusF(absl::StatusCode::kResourceExhausted,
                     "no memory for {} host {}s of {} bytes", count, NameOf(i == 1),
                     kind.block_bytes);
    }
    kind.crc.resize(count);
    kind.has_content.resize(count);
  }
  return host;
}

void HostBlocks::Clear(uint64_t epoch) {
  for (Kind& kind : kinds_) {
    kind.has_content.assign(kind.has_content.size(), false);
  }
  disk_done_ = 0;
  if (disk_ != nullptr) {
    disk_->Begin(epoch);
  }
}

void HostBlocks::TakeDisk(proto::StepResult* result) {
  DiskSlots::Done done;
  while (disk_->Take(&done)) {
    Kind& kind = kinds_[done.operation.tail ? 1 : 0];
    if (done.failed) {
      result->disk_failed.push_back(disk_done_);
    } else if (done.fetch) {
      std::copy(done.bytes.begin(), done.bytes.end(),
                kind.Bytes(done.operation.host).begin());
      // The one from the device: what the copy here damages is found as well.
      kind.crc[done.operation.host] = done.crc;
      kind.has_content[done.operation.host] = true;
      result->counters.disk_read_bytes += kind.block_bytes;
    } else {
      result->counters.disk_written_bytes += kind.block_bytes;
    }
    ++disk_done_;
  }
  result->disk_done = disk_done_;
}

absl::Status HostBlocks::CopyDisk(const proto::StepPlan& plan,
                                  proto::StepResult* result) {
  if (disk_ == nullptr) {
    return plan.disk_copies.empty()
               ? absl::OkStatus()
               : InvalidArgumentF(
                     "a plan with disk copies, and this rank was started without a disk");
  }
  TakeDisk(result);
  for (const proto::DiskCopy& copy : plan.disk_copies) {
    Kind& kind = kinds_[copy.tail ? 1 : 0];
    if (copy.host >= kind.crc.size() || (!copy.fetch && !kind.has_content[copy.host])) {
      return InvalidArgumentF(
          "disk copy of host block {} of {}s, expected one of {}, with content to write",
          copy.host, NameOf(copy.tail), kind.crc.size());
    }
    const DiskSlots::Operation operation = {
        .host = copy.host, .slot = copy.slot, .content = copy.content, .tail = copy.tail};
    if (copy.fetch) {
      kind.has_content[copy.host] = false;
      TESSERA_RETURN_IF_ERROR(disk_->Fetch(operation));
    } else {
      TESSERA_RETURN_IF_ERROR(
          disk_->Spill(operation, kind.Bytes(copy.host), kind.crc[copy.host]));
    }
  }
  return absl::OkStatus();
}

absl::Status HostBlocks::Check(const proto::BlockCopy& copy) const {
  const Kind& kind = kinds_[copy.tail ? 1 : 0];
  if (copy.device >= static_cast<uint64_t>(kind.num_device) ||
      copy.host >= kind.crc.size()) {
    return InvalidArgumentF(
        "copy between {} {} and host block {}, expected less than "
        "{} and {}",
        NameOf(copy.tail), copy.device, copy.host, kind.num_device, kind.crc.size());
  }
  return absl::OkStatus();
}

void HostBlocks::Download(kernels::Stream& stream, const Kind& kind, uint32_t device,
                          std::byte* to) const {
  for (size_t i = 0; i < kind.caches.size(); ++i) {
    backend_->Download(stream, kind.caches[i].Rows(device, 1), to);
    to += kind.page_bytes[i];
  }
}

void HostBlocks::Offload(kernels::Stream& stream, const proto::BlockCopy& copy) {
  const Kind& kind = kinds_[copy.tail ? 1 : 0];
  Download(stream, kind, copy.device, kind.Bytes(copy.host).data());
}

absl::Status HostBlocks::Restore(kernels::Stream& stream, const proto::BlockCopy& copy) {
  const Kind& kind = kinds_[copy.tail ? 1 : 0];
  if (!kind.has_content[copy.host]) {
    return InvalidArgumentF("host block {} of a {} has no content to restore", copy.host,
                            NameOf(copy.tail));
  }
  const std::span<const std::byte> bytes = kind.Bytes(copy.host);
  const uint32_t crc = engram_store::Crc32c(bytes);
  if (crc != kind.crc[copy.host]) {
    return DataLossF("host block {} of a {} has crc32c {:08x}, {:08x} was written",
                     copy.host, NameOf(copy.tail), crc, kind.crc[copy.host]);
  }
  const std::byte* at = bytes.data();
  for (size_t i = 0; i < kind.caches.size(); ++i) {
    backend_->Upload(stream, at, kind.caches[i].Rows(copy.device, 1));
    at += kind.page_bytes[i];
  }
  return absl::OkStatus();
}

absl::Status HostBlocks::CheckTransfers(const proto::StepPlan& plan,
                                        const Peers& peers) const {
  if (peers.transfer == nullptr) {
    return InvalidArgumentF("a plan with transfers, and this rank was started without");
  }
  const auto check = [&](const proto::BlockTransfer& transfer, size_t num_blocks) {
    return transfer.block < num_blocks &&
                   transfer.peer < static_cast<uint64_t>(peers.num_dp_ranks)
               ? absl::OkStatus()
               : InvalidArgumentF(
                     "transfer of {} {} with dp rank {}, expected less than {} and {}",
                     NameOf(transfer.tail), transfer.block, transfer.peer, num_blocks,
                     peers.num_dp_ranks);
  };
  for (const proto::BlockTransfer& send : plan.sends) {
    const Kind& kind = kinds_[send.tail ? 1 : 0];
    TESSERA_RETURN_IF_ERROR(check(send, static_cast<size_t>(kind.num_device)));
  }
  for (const proto::BlockTransfer& receive : plan.receives) {
    TESSERA_RETURN_IF_ERROR(check(receive, kinds_[receive.tail ? 1 : 0].crc.size()));
  }
  return absl::OkStatus();
}

absl::Status HostBlocks::Send(kernels::Stream& stream, const proto::StepPlan& plan,
                              const Peers& peers) {
  for (const proto::BlockTransfer& send : plan.sends) {
    const Kind& kind = kinds_[send.tail ? 1 : 0];
    const int to = static_cast<int>(send.peer) * peers.tp_size + peers.tp_rank;
    TESSERA_ASSIGN_OR_RETURN(
        const std::span<std::byte> room,
        peers.transfer->Stage(to, send.id, static_cast<int64_t>(kind.block_bytes)));
    Download(stream, kind, send.block, room.data());
  }
  return plan.sends.empty() ? absl::OkStatus() : stream.Synchronize();
}

absl::Status HostBlocks::Receive(const proto::StepPlan& plan, const Peers& peers) {
  for (const proto::BlockTransfer& receive : plan.receives) {
    Kind& kind = kinds_[receive.tail ? 1 : 0];
    const int from = static_cast<int>(receive.peer) * peers.tp_size + peers.tp_rank;
    TESSERA_ASSIGN_OR_RETURN(
        const ReceivedPayload payload,
        peers.transfer->Take(from, receive.id, static_cast<int64_t>(kind.block_bytes)));
    std::copy(payload.bytes.begin(), payload.bytes.end(),
              kind.Bytes(receive.block).begin());
    // The sender's, so that damage by the copy itself is found as well.
    kind.crc[receive.block] = payload.crc;
    kind.has_content[receive.block] = true;
  }
  return peers.transfer->Finish();
}

absl::Status HostBlocks::Copy(kernels::Stream& stream, const proto::StepPlan& plan,
                              const Peers& peers) {
  for (const auto* copies : {&plan.offloads, &plan.restores}) {
    for (const proto::BlockCopy& copy : *copies) {
      TESSERA_RETURN_IF_ERROR(Check(copy));
    }
  }
  for (const proto::BlockCopy& copy : plan.offloads) {
    Offload(stream, copy);
  }
  if (!plan.offloads.empty()) {
    TESSERA_RETURN_IF_ERROR(stream.Synchronize());
  }
  for (const proto::BlockCopy& copy : plan.offloads) {
    Kind& kind = kinds_[copy.tail ? 1 : 0];
    kind.crc[copy.host] = engram_store::Crc32c(kind.Bytes(copy.host));
    kind.has_content[copy.host] = true;
  }
  if (plan.transfers) {
    TESSERA_RETURN_IF_ERROR(CheckTransfers(plan, peers));
    peers.transfer->Begin(plan.epoch, plan.step);
    TESSERA_RETURN_IF_ERROR(Send(stream, plan, peers));
    TESSERA_RETURN_IF_ERROR(peers.transfer->Exchange());
    TESSERA_RETURN_IF_ERROR(Receive(plan, peers));
  }
  for (const proto::BlockCopy& copy : plan.restores) {
    TESSERA_RETURN_IF_ERROR(Restore(stream, copy));
  }
  return absl::OkStatus();
}

}  // namespace tessera::worker
