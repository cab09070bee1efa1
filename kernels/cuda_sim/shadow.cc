#include "kernels/cuda_sim/shadow.h"

#include <algorithm>

#include "kernels/cuda/primitives/device_types.h"

namespace tessera::kernels::cuda_sim {

void Clock::Set(uint16_t stream, uint64_t number) {
  if (stream >= numbers_.size()) {
    numbers_.resize(size_t{stream} + 1);
  }
  numbers_[stream] = number;
}

void Clock::Join(const Clock& other) {
  numbers_.resize(std::max(numbers_.size(), other.numbers_.size()));
  for (size_t i = 0; i < other.numbers_.size(); ++i) {
    numbers_[i] = std::max(numbers_[i], other.numbers_[i]);
  }
}

namespace {

bool SameThread(const Access& a, const Access& b) {
  return a.op == b.op && a.block == b.block && a.thread == b.thread;
}

// Whether `before`, which is remembered, and `now` are unordered inside their launch.
// Blocks are never ordered; threads of a block are by a block barrier between, threads of
// a warp also by a warp barrier. Where a block keeps clocks these know more.
bool Races(const Access& before, const Access& now) {
  if (before.op != now.op || SameThread(before, now) ||
      (before.kind == AccessKind::kAtomic && now.kind == AccessKind::kAtomic)) {
    return false;
  }
  if (before.block != now.block) {
    return true;
  }
  if (before.epoch != now.epoch || (before.clocked && now.clocked)) {
    return false;
  }
  const bool same_warp = before.thread / cuda::kWarpSize == now.thread / cuda::kWarpSize;
  return !same_warp || before.warp_epoch >= now.warp_epoch;
}

Conflict ConflictOf(const Access& before, const Access& now, const Clock& clock) {
  if (before.op.number == 0 || (before.bytes & now.bytes) == 0) {
    return Conflict::kNone;
  }
  if (before.op == now.op) {
    return Races(before, now) ? Conflict::kRace : Conflict::kNone;
  }
  return clock.Covers(before.op) ? Conflict::kNone : Conflict::kStream;
}

// What a write meets among the readers. Of several the first is kept: a writer that is
// that one still races the others.
Conflict ReaderConflict(const ShadowWord& word, const Access& now, const Clock& clock) {
  if (word.many_blocks && word.read.op == now.op && (word.read.bytes & now.bytes) != 0) {
    return Conflict::kRace;
  }
  Access reader = word.read;
  if (word.many_readers && SameThread(reader, now)) {
    reader.thread = static_cast<uint16_t>(reader.thread ^ 1U);
  }
  return ConflictOf(reader, now, clock);
}

void RememberRead(const Access& access, ShadowWord& word) {
  const bool same_op = word.read.op == access.op && word.read.bytes == access.bytes;
  word.many_blocks = same_op && (word.many_blocks || word.read.block != access.block);
  if (same_op && word.read.block == access.block && word.read.epoch == access.epoch &&
      word.read.warp_epoch == access.warp_epoch) {
    word.many_readers = word.many_readers || word.read.thread != access.thread;
    return;
  }
  word.read = access;
  word.many_readers = false;
}

}  // namespace

Conflict CheckWord(const Access& access, const Clock& clock, ShadowWord& word,
                   Access* other) {
  const bool writes = access.kind != AccessKind::kRead;
  Conflict conflict = ConflictOf(word.write, access, clock);
  *other = word.write;
  if (conflict == Conflict::kNone && writes) {
    conflict = ReaderConflict(word, access, clock);
    *other = word.read;
  }
  const bool reads = access.kind != AccessKind::kWrite;
  if (conflict == Conflict::kNone && reads &&
      (word.written & access.bytes) != access.bytes) {
    conflict = Conflict::kUninitialized;
  }
  if (writes) {
    word.write = access;
    word.written = static_cast<uint8_t>(word.written | access.bytes);
  } else {
    RememberRead(access, word);
  }
  return conflict;
}

}  // namespace tessera::kernels::cuda_sim
