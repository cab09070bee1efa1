#include "cli/bench/host_bench.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/status_macros.h"
#include "coordinator/scheduler/scheduler.h"
#include "kernels/cpu/thread_pool.h"
#include "proto/step_plan.h"

namespace tessera::cli {
namespace {

constexpr int64_t kPromptTokens = 128;
constexpr int64_t kMaxTokens = int64_t{1} << 20;  // no sequence ends
constexpr int32_t kSampledToken = 17;
// Until every prompt is in and the run-ahead is under way.
constexpr int64_t kWarmSteps = 64;
constexpr int64_t kHandOvers = 4096;
constexpr uint32_t kTrips = 4096;
constexpr int kPasses = 3;
// Polls before a thread lets others run: a machine of one core has to get on as well.
constexpr int kPolls = 4096;

void Await(const std::atomic<uint32_t>& number, uint32_t value) {
  for (int polls = 0; number.load(std::memory_order_acquire) != value;) {
    if (++polls == kPolls) {
      std::this_thread::yield();
      polls = 0;
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<SchedulerSteps>> SchedulerSteps::Create(
    int64_t num_sequences, Clock* clock) {
  coordinator::SchedulerOptions options;
  options.max_num_seqs = num_sequences;
  options.max_num_batched_tokens = 8192;
  options.max_model_len = kMaxTokens;
  options.block_size = 64;
  options.num_blocks = int64_t{1} << 17;
  options.max_waiting = num_sequences;
  options.prefix_hash_key = {1, 2};
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<coordinator::Scheduler> scheduler,
                           coordinator::Scheduler::Create(options));
  for (int64_t id = 1; id <= num_sequences; ++id) {
    coordinator::SequenceSpec spec;
    spec.id = static_cast<coordinator::SequenceId>(id);
    spec.tenant = "tenant";
    spec.prompt.assign(static_cast<size_t>(kPromptTokens), static_cast<int32_t>(id));
    spec.max_tokens = kMaxTokens - kPromptTokens;
    spec.sampling.seed = spec.id;
    spec.deadline = absl::InfiniteFuture();
    TESSERA_RETURN_IF_ERROR(scheduler->Enqueue(std::move(spec)));
  }
  auto steps = std::unique_ptr<SchedulerSteps>(
      new SchedulerSteps(std::move(scheduler), num_sequences, clock));
  TESSERA_RETURN_IF_ERROR(steps->Run(kWarmSteps).status());
  return steps;
}

proto::StepResult SchedulerSteps::Answer(const proto::StepPlan& plan) {
  proto::StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  for (const proto::SlotAdmission& admission : plan.admissions) {
    lengths_[admission.slot] = static_cast<uint32_t>(admission.history.size());
  }
  for (const proto::SlotWork& work : plan.work) {
    uint32_t& length = lengths_[work.slot];
    length += work.from_sample ? 1 : static_cast<uint32_t>(work.tokens.size());
    if (work.sample) {
      result.sampled.push_back({.slot = work.slot,
                                .token = kSampledToken,
                                .position = length,
                                .logprob = 0,
                                .top = {}});
    }
  }
  return result;
}

absl::StatusOr<double> SchedulerSteps::Run(int64_t steps) {
  absl::Duration spent;
  for (int64_t i = 0; i < steps; ++i) {
    absl::Time begin = clock_->Now();
    const coordinator::PlannedStep step = scheduler_->Plan(absl::UnixEpoch());
    spent += clock_->Now() - begin;
    results_.push_back(Answer(step.plans.front()));
    if (results_.size() < 2) {
      continue;
    }
    begin = clock_->Now();
    TESSERA_RETURN_IF_ERROR(scheduler_->Accept({&results_.front(), 1}).status());
    spent += clock_->Now() - begin;
    results_.pop_front();
  }
  return absl::ToDoubleSeconds(spent) / static_cast<double>(steps);
}

double HandOverSeconds(kernels::cpu::ThreadPool* pool, Clock* clock) {
  const int threads = pool->num_threads();
  const absl::Time begin = clock->Now();
  for (int64_t i = 0; i < kHandOvers; ++i) {
    pool->ParallelFor(threads, threads, [](int64_t, int64_t, int) {});
  }
  return absl::ToDoubleSeconds(clock->Now() - begin) / static_cast<double>(kHandOvers);
}

double RoundTripSeconds(Clock* clock) {
  double best = std::numeric_limits<double>::infinity();
  for (int pass = 0; pass < kPasses; ++pass) {
    std::atomic<uint32_t> ball = 0;
    std::thread other([&ball] {
      for (uint32_t trip = 0; trip < kTrips; ++trip) {
        Await(ball, 2 * trip + 1);
        ball.store(2 * trip + 2, std::memory_order_release);
      }
    });
    absl::Time begin = clock->Now();
    for (uint32_t trip = 0; trip < kTrips; ++trip) {
      ball.store(2 * trip + 1, std::memory_order_release);
      Await(ball, 2 * trip + 2);
      if (trip == 0) {
        begin = clock->Now();  // The thread runs.
      }
    }
    best = std::min(best, absl::ToDoubleSeconds(clock->Now() - begin) / (kTrips - 1));
    other.join();
  }
  return best;
}

}  // namespace tessera::cli
