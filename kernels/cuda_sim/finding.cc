#include "kernels/cuda_sim/finding.h"

#include <utility>

#include "fmt/format.h"

#include "common/status.h"

namespace tessera::kernels::cuda_sim {

std::string_view FindingKindName(FindingKind kind) {
  switch (kind) {
    case FindingKind::kBadLaunch:
      return "bad launch";
    case FindingKind::kOutOfBounds:
      return "out of bounds";
    case FindingKind::kMisaligned:
      return "misaligned access";
    case FindingKind::kUninitializedRead:
      return "uninitialised read";
    case FindingKind::kRace:
      return "race";
    case FindingKind::kBarrierDivergence:
      return "barrier divergence";
    case FindingKind::kUseAfterFree:
      return "use after free";
    case FindingKind::kStreamDependency:
      return "missing stream dependency";
    case FindingKind::kStaleGraphArgument:
      return "stale graph argument";
    case FindingKind::kPartialCollective:
      return "partial collective";
    case FindingKind::kMismatchedCollective:
      return "mismatched collective";
    case FindingKind::kDeadCommunicator:
      return "use of a dead communicator";
    case FindingKind::kMissingFence:
      return "missing fence";
    case FindingKind::kBadDescriptor:
      return "bad descriptor";
    case FindingKind::kTransactionBytes:
      return "wrong number of bytes";
    case FindingKind::kUnfinished:
      return "unfinished asynchronous work";
    case FindingKind::kReadOnlyMemory:
      return "write to read-only memory";
  }
  return "";
}

std::string Finding::ToString() const {
  if (place.line == 0) {
    return fmt::format("{} in {}: {}", FindingKindName(kind), kernel, detail);
  }
  return fmt::format("{} in {}, block ({}, {}, {}), thread ({}, {}, {}), {}:{}: {}",
                     FindingKindName(kind), kernel, block.x, block.y, block.z, thread.x,
                     thread.y, thread.z, std::string_view(place.file), place.line,
                     detail);
}

void FindingLog::Add(Finding finding) {
  ++total_;
  if (kept_.size() < kMaxKept) {
    kept_.push_back(std::move(finding));
  }
}

absl::Status FindingLog::ToStatus() const {
  if (total_ == 0) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      fmt::format("{} ({} findings)", kept_.front().ToString(), total_));
}

}  // namespace tessera::kernels::cuda_sim
