#include "tests/conformance/fiber_ranks.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "common/check.h"

namespace tessera::testing {
namespace {

// Test macros and formatted messages take more of a stack than kernels do.
constexpr size_t kStackBytes = size_t{512} << 10;

}  // namespace

void FiberRanks::Run(int num_ranks, const std::function<void(int rank)>& body) {
  ranks_.clear();
  ranks_.resize(static_cast<size_t>(num_ranks));  // they stay where they are
  for (int number = 0; number < num_ranks; ++number) {
    Rank& rank = ranks_[static_cast<size_t>(number)];
    auto fiber = kernels::cuda_sim::Fiber::Create(kStackBytes);
    TESSERA_CHECK(fiber.ok());
    rank.fiber = *std::move(fiber);
    rank.body = &body;
    rank.number = number;
    rank.wakes = now_;
    rank.fiber->Start(
        [](void* self) {
          const Rank& own = *static_cast<const Rank*>(self);
          (*own.body)(own.number);
        },
        &rank);
  }
  while ((running_ = Next()) != nullptr) {
    running_->is_done = running_->fiber->Resume();
  }
}

FiberRanks::Rank* FiberRanks::Next() {
  std::vector<Rank*> ready;
  absl::Time first = absl::InfiniteFuture();
  for (const Rank& rank : ranks_) {
    first = rank.is_done ? first : std::min(first, rank.wakes);
  }
  now_ = first == absl::InfiniteFuture() ? now_ : std::max(now_, first);
  for (Rank& rank : ranks_) {
    if (!rank.is_done && rank.wakes <= now_) {
      ready.push_back(&rank);
    }
  }
  return ready.empty() ? nullptr : ready[random_() % ready.size()];
}

void FiberRanks::Sleep(absl::Duration duration) {
  TESSERA_CHECK(duration >= absl::ZeroDuration());
  if (running_ == nullptr) {
    now_ += duration;
    return;
  }
  running_->wakes = now_ + duration;
  running_->fiber->Suspend();
}

}  // namespace tessera::testing
