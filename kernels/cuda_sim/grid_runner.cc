#include "kernels/cuda_sim/grid_runner.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>

#include "fmt/format.h"

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/cuda_sim/sim_thread.h"

namespace tessera::kernels::cuda_sim {
namespace {

// Device code has small frames; a sanitizer makes them several times as large.
constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kSharedAlignment = 1024;
constexpr int kFreshByte = 0xff;
// Copies are not the threads' pace: on average as many steps of threads go by for each.
constexpr size_t kStepsPerCopy = 4;

}  // namespace

struct GridRunner::ThreadState {
  GridRunner* runner = nullptr;
  std::unique_ptr<Fiber> fiber;
  std::optional<SimThread> thread;
  Waiting waiting = Waiting::kNone;
  Place place;  // where it waits
  WarpOp op = WarpOp::kSync;
  uint32_t mask = 0;
  uint64_t value = 0;   // what it brings
  uint32_t source = 0;  // the lane that it asks
  uint64_t result = 0;
  uint32_t barrier = 0;  // that it waits for
  uint32_t parity = 0;
  ProductCall call;
};

GridRunner::GridRunner(AccessChecker* checker)
    : checker_(checker),
      async_(checker),
      shared_storage_(cuda::kMaxSharedBytes + kSharedAlignment) {
  void* begin = shared_storage_.data();
  size_t space = shared_storage_.size();
  shared_begin_ = static_cast<std::byte*>(
      std::align(kSharedAlignment, cuda::kMaxSharedBytes, begin, space));
}

GridRunner::~GridRunner() = default;

absl::Status GridRunner::MakeThreads(size_t count) {
  while (threads_.size() < count) {
    auto state = std::make_unique<ThreadState>();
    state->runner = this;
    TESSERA_ASSIGN_OR_RETURN(state->fiber, Fiber::Create(kStackBytes));
    threads_.push_back(std::move(state));
  }
  return absl::OkStatus();
}

bool GridRunner::CheckShape() {
  const cuda::LaunchConfig& config = checker_->operation().config;
  const uint64_t threads = config.block.count();
  const bool good = threads >= 1 && threads <= cuda::kMaxBlockThreads &&
                    config.block.z <= 64 && config.grid.count() >= 1 &&
                    config.grid.x <= 0x7fffffffU && config.grid.y <= 0xffffU &&
                    config.grid.z <= 0xffffU && config.grid.count() <= 0xffffffffU &&
                    config.shared_bytes <= cuda::kMaxSharedBytes;
  if (!good) {
    checker_->Report(
        FindingKind::kBadLaunch, {}, {},
        fmt::format("grid ({}, {}, {}), block ({}, {}, {}), {} bytes of shared memory",
                    config.grid.x, config.grid.y, config.grid.z, config.block.x,
                    config.block.y, config.block.z, config.shared_bytes));
  }
  return good;
}

absl::Status GridRunner::Run(const KernelBody& body, ScheduleRandom& random) {
  if (!CheckShape()) {
    return absl::OkStatus();
  }
  const cuda::LaunchConfig& config = checker_->operation().config;
  num_threads_ = static_cast<uint32_t>(config.block.count());
  TESSERA_RETURN_IF_ERROR(MakeThreads(num_threads_));
  body_ = &body;
  const auto blocks = static_cast<uint32_t>(config.grid.count());
  std::vector<uint32_t> order(blocks);
  std::iota(order.begin(), order.end(), 0U);
  for (size_t left = blocks; left > 0; --left) {
    std::swap(order[random.Below(left)], order[left - 1]);
    RunBlock(order[left - 1], random);
  }
  return absl::OkStatus();
}

void GridRunner::ThreadMain(void* argument) {
  auto& state = *static_cast<ThreadState*>(argument);
  (*state.runner->body_)(*state.thread);
}

void GridRunner::RunBlock(uint32_t block, ScheduleRandom& random) {
  const cuda::LaunchConfig& config = checker_->operation().config;
  const cuda::Dim3 grid = config.grid;
  const cuda::Dim3 at = {block % grid.x, block / grid.x % grid.y,
                         block / grid.x / grid.y};
  std::memset(shared_begin_, kFreshByte, config.shared_bytes);
  shared_used_ = config.shared_bytes;
  static_offsets_.clear();
  num_waiting_ = 0;
  num_returned_ = 0;
  checker_->BeginBlock(shared_begin_);
  async_.BeginBlock({shared_begin_, config.shared_bytes}, num_threads_);
  ready_.resize(num_threads_);
  std::iota(ready_.begin(), ready_.end(), 0U);
  for (uint32_t i = 0; i < num_threads_; ++i) {
    ThreadState& state = *threads_[i];
    const cuda::Dim3 dims = config.block;
    state.thread.emplace(this, at,
                         cuda::Dim3{i % dims.x, i / dims.x % dims.y, i / dims.x / dims.y},
                         ThreadPosition{.block = block, .thread = i});
    state.waiting = Waiting::kNone;
    state.fiber->Start(&GridRunner::ThreadMain, &state);
  }
  while (!ready_.empty() || async_.num_copies() > 0) {
    const size_t copies = async_.num_copies();
    if (copies > 0 && (ready_.empty() || random.Below(kStepsPerCopy) == 0)) {
      TryReleaseWaiters(async_.Complete(random.Below(copies)));
      continue;
    }
    std::swap(ready_[random.Below(ready_.size())], ready_.back());
    const uint32_t thread = ready_.back();
    ready_.pop_back();
    RunThread(thread);
  }
  if (num_returned_ < num_threads_) {
    ReportStall();
  }
  async_.FinishBlock();
}

void GridRunner::RunThread(uint32_t thread) {
  ThreadState& state = *threads_[thread];
  if (state.fiber->Resume()) {
    state.waiting = Waiting::kReturned;
    ++num_returned_;
    TryReleaseWarp(thread / cuda::kWarpSize);  // lanes need not wait for it any more
    return;
  }
  switch (state.waiting) {
    case Waiting::kBlock:
      ++num_waiting_;
      TryReleaseBlock();
      return;
    case Waiting::kWarp:
      TryReleaseWarp(thread / cuda::kWarpSize);
      return;
    case Waiting::kWarpgroup:
      TryReleaseWarpgroup(thread / kWarpgroupThreads);
      return;
    case Waiting::kBarrier:
    case Waiting::kNone:
    case Waiting::kReturned:
      return;
  }
}

AsyncUnits& GridRunner::async_units() {
  if (!checker_->async_active()) {
    async_.Activate();
    for (uint32_t i = 0; i < num_threads_; ++i) {
      threads_[i]->thread->position().clock = async_.clock(i);
    }
  }
  return async_;
}

void GridRunner::ArriveBarrier(SimThread& thread, uint32_t at, uint32_t bytes,
                               const Place& place) {
  if (async_units().Arrive(thread.position(), at, bytes, place)) {
    TryReleaseWaiters(at);
  }
}

void GridRunner::WaitBarrier(SimThread& thread, uint32_t at, uint32_t parity,
                             const Place& place) {
  if (async_units().HasEnded(thread.position(), at, parity, place)) {
    return;
  }
  ThreadState& state = *threads_[thread.linear_thread()];
  state.waiting = Waiting::kBarrier;
  state.place = place;
  state.barrier = at;
  state.parity = parity;
  state.fiber->Suspend();
}

void GridRunner::TryReleaseWaiters(uint32_t barrier) {
  for (uint32_t i = 0; i < num_threads_; ++i) {
    ThreadState& state = *threads_[i];
    if (state.waiting == Waiting::kBarrier && state.barrier == barrier &&
        async_.HasEnded(state.thread->position(), barrier, state.parity, state.place)) {
      state.waiting = Waiting::kNone;
      ready_.push_back(i);
    }
  }
}

void GridRunner::MeetWarpgroup(SimThread& thread, const ProductCall& call,
                               const Place& place) {
  static_cast<void>(async_units());
  ThreadState& state = *threads_[thread.linear_thread()];
  state.waiting = Waiting::kWarpgroup;
  state.place = place;
  state.call = call;
  state.fiber->Suspend();
}

void GridRunner::TryReleaseWarpgroup(uint32_t group) {
  const uint32_t first = group * kWarpgroupThreads;
  if (first + kWarpgroupThreads > num_threads_) {
    return;  // a stall names it
  }
  std::vector<ProductThread> threads;
  const ThreadState& one = *threads_[first];
  bool same = true;
  for (uint32_t i = first; i < first + kWarpgroupThreads; ++i) {
    ThreadState& state = *threads_[i];
    if (state.waiting != Waiting::kWarpgroup) {
      return;
    }
    same = same && state.call.SameAs(one.call);
    threads.push_back({state.thread->position(), state.call, async_.clock(i)});
  }
  if (same) {
    async_.RunProducts(group, threads, one.place);
  } else {
    checker_->Report(FindingKind::kBarrierDivergence, threads[0].position, one.place,
                     "the threads of a warpgroup make different calls");
  }
  for (uint32_t i = first; i < first + kWarpgroupThreads; ++i) {
    threads_[i]->waiting = Waiting::kNone;
    ready_.push_back(i);
  }
}

std::byte* GridRunner::StaticShared(int id, size_t bytes, size_t alignment) {
  const auto found = static_offsets_.find(id);
  if (found != static_offsets_.end()) {
    return shared_begin_ + found->second;
  }
  const size_t begin = (shared_used_ + alignment - 1) / alignment * alignment;
  TESSERA_CHECK_LE(begin + bytes, size_t{cuda::kMaxSharedBytes});
  static_offsets_[id] = begin;
  shared_used_ = begin + bytes;
  std::memset(shared_begin_ + begin, kFreshByte, bytes);
  return shared_begin_ + begin;
}

void GridRunner::WaitForBlock(SimThread& thread, const Place& place) {
  ThreadState& state = *threads_[thread.linear_thread()];
  state.waiting = Waiting::kBlock;
  state.place = place;
  state.fiber->Suspend();
}

uint64_t GridRunner::MeetWarp(SimThread& thread, WarpOp op, uint32_t mask, uint64_t value,
                              uint32_t source, const Place& place) {
  ThreadState& state = *threads_[thread.linear_thread()];
  state.waiting = Waiting::kWarp;
  state.place = place;
  state.op = op;
  state.mask = mask;
  state.value = value;
  state.source = source;
  state.fiber->Suspend();
  return state.result;
}

void GridRunner::TryReleaseBlock() {
  if (num_waiting_ < num_threads_) {
    return;
  }
  const ThreadState& first = *threads_[0];
  bool one_place = true;
  for (uint32_t i = 0; i < num_threads_; ++i) {
    ThreadState& state = *threads_[i];
    if (one_place && (state.place.line != first.place.line ||
                      std::strcmp(state.place.file, first.place.file) != 0)) {
      one_place = false;
      checker_->Report(
          FindingKind::kBarrierDivergence, state.thread->position(), state.place,
          fmt::format("{} waits at another barrier, {}:{}", checker_->ThreadName(0),
                      first.place.file, first.place.line));
    }
    state.waiting = Waiting::kNone;
    ++state.thread->position().epoch;
    ready_.push_back(i);
  }
  if (checker_->async_active()) {
    async_.Meet(ready_);
  }
  num_waiting_ = 0;
}

// Lanes meet once all lanes of their mask that did not return wait for the same thing.
void GridRunner::TryReleaseWarp(uint32_t warp) {
  const uint32_t first = warp * cuda::kWarpSize;
  const uint32_t end = std::min(first + cuda::kWarpSize, num_threads_);
  for (uint32_t i = first; i < end; ++i) {
    const ThreadState& state = *threads_[i];
    if (state.waiting != Waiting::kWarp) {
      continue;
    }
    bool all = true;
    for (uint32_t lane = 0; first + lane < end; ++lane) {
      const ThreadState& other = *threads_[first + lane];
      const bool named = (state.mask >> lane & 1U) != 0;
      const bool same = other.waiting == Waiting::kWarp && other.op == state.op &&
                        other.mask == state.mask;
      all = all && (!named || same || other.waiting == Waiting::kReturned);
    }
    if (all && (state.mask >> (i - first) & 1U) != 0) {
      ReleaseLanes(first, state.mask);
    }
  }
}

void GridRunner::ReleaseLanes(uint32_t first, uint32_t mask) {
  const uint32_t count = std::min(cuda::kWarpSize, num_threads_ - first);
  uint32_t meeting = 0;
  uint64_t votes = 0;
  uint32_t warp_epoch = 0;
  for (uint32_t lane = 0; lane < count; ++lane) {
    ThreadState& state = *threads_[first + lane];
    if ((mask >> lane & 1U) != 0 && state.waiting == Waiting::kWarp) {
      meeting |= 1U << lane;
      votes |= (state.value & 1U) << lane;
      warp_epoch = std::max(warp_epoch, state.thread->position().warp_epoch);
    }
  }
  for (uint32_t lane = 0; lane < count; ++lane) {
    ThreadState& state = *threads_[first + lane];
    if ((meeting >> lane & 1U) == 0) {
      continue;
    }
    if (state.op == WarpOp::kBallot) {
      state.result = votes;
    } else if (state.op == WarpOp::kSync) {
      state.thread->position().warp_epoch = warp_epoch + 1;
    } else if ((meeting >> state.source & 1U) != 0) {
      state.result = threads_[first + state.source]->value;
    } else {
      state.result = state.value;
      checker_->Report(
          FindingKind::kUninitializedRead, state.thread->position(), state.place,
          fmt::format("shuffle from lane {}, which takes no part", state.source));
    }
    ready_.push_back(first + lane);
  }
  std::vector<uint32_t> met;  // only where clocks want it: most kernels have none
  for (uint32_t lane = 0; lane < count; ++lane) {
    if ((meeting >> lane & 1U) != 0) {
      threads_[first + lane]->waiting = Waiting::kNone;
      if (checker_->async_active() && threads_[first + lane]->op == WarpOp::kSync) {
        met.push_back(first + lane);
      }
    }
  }
  if (!met.empty()) {
    async_.Meet(met);
  }
}

// No thread can go on: names the first that waits, and one that keeps it waiting.
void GridRunner::ReportStall() {
  const auto waits = [](const auto& state) {
    return state->waiting != Waiting::kNone && state->waiting != Waiting::kReturned;
  };
  const auto end = threads_.begin() + num_threads_;
  const auto waiting = std::find_if(threads_.begin(), end, waits);
  const ThreadState& one = **waiting;
  const auto other = std::find_if(threads_.begin(), end, [&](const auto& state) {
    return state->waiting != one.waiting || state->place.line != one.place.line;
  });
  std::string seen = "not all threads of its mask came";
  if (one.waiting == Waiting::kBarrier) {
    seen = async_.Describe(one.barrier);
  } else if (other != end) {
    const std::string name = checker_->ThreadName((*other)->thread->position().thread);
    seen = (*other)->waiting == Waiting::kReturned
               ? fmt::format("{} has returned", name)
               : fmt::format("{} waits at {}:{}", name, (*other)->place.file,
                             (*other)->place.line);
  }
  checker_->Report(
      FindingKind::kBarrierDivergence,
      threads_[static_cast<size_t>(waiting - threads_.begin())]->thread->position(),
      one.place,
      fmt::format("waits for {} that never come: {}",
                  one.waiting == Waiting::kBarrier ? "arrivals" : "threads", seen));
}

}  // namespace tessera::kernels::cuda_sim
