#include "kernels/cuda_sim/access_checker.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"

namespace tessera::kernels::cuda_sim {
namespace {

constexpr size_t kWordBytes = 4;

std::string_view KindName(AccessKind kind) {
  switch (kind) {
    case AccessKind::kRead:
      return "read";
    case AccessKind::kWrite:
      return "write";
    case AccessKind::kAtomic:
      return "atomic";
  }
  return "";
}

cuda::Dim3 Unflatten(uint64_t linear, const cuda::Dim3& dims) {
  return {static_cast<uint32_t>(linear % dims.x),
          static_cast<uint32_t>(linear / dims.x % dims.y),
          static_cast<uint32_t>(linear / dims.x / dims.y)};
}

// The bytes of word `index` that [begin, end) covers, as a mask.
uint8_t BytesOfWord(size_t index, size_t begin, size_t end) {
  const size_t from = std::max(begin, index * kWordBytes) - index * kWordBytes;
  const size_t to = std::min(end, (index + 1) * kWordBytes) - index * kWordBytes;
  return static_cast<uint8_t>((1U << to) - (1U << from));
}

}  // namespace

void AccessChecker::Begin(Operation operation) {
  operation_ = std::move(operation);
  recent_ = {};
}

void AccessChecker::BeginBlock(const std::byte* shared) {
  shared_ = shared;
  ++block_serial_;
  async_.BeginBlock();
}

std::string AccessChecker::ThreadName(uint32_t thread) const {
  const cuda::Dim3 at = Unflatten(thread, operation_.config.block);
  return fmt::format("thread ({}, {}, {})", at.x, at.y, at.z);
}

void AccessChecker::Report(FindingKind kind, const ThreadPosition& by, const Place& place,
                           std::string detail) {
  if (operation_.in_graph && kind == FindingKind::kUseAfterFree) {
    kind = FindingKind::kStaleGraphArgument;
  }
  findings_.Add({kind, operation_.name, Unflatten(by.block, operation_.config.grid),
                 Unflatten(by.thread, operation_.config.block), place,
                 std::move(detail)});
}

bool AccessChecker::CheckSpan(const ThreadPosition& by, const AccessRange& range,
                              const Place& place) {
  if (range.offset < 0 || range.offset + range.width > range.size) {
    Report(FindingKind::kOutOfBounds, by, place,
           fmt::format("{} of {} bytes at {} of a span of {}", KindName(range.kind),
                       range.width, range.offset, range.size));
    return false;
  }
  const uint64_t address =
      reinterpret_cast<uintptr_t>(range.data) + static_cast<uint64_t>(range.offset);
  const auto width = static_cast<uint64_t>(range.width);
  if (address % width != 0) {
    Report(FindingKind::kMisaligned, by, place,
           fmt::format("{} of {} bytes at an address that is {} mod {}",
                       KindName(range.kind), width, address % width, width));
    return false;
  }
  return true;
}

void AccessChecker::ReportOutside(const ThreadPosition& by, const std::byte* at,
                                  const AccessRange& range, const Place& place) {
  if (memory_.WasRegistered(at)) {
    Report(FindingKind::kUseAfterFree, by, place,
           fmt::format("{} of {} bytes of host memory that is registered no more",
                       KindName(range.kind), range.width));
    return;
  }
  Report(FindingKind::kOutOfBounds, by, place,
         fmt::format("{} of {} bytes outside every allocation", KindName(range.kind),
                     range.width));
}

bool AccessChecker::MayWrite(const Allocation& allocation, const ThreadPosition& by,
                             const AccessRange& range, const Place& place) {
  if (!allocation.read_only || range.kind == AccessKind::kRead) {
    return true;
  }
  Report(FindingKind::kReadOnlyMemory, by, place,
         fmt::format("{} of {} bytes of allocation {}, registered for reads",
                     KindName(range.kind), range.width, allocation.id));
  return false;
}

Allocation* AccessChecker::FindLive(const ThreadPosition& by, const std::byte* at,
                                    const AccessRange& range, const Place& place) {
  for (Allocation* const allocation : recent_) {
    if (allocation != nullptr && allocation->Contains(at) &&
        at + range.width <= allocation->data + allocation->bytes) {
      return MayWrite(*allocation, by, range, place) ? allocation : nullptr;
    }
  }
  Allocation* const found = memory_.Find(at);
  if (found == nullptr || at + range.width > found->data + found->bytes) {
    ReportOutside(by, at, range, place);
    return nullptr;
  }
  if (found->device != kHostMemory && found->device != operation_.device) {
    Report(FindingKind::kOutOfBounds, by, place,
           fmt::format("device {} uses allocation {} of device {}", operation_.device,
                       found->id, found->device));
    return nullptr;
  }
  if (found->state != AllocationState::kLive) {
    Report(
        FindingKind::kUseAfterFree, by, place,
        fmt::format("{} of allocation {} of {} bytes, which is {}", KindName(range.kind),
                    found->id, found->bytes,
                    found->state == AllocationState::kFreed ? "freed" : "not made yet"));
    return nullptr;
  }
  if (!operation_.clock->Covers(found->allocated_by)) {
    Report(FindingKind::kStreamDependency, by, place,
           fmt::format("allocation {} was made on stream {}, which this one did not wait "
                       "for",
                       found->id, found->allocated_by.stream));
  }
  if (!MayWrite(*found, by, range, place)) {
    return nullptr;
  }
  found->NoteUse(operation_.id);
  recent_[next_recent_++ % recent_.size()] = found;
  return found;
}

void AccessChecker::ReportConflict(Conflict conflict, const Access& now,
                                   const Access& other, const ThreadPosition& by,
                                   const Place& place) {
  switch (conflict) {
    case Conflict::kNone:
      return;
    case Conflict::kRace: {
      const cuda::Dim3 block = Unflatten(other.block, operation_.config.grid);
      const bool itself = other.block == now.block && other.thread == now.thread;
      Report(
          FindingKind::kRace, by, place,
          fmt::format("{} against a {} by block ({}, {}, {}), {}{}, no barrier between",
                      KindName(now.kind), KindName(other.kind), block.x, block.y, block.z,
                      ThreadName(other.thread), itself ? " and others" : ""));
      return;
    }
    case Conflict::kStream:
      Report(
          FindingKind::kStreamDependency, by, place,
          fmt::format("{} against a {} of stream {}, operation {}, which stream {} did "
                      "not wait for",
                      KindName(now.kind), KindName(other.kind), other.op.stream,
                      other.op.number, now.op.stream));
      return;
    case Conflict::kUninitialized:
      Report(FindingKind::kUninitializedRead, by, place,
             fmt::format("{} of memory that nobody wrote", KindName(now.kind)));
      return;
  }
}

template <typename WordAt>
void AccessChecker::CheckOrder(const ThreadPosition& by, const AccessRange& range,
                               size_t first, WordKind words, const Place& place,
                               const WordAt& word_at) {
  Access access;
  access.op = operation_.id;
  access.block = by.block;
  access.epoch = by.epoch;
  access.warp_epoch = by.warp_epoch;
  access.thread = static_cast<uint16_t>(by.thread);
  access.kind = range.kind;
  access.clocked = words == WordKind::kShared && async_.active();
  const size_t end = first + static_cast<size_t>(range.width);
  for (size_t i = first / kWordBytes; i * kWordBytes < end; ++i) {
    access.bytes = BytesOfWord(i, first, end);
    ShadowWord& word = word_at(i);
    word.written = words == WordKind::kKnown ? uint8_t{15} : word.written;
    Access other;
    const Conflict conflict = CheckWord(access, *operation_.clock, word, &other);
    if (conflict != Conflict::kNone) {
      ReportConflict(conflict, access, other, by, place);
      return;  // one finding an access
    }
  }
}

bool AccessChecker::Global(const ThreadPosition& by, const AccessRange& range,
                           const Place& place) {
  if (!CheckSpan(by, range, place)) {
    return false;
  }
  const auto* const at = static_cast<const std::byte*>(range.data) + range.offset;
  Allocation* const allocation = FindLive(by, at, range, place);
  if (allocation == nullptr) {
    return false;
  }
  if (check_order_) {
    CheckOrder(by, range, static_cast<size_t>(at - allocation->data),
               KindOf(allocation->device == kHostMemory), place,
               [&](size_t i) -> ShadowWord& { return allocation->shadow.Word(i); });
  }
  return true;
}

bool AccessChecker::Shared(const ThreadPosition& by, const AccessRange& range,
                           const Place& place) {
  if (!CheckSpan(by, range, place)) {
    return false;
  }
  if (!check_order_) {
    return true;
  }
  const auto first = static_cast<size_t>(static_cast<const std::byte*>(range.data) +
                                         range.offset - shared_);
  if (async_.active()) {
    CheckAsync(by, range.kind, first, first + static_cast<size_t>(range.width), place);
  }
  CheckOrder(by, range, first, WordKind::kShared, place,
             [&](size_t i) -> ShadowWord& { return SharedWord(i); });
  return true;
}

ShadowWord& AccessChecker::SharedWord(size_t index) {
  if (index >= shared_words_.size()) {
    shared_words_.resize(index + 1);
  }
  ShadowWord& word = shared_words_[index];
  // A word of another block, which is told by its serial number, is a new word.
  if (word.serial != block_serial_) {
    word = ShadowWord{};
    word.serial = block_serial_;
  }
  return word;
}

void AccessChecker::ForgetOrder(size_t index) {
  ShadowWord& word = SharedWord(index);
  word = ShadowWord{};
  word.serial = block_serial_;
  word.written = 15;
}

bool AccessChecker::ReportAsync(AsyncConflict conflict, std::string_view what,
                                const ThreadPosition& by, const Place& place) {
  switch (conflict) {
    case AsyncConflict::kNone:
      return true;
    case AsyncConflict::kCopyNotWaitedFor:
      Report(
          FindingKind::kRace, by, place,
          fmt::format("{} of what a bulk copy writes, whose barrier was not waited for",
                      what));
      return false;
    case AsyncConflict::kStillRead:
      Report(FindingKind::kRace, by, place,
             fmt::format("{} of a tile whose readers have not said that they are done",
                         what));
      return false;
    case AsyncConflict::kUnordered:
      Report(FindingKind::kRace, by, place,
             fmt::format("{} of what a thread has written, no barrier between", what));
      return false;
    case AsyncConflict::kMissingFence:
      Report(FindingKind::kMissingFence, by, place,
             fmt::format("{} of what a thread wrote without fence.proxy.async", what));
      return false;
  }
  return true;
}

// The clocks decide here, not the barriers of the block.
void AccessChecker::CheckAsync(const ThreadPosition& by, AccessKind kind, size_t first,
                               size_t end, const Place& place) {
  bool quiet = false;  // one finding an access
  for (size_t i = first / kWordBytes; i * kWordBytes < end; ++i) {
    const bool copied = async_.IsCopied(i);
    const WordAccess access = {by.now(), BytesOfWord(i, first, end),
                               kind == AccessKind::kAtomic};
    AsyncConflict conflict = AsyncConflict::kNone;
    if (kind == AccessKind::kRead) {
      conflict = async_.Read(i, access, *by.clock);
    } else {
      conflict = async_.Write(i, access, *by.clock);
      if (copied) {
        ForgetOrder(i);
      }
    }
    quiet = quiet || !ReportAsync(conflict, KindName(kind), by, place);
  }
}

bool AccessChecker::ProductRead(const ThreadPosition& by, uint32_t address,
                                std::span<const Moment> readers, const SyncClock& knows,
                                const Place& place) {
  constexpr uint32_t kBytes = 16;
  if (!check_order_) {
    return true;
  }
  for (size_t i = address / kWordBytes; i * kWordBytes < address + kBytes; ++i) {
    const bool copied = async_.IsCopied(i);
    if (!ReportAsync(async_.Product(i, readers, knows), "product", by, place)) {
      return false;
    }
    if (copied) {
      continue;
    }
    const AccessRange range = {shared_, 0, 0, static_cast<int64_t>(kWordBytes),
                               AccessKind::kRead};
    const uint64_t before = findings_.total();
    CheckOrder(by, range, i * kWordBytes, WordKind::kShared, place,
               [&](size_t word) -> ShadowWord& { return SharedWord(word); });
    if (findings_.total() != before) {
      return false;
    }
  }
  return true;
}

bool AccessChecker::CopyWrite(const ThreadPosition& by, uint32_t address, uint32_t bytes,
                              const Moment& copy, const Place& place) {
  if (!check_order_) {
    return true;
  }
  for (size_t i = address / kWordBytes; i * kWordBytes < address + bytes; ++i) {
    const uint64_t before = findings_.total();
    if (!async_.IsCopied(i)) {
      const AccessRange range = {shared_, 0, 0, static_cast<int64_t>(kWordBytes),
                                 AccessKind::kWrite};
      CheckOrder(by, range, i * kWordBytes, WordKind::kShared, place,
                 [&](size_t word) -> ShadowWord& { return SharedWord(word); });
    }
    ForgetOrder(i);
    if (!ReportAsync(async_.Copy(i, copy, *by.clock), "copy", by, place) ||
        findings_.total() != before) {
      return false;
    }
  }
  return true;
}

bool AccessChecker::CopyRange(const void* data, size_t bytes, AccessKind kind) {
  if (bytes == 0) {
    return true;
  }
  const auto size = static_cast<int64_t>(bytes);
  const AccessRange range = {data, size, 0, size, kind};
  const auto* const at = static_cast<const std::byte*>(data);
  Allocation* const allocation = FindLive({}, at, range, {});
  if (allocation == nullptr) {
    return false;
  }
  if (check_order_) {
    CheckOrder({}, range, static_cast<size_t>(at - allocation->data),
               KindOf(allocation->device == kHostMemory || kind == AccessKind::kRead), {},
               [&](size_t i) -> ShadowWord& { return allocation->shadow.Word(i); });
  }
  return true;
}

void AccessChecker::Free(const void* memory) {
  Allocation* const allocation = memory_.FindUnfreed(memory);
  if (allocation == nullptr) {
    Report(FindingKind::kUseAfterFree, {}, {}, "a second free of the same memory");
    return;
  }
  if (allocation->state == AllocationState::kReserved) {
    Report(FindingKind::kUseAfterFree, {}, {},
           fmt::format("allocation {} is not made yet", allocation->id));
  }
  for (size_t stream = 0; stream < allocation->uses.size(); ++stream) {
    const OpId use = {static_cast<uint16_t>(stream), allocation->uses[stream]};
    if (!operation_.clock->Covers(use)) {
      Report(FindingKind::kStreamDependency, {}, {},
             fmt::format("allocation {} is in use by operation {} of stream {}, which "
                         "stream {} did not wait for",
                         allocation->id, use.number, use.stream, operation_.id.stream));
    }
  }
  memory_.MarkFreed(allocation);
}

}  // namespace tessera::kernels::cuda_sim
