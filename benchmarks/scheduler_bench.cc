// The scheduler's own time per step: Plan and Accept of steady decoding at 64 and 256
// sequences, run ahead by one step as in serving, with and without 256 sequences that
// wait behind a full batch; the same beside a prompt of 1M tokens, of 64 tenants; and the
// whole cost of a prompt through the prefix index. Prints; asserts nothing.
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"

#include "common/check.h"
#include "coordinator/scheduler/scheduler.h"

namespace tessera::coordinator {
namespace {

constexpr int64_t kPromptLength = 128;

SchedulerOptions MakeOptions(int64_t num_sequences) {
  SchedulerOptions options;
  options.max_num_seqs = num_sequences;
  options.max_num_batched_tokens = 8192;
  options.max_model_len = int64_t{1} << 20;
  options.block_size = 64;
  options.num_blocks = int64_t{1} << 17;
  options.max_waiting = 512;
  options.prefix_hash_key = {1, 2};
  return options;
}

SequenceSpec MakeSpec(SequenceId id, int64_t prompt_length) {
  SequenceSpec spec;
  spec.id = id;
  spec.tenant = "tenant";
  spec.prompt.assign(static_cast<size_t>(prompt_length), static_cast<int32_t>(id));
  spec.max_tokens = int64_t{1} << 20;
  spec.sampling.seed = id;
  spec.deadline = absl::InfiniteFuture();
  return spec;
}

// Answers a plan as a worker would; positions are counted per slot.
class Answers {
 public:
  explicit Answers(int64_t num_slots) : lengths_(static_cast<size_t>(num_slots), 0) {}

  proto::StepResult Answer(const proto::StepPlan& plan) {
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
                                  .token = 17,
                                  .position = length,
                                  .logprob = 0,
                                  .top = {}});
      }
    }
    return result;
  }

 private:
  std::vector<uint32_t> lengths_;
};

// Only Plan and Accept are timed.
void SteadyDecode(benchmark::State& state) {
  const int64_t num_sequences = state.range(0);
  const int64_t num_waiting = state.range(1);
  std::unique_ptr<Scheduler> scheduler = *Scheduler::Create(MakeOptions(num_sequences));
  for (int64_t id = 1; id <= num_sequences + num_waiting; ++id) {
    TESSERA_CHECK(
        scheduler->Enqueue(MakeSpec(static_cast<SequenceId>(id), kPromptLength)).ok());
  }
  Answers answers(num_sequences);
  std::deque<proto::StepResult> results;
  const auto plan = [&] { return scheduler->Plan(absl::UnixEpoch()); };
  for (int i = 0; i < 16; ++i) {
    results.push_back(answers.Answer(plan().plans[0]));
    if (results.size() == 2) {
      TESSERA_CHECK(scheduler->Accept({&results.front(), 1}).ok());
      results.pop_front();
    }
  }
  for (auto _ : state) {
    PlannedStep step = plan();
    state.PauseTiming();
    TESSERA_CHECK_EQ(step.num_tokens, num_sequences);
    results.push_back(answers.Answer(step.plans[0]));
    state.ResumeTiming();
    auto accepted = scheduler->Accept({&results.front(), 1});
    benchmark::DoNotOptimize(accepted);
    state.PauseTiming();
    TESSERA_CHECK(accepted.ok());
    results.pop_front();
    state.ResumeTiming();
  }
  state.counters["sequences"] = static_cast<double>(num_sequences);
  state.counters["waiting"] = static_cast<double>(num_waiting);
}
BENCHMARK(SteadyDecode)
    ->Args({64, 0})
    ->Args({64, 256})
    ->Args({256, 0})
    ->Args({256, 256})
    ->Iterations(20000)
    ->Unit(benchmark::kMicrosecond);

// 255 decodes and a prompt of 1M tokens in every step, of 64 configured tenants, with 256
// sequences waiting: everything that a busy step decides.
void DecodeBesideALongPrompt(benchmark::State& state) {
  constexpr SequenceId kNumSequences = 256;
  constexpr size_t kNumTenants = 64;
  SchedulerOptions options = MakeOptions(kNumSequences);
  options.max_num_batched_tokens = 512;
  options.prefill_cost_tokens = 65536;
  options.max_waiting = 4096;
  for (size_t i = 0; i < kNumTenants; ++i) {
    TenantPolicy policy;
    policy.name = std::to_string(i);
    options.tenants.push_back(std::move(policy));
  }
  std::unique_ptr<Scheduler> scheduler = *Scheduler::Create(options);
  const auto enqueue = [&](SequenceId id, int64_t prompt_length) {
    SequenceSpec spec = MakeSpec(id, prompt_length);
    spec.tenant = std::to_string(id % kNumTenants);
    TESSERA_CHECK(scheduler->Enqueue(std::move(spec)).ok());
  };
  Answers answers(kNumSequences);
  for (SequenceId id = 1; id < kNumSequences; ++id) {
    enqueue(id, kPromptLength);
  }
  const auto step = [&] {
    const proto::StepResult result =
        answers.Answer(scheduler->Plan(absl::UnixEpoch()).plans[0]);
    TESSERA_CHECK(scheduler->Accept({&result, 1}).ok());
  };
  while (scheduler->stats().num_waiting > 0) {
    step();
  }
  enqueue(kNumSequences, 1'000'000);
  step();
  for (SequenceId id = 1; id <= kNumSequences; ++id) {
    enqueue(kNumSequences + id, kPromptLength);
  }
  int64_t num_prefill_tokens = 0;
  for (auto _ : state) {
    const PlannedStep planned = scheduler->Plan(absl::UnixEpoch());
    state.PauseTiming();
    num_prefill_tokens += planned.num_prefill_tokens;
    const proto::StepResult result = answers.Answer(planned.plans[0]);
    state.ResumeTiming();
    auto accepted = scheduler->Accept({&result, 1});
    benchmark::DoNotOptimize(accepted);
  }
  state.counters["prefill_tokens"] = benchmark::Counter(
      static_cast<double>(num_prefill_tokens), benchmark::Counter::kAvgIterations);
}
BENCHMARK(DecodeBesideALongPrompt)->Iterations(5000)->Unit(benchmark::kMicrosecond);

// Enqueue, match of the whole prompt in the prefix index, admission and Finish, the
// prompt being cached.
void CachedPrompt(benchmark::State& state) {
  const int64_t length = state.range(0);
  SchedulerOptions options = MakeOptions(4);
  options.max_num_batched_tokens = int64_t{1} << 20;
  std::unique_ptr<Scheduler> scheduler = *Scheduler::Create(options);
  Answers answers(4);
  SequenceId id = 1;
  for (auto _ : state) {
    SequenceSpec spec = MakeSpec(id, length);
    spec.prompt.assign(static_cast<size_t>(length), 5);
    TESSERA_CHECK(scheduler->Enqueue(std::move(spec)).ok());
    const PlannedStep step = scheduler->Plan(absl::UnixEpoch());
    const proto::StepResult result = answers.Answer(step.plans[0]);
    TESSERA_CHECK(scheduler->Accept({&result, 1}).ok());
    scheduler->Finish(id++);
  }
  state.counters["tokens"] = static_cast<double>(length);
}
BENCHMARK(CachedPrompt)->Arg(4096)->Arg(65536)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace tessera::coordinator

BENCHMARK_MAIN();
