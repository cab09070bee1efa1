#include "worker/comm/collective_arguments.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/tree_sum.h"

namespace tessera::worker {
namespace {

// The counts, one per rank and none negative, must add up to `bytes` without overflow.
absl::Status CheckCounts(const Communicator& group, std::span<const int64_t> counts,
                         size_t bytes) {
  if (counts.size() != static_cast<size_t>(group.size())) {
    return InvalidArgumentF("{} rank {}: {} counts, expected {}", group.name(),
                            group.rank(), counts.size(), group.size());
  }
  int64_t sum = 0;
  for (const int64_t count : counts) {
    if (count < 0 || __builtin_add_overflow(sum, count, &sum)) {
      return InvalidArgumentF("{} rank {}: a count of {} bytes", group.name(),
                              group.rank(), count);
    }
  }
  if (static_cast<size_t>(sum) != bytes) {
    return InvalidArgumentF("{} rank {}: counts of {} bytes for a buffer of {}",
                            group.name(), group.rank(), sum, bytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckAllReduceArguments(const Communicator& group, kernels::TensorView x) {
  if ((group.size() & (group.size() - 1)) != 0) {
    return InvalidArgumentF("{}: all-reduce over {} ranks, expected a power of two",
                            group.name(), group.size());
  }
  if (!IsSummable(x.dtype)) {
    return InvalidArgumentF("{}: all-reduce of {}, expected F32 or F64", group.name(),
                            model::DTypeName(x.dtype));
  }
  if (!x.is_contiguous()) {
    return InvalidArgumentF("{}: all-reduce of a strided tensor", group.name());
  }
  return absl::OkStatus();
}

absl::Status CheckAllGatherArguments(const Communicator& group, size_t send_bytes,
                                     std::span<const int64_t> counts, size_t recv_bytes) {
  TESSERA_RETURN_IF_ERROR(CheckCounts(group, counts, recv_bytes));
  const int64_t own = counts[static_cast<size_t>(group.rank())];
  if (static_cast<size_t>(own) != send_bytes) {
    return InvalidArgumentF("{} rank {}: sends {} bytes, its count is {}", group.name(),
                            group.rank(), send_bytes, own);
  }
  return absl::OkStatus();
}

absl::Status CheckAllToAllArguments(const Communicator& group, size_t send_bytes,
                                    std::span<const int64_t> send_counts,
                                    std::span<const int64_t> recv_counts) {
  if (recv_counts.size() != static_cast<size_t>(group.size())) {
    return InvalidArgumentF("{} rank {}: room for {} receive counts, expected {}",
                            group.name(), group.rank(), recv_counts.size(), group.size());
  }
  return CheckCounts(group, send_counts, send_bytes);
}

absl::Status CheckRoot(const Communicator& group, int root) {
  if (root < 0 || root >= group.size()) {
    return InvalidArgumentF("{}: root {}, expected 0 to {}", group.name(), root,
                            group.size() - 1);
  }
  return absl::OkStatus();
}

}  // namespace tessera::worker
