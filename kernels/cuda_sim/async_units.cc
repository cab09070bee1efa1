#include "kernels/cuda_sim/async_units.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fmt/format.h"

namespace tessera::kernels::cuda_sim {
namespace {

constexpr uint32_t kBarrierBytes = 8;
constexpr uint32_t kMaxArrivals = (1U << 20) - 1;
constexpr int64_t kCopyAlignment = 128;
constexpr uint32_t kMaxWarps = cuda::kMaxBlockThreads / cuda::kWarpSize;

// The part of [0, size) that `count` from `begin` on covers.
struct Cut {
  int64_t from = 0;
  int64_t to = 0;
  Cut(int64_t begin, uint32_t count, uint64_t size)
      : from(std::clamp<int64_t>(begin, 0, static_cast<int64_t>(size))),
        to(std::clamp<int64_t>(begin + count, 0, static_cast<int64_t>(size))) {}
};

}  // namespace

void AsyncUnits::BeginBlock(std::span<std::byte> shared, uint32_t num_threads) {
  shared_ = shared;
  num_threads_ = num_threads;
  barriers_.clear();
  copies_.clear();
  products_.BeginBlock(shared);
}

void AsyncUnits::Activate() {
  checker_.ActivateAsync();
  clocks_.assign(num_threads_, SyncClock());
  for (uint32_t thread = 0; thread < num_threads_; ++thread) {
    clocks_[thread].Set(thread, 1);
  }
}

void AsyncUnits::Meet(std::span<const uint32_t> threads) {
  SyncClock all;
  for (const uint32_t thread : threads) {
    all.Join(clocks_[thread]);
  }
  for (const uint32_t thread : threads) {
    clocks_[thread] = all;
    clocks_[thread].Set(thread, all.Of(thread) + 1);
  }
}

uint32_t AsyncUnits::CopyAgent(const Barrier& barrier) const {
  return num_threads_ + kMaxWarps + static_cast<uint32_t>(&barrier - barriers_.data());
}

// ---- barriers ----

void AsyncUnits::Init(const ThreadPosition& by, uint32_t at, uint32_t arrivals,
                      const Place& place) {
  const bool known =
      std::any_of(barriers_.begin(), barriers_.end(),
                  [&](const Barrier& barrier) { return barrier.at == at; });
  if (known || at % kBarrierBytes != 0 || at + kBarrierBytes > shared_.size() ||
      arrivals == 0 || arrivals > kMaxArrivals) {
    checker_.Report(FindingKind::kBadDescriptor, by, place,
                    fmt::format("a barrier of {} arrivals at byte {}{}", arrivals, at,
                                known ? ", where there is one" : ""));
    return;
  }
  Barrier barrier;
  barrier.at = at;
  barrier.arrivals = arrivals;
  barrier.pending = arrivals;
  barrier.initialised = by.now();
  barriers_.push_back(std::move(barrier));
}

void AsyncUnits::FenceProxy(uint32_t thread) {
  checker_.FenceProxy(thread);
  for (Barrier& barrier : barriers_) {
    barrier.fenced = barrier.fenced || barrier.initialised.agent == thread;
  }
}

AsyncUnits::Barrier* AsyncUnits::Find(const ThreadPosition& by, uint32_t at,
                                      const Place& place) {
  const auto found = std::find_if(barriers_.begin(), barriers_.end(),
                                  [&](const Barrier& other) { return other.at == at; });
  if (found == barriers_.end()) {
    checker_.Report(FindingKind::kBadDescriptor, by, place,
                    fmt::format("byte {} of shared memory holds no barrier", at));
    return nullptr;
  }
  if (!by.clock->Covers(found->initialised)) {
    checker_.Report(FindingKind::kRace, by, place,
                    fmt::format("the barrier at byte {} was initialised by {}, no block "
                                "barrier between",
                                at, checker_.ThreadName(found->initialised.agent)));
  }
  return &*found;
}

bool AsyncUnits::TryEnd(Barrier& barrier, const ThreadPosition& by, const Place& place) {
  const bool over = barrier.pending == 0 && barrier.bytes < 0;
  const bool early =
      barrier.pending == 0 && barrier.bytes == 0 &&
      std::any_of(copies_.begin(), copies_.end(), [&](const Pending& pending) {
        return &barriers_[pending.barrier] == &barrier;
      });
  if ((over || early) && !barrier.damaged) {
    barrier.damaged = true;
    checker_.Report(FindingKind::kTransactionBytes, by, place,
                    fmt::format("{}: its copies bring more bytes than it expects",
                                Describe(barrier.at)));
  }
  if (barrier.pending > 0 || barrier.bytes != 0) {
    return false;
  }
  ++barrier.phase;
  barrier.pending = barrier.arrivals;
  barrier.brought.Join(barrier.arriving);
  barrier.brought.Set(CopyAgent(barrier), barrier.phase);
  barrier.arriving = SyncClock();
  return true;
}

bool AsyncUnits::Arrive(const ThreadPosition& by, uint32_t at, uint32_t bytes,
                        const Place& place) {
  Barrier* const barrier = Find(by, at, place);
  if (barrier == nullptr) {
    return false;
  }
  if (barrier->pending == 0) {
    checker_.Report(FindingKind::kTransactionBytes, by, place,
                    fmt::format("{}: one arrival more than it has", Describe(at)));
    return false;
  }
  SyncClock& mine = clocks_[by.thread];
  barrier->arriving.Join(mine);
  mine.Set(by.thread, mine.Of(by.thread) + 1);
  barrier->bytes += bytes;
  --barrier->pending;
  return TryEnd(*barrier, by, place);
}

bool AsyncUnits::HasEnded(const ThreadPosition& by, uint32_t at, uint32_t parity,
                          const Place& place) {
  const Barrier* const barrier = Find(by, at, place);
  if (barrier == nullptr) {
    return true;
  }
  if (barrier->phase % 2 == parity % 2) {
    return false;
  }
  clocks_[by.thread].Join(barrier->brought);
  return true;
}

std::string AsyncUnits::Describe(uint32_t at) const {
  for (const Barrier& barrier : barriers_) {
    if (barrier.at == at) {
      return fmt::format("barrier at byte {}, phase {}, {} arrivals and {} bytes to come",
                         at, barrier.phase, barrier.pending, barrier.bytes);
    }
  }
  return "no barrier";
}

// ---- copies ----

bool AsyncUnits::CheckSource(const ThreadPosition& by, const TileCopy& copy,
                             const Place& place) {
  const cuda::TileMapShape& shape = copy.map.shape();
  const Cut rows(copy.row, shape.box_rows, shape.rows);
  const Cut cols(copy.col, shape.box_cols, shape.cols);
  const int64_t size = static_cast<int64_t>((shape.rows - 1) * shape.row_bytes +
                                            shape.cols * shape.element_bytes);
  for (int64_t row = rows.from; row < rows.to; ++row) {
    const int64_t begin = row * static_cast<int64_t>(shape.row_bytes);
    for (int64_t at = begin + cols.from * shape.element_bytes;
         at < begin + cols.to * shape.element_bytes;) {
      // In pieces that lie at a multiple of their size.
      int64_t width = 16;
      while (at % width != 0 || at + width > begin + cols.to * shape.element_bytes) {
        width /= 2;
      }
      if (!checker_.Global(by, {shape.data, size, at, width, AccessKind::kRead}, place)) {
        return false;
      }
      at += width;
    }
  }
  return true;
}

bool AsyncUnits::CheckTarget(const ThreadPosition& by, const TileCopy& copy,
                             const Place& place) {
  const int64_t bytes = copy.map.box_bytes();
  if (bytes == 0 || bytes > copy.room ||
      copy.to + bytes > static_cast<int64_t>(shared_.size())) {
    checker_.Report(FindingKind::kOutOfBounds, by, place,
                    fmt::format("a box of {} bytes at byte {} of {} into a span of {}",
                                bytes, copy.to, shared_.size(), copy.room));
    return false;
  }
  if (copy.to % kCopyAlignment != 0) {
    checker_.Report(FindingKind::kMisaligned, by, place,
                    fmt::format("a box at byte {} of shared memory, expected a multiple "
                                "of {}",
                                copy.to, kCopyAlignment));
    return false;
  }
  return true;
}

void AsyncUnits::Issue(const ThreadPosition& by, const TileCopy& copy,
                       const Place& place) {
  Barrier* const barrier = Find(by, copy.barrier, place);
  if (barrier == nullptr || !CheckTarget(by, copy, place) ||
      !CheckSource(by, copy, place)) {
    return;
  }
  if (!barrier->fenced) {
    barrier->fenced = true;  // one finding a barrier
    checker_.Report(FindingKind::kMissingFence, by, place,
                    fmt::format("the barrier at byte {} was initialised without "
                                "fence.proxy.async, which copies need to see it",
                                barrier->at));
  }
  Pending pending;
  pending.copy = copy;
  barrier->last_copy = barrier->phase + 1;
  pending.moment = {CopyAgent(*barrier), barrier->last_copy};
  pending.barrier = static_cast<size_t>(barrier - barriers_.data());
  pending.by = by;
  pending.place = place;
  static_cast<void>(checker_.CopyWrite(by, static_cast<uint32_t>(copy.to),
                                       copy.map.box_bytes(), pending.moment, place));
  copies_.push_back(std::move(pending));
}

void AsyncUnits::Write(const TileCopy& copy) {
  const cuda::TileMapShape& shape = copy.map.shape();
  const auto* const data = static_cast<const std::byte*>(shape.data);
  const uint32_t row_bytes = shape.box_cols * shape.element_bytes;
  for (uint32_t row = 0; row < shape.box_rows; ++row) {
    const int64_t from_row = copy.row + row;
    const bool inside = from_row >= 0 && from_row < static_cast<int64_t>(shape.rows);
    for (uint32_t byte = 0; byte < row_bytes; ++byte) {
      const int64_t col = copy.col + byte / shape.element_bytes;
      const bool within = inside && col >= 0 && col < static_cast<int64_t>(shape.cols);
      const auto linear = static_cast<uint32_t>(copy.to) + row * row_bytes + byte;
      shared_[shape.swizzle == cuda::Swizzle::k128 ? Swizzled(linear) : linear] =
          within ? data[from_row * static_cast<int64_t>(shape.row_bytes) +
                        col * shape.element_bytes + byte % shape.element_bytes]
                 : std::byte{0};
    }
  }
}

uint32_t AsyncUnits::Complete(size_t index) {
  const Pending pending = copies_[index];
  copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(index));
  Write(pending.copy);
  Barrier& barrier = barriers_[pending.barrier];
  barrier.bytes -= pending.copy.map.box_bytes();
  static_cast<void>(TryEnd(barrier, pending.by, pending.place));
  return barrier.at;
}

void AsyncUnits::RunProducts(uint32_t group, std::span<const ProductThread> threads,
                             const Place& place) {
  const uint32_t first_warp = group * kWarpgroupThreads / cuda::kWarpSize;
  products_.Run(group, num_threads_ + first_warp, threads, place);
}

void AsyncUnits::FinishBlock() {
  products_.FinishBlock();
  for (const Barrier& barrier : barriers_) {
    if (barrier.bytes != 0 && !barrier.damaged) {
      checker_.Report(FindingKind::kTransactionBytes, {}, {},
                      fmt::format("{} when its block ends", Describe(barrier.at)));
    }
    const Moment last = {CopyAgent(barrier), barrier.last_copy};
    if (std::none_of(clocks_.begin(), clocks_.end(),
                     [&](const SyncClock& clock) { return clock.Covers(last); }) &&
        barrier.last_copy > 0) {
      checker_.Report(FindingKind::kUnfinished, {}, {},
                      fmt::format("{}: copies that nobody waited for when its block ends",
                                  Describe(barrier.at)));
    }
  }
}

}  // namespace tessera::kernels::cuda_sim
