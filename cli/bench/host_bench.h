// The host's parts of a step, one at a time and without a model's weights.
//
// It stands under `tessera bench host`, which times them.
#ifndef TESSERA_CLI_BENCH_HOST_BENCH_H_
#define TESSERA_CLI_BENCH_HOST_BENCH_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "coordinator/scheduler/scheduler.h"
#include "kernels/cpu/thread_pool.h"
#include "proto/step_plan.h"

namespace tessera::cli {

// Steady decoding of a number of sequences, answered at once: Plan and Accept of one step
// each, run ahead by one step as in serving. External synchronisation.
class SchedulerSteps {
 public:
  // Errors of Scheduler::Create and Enqueue.
  static absl::StatusOr<std::unique_ptr<SchedulerSteps>> Create(int64_t num_sequences,
                                                                Clock* clock);

  // Seconds of Plan and Accept of one step, on average over `steps`. Errors of Accept.
  absl::StatusOr<double> Run(int64_t steps);

 private:
  SchedulerSteps(std::unique_ptr<coordinator::Scheduler> scheduler, int64_t num_sequences,
                 Clock* clock)
      : scheduler_(std::move(scheduler)),
        lengths_(static_cast<size_t>(num_sequences), 0),
        clock_(clock) {}

  proto::StepResult Answer(const proto::StepPlan& plan);

  const std::unique_ptr<coordinator::Scheduler> scheduler_;
  std::vector<uint32_t> lengths_;  // by slot
  std::deque<proto::StepResult> results_;
  Clock* const clock_;
};

// Seconds in which `pool` hands an empty piece of work to all of its threads and has it
// back, the mean of many.
double HandOverSeconds(kernels::cpu::ThreadPool* pool, Clock* clock);

// Seconds in which a cache line goes from one of two threads to the other and back, by
// loads and stores alone: what a hand-over costs at least. The best of three runs.
double RoundTripSeconds(Clock* clock);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_HOST_BENCH_H_
