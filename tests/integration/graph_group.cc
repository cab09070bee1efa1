#include "tests/integration/graph_group.h"

#include <algorithm>
#include <bit>
#include <thread>

#include "fmt/format.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/cuda/devices/simulated_devices.h"
#include "proto/decode_rows.h"

namespace tessera::testing {
namespace {

using kernels::cuda_sim::SimMachine;

// Runs `body` for each of `count` ranks, each on a thread of its own.
void OnThreads(size_t count, const std::function<void(size_t)>& body) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) {
    threads.emplace_back([&body, i] { body(i); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// The rows of the graph that a step is a launch of; 0: it has to be eager.
uint32_t GraphRowsOf(const ScriptStep& step, uint32_t num_dp_ranks, int64_t num_slots) {
  if (!step.admits.empty()) {
    return 0;
  }
  std::vector<uint32_t> rows(num_dp_ranks);
  for (const uint32_t sequence : step.decodes) {
    ++rows[sequence % num_dp_ranks];
  }
  return std::min(std::bit_ceil(*std::max_element(rows.begin(), rows.end())),
                  static_cast<uint32_t>(num_slots));
}

}  // namespace

std::shared_ptr<SimMachine> MakeGroupMachine(const cli::GroupShape& shape,
                                             uint64_t seed) {
  return std::make_shared<SimMachine>(kernels::cuda_sim::SimOptions{
      .seed = seed, .num_devices = shape.num_ranks(), .check_order = true});
}

GraphGroup::GraphGroup(const Served& served, const cli::GroupShape& shape,
                       const cli::RankOptions& options,
                       std::shared_ptr<SimMachine> machine,
                       std::unique_ptr<kernels::LocalDevices> devices)
    : served_(served),
      shape_(shape),
      options_(options),
      machine_(std::move(machine)),
      devices_(devices != nullptr
                   ? std::move(devices)
                   : kernels::CreateSimulatedDevices(machine_, options_.numerics)),
      plans_(static_cast<size_t>(shape.dp), PlanWriter(&served)) {
  auto ranks = cli::AssembleLocalGroup(*served.model, shape, options, served.engram,
                                       *devices_, Clock::Real());
  EXPECT_TRUE(ranks.ok()) << ranks.status();
  if (ranks.ok()) {
    ranks_ = *std::move(ranks);
  }
}

GraphGroup::~GraphGroup() {
  ranks_.clear();
  EXPECT_TRUE(machine_->status().ok()) << machine_->status();
}

void GraphGroup::CreateRunners(
    const routing::ExpertPlacement& placement,
    const std::function<void(size_t, worker::RunnerOptions&)>& change) {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    cli::AssembledRank& rank = ranks_[i];
    worker::RunnerOptions options = options_.runner;
    options.decode_graphs = true;
    if (change) {
      change(i, options);
    }
    rank.runner = nullptr;
    auto runner =
        worker::ModelRunner::Create(served_.model->config, options, placement,
                                    {.checkpoint = served_.model->checkpoint.get(),
                                     .backend = rank.backend.get(),
                                     .tp = rank.groups.tp.get(),
                                     .ep = rank.groups.ep.get(),
                                     .engram = rank.engram.get(),
                                     .hash = served_.model->hash_or_null(),
                                     .clock = Clock::Real()});
    ASSERT_TRUE(runner.ok()) << runner.status();
    rank.runner = *std::move(runner);
  }
}

routing::ExpertPlacement GraphGroup::StaticPlacement() const {
  return *routing::MakeStaticPlacement(
      static_cast<int>(served_.model->config.moe.num_experts), shape_.num_ranks(), 1);
}

std::vector<absl::Status> GraphGroup::Capture() {
  std::vector<absl::Status> statuses(ranks_.size());
  OnThreads(ranks_.size(),
            [&](size_t i) { statuses[i] = ranks_[i].runner->CaptureDecodeSteps(); });
  return statuses;
}

void GraphGroup::Begin(uint64_t epoch) {
  for (PlanWriter& writer : plans_) {
    writer.Begin(epoch);
  }
}

void GraphGroup::Decode(const std::vector<uint32_t>& sequences) {
  for (const uint32_t sequence : sequences) {
    PlanOf(sequence).Decode({SlotOf(sequence)});
  }
}

void GraphGroup::Admit(uint32_t sequence, uint64_t seed) {
  PlanOf(sequence).Admit(SlotOf(sequence), SlotOf(sequence), seed, kAllLogprobs);
}

GraphGroup::Results GraphGroup::Execute(const std::function<bool(size_t)>& enters) {
  Results results(ranks_.size(), absl::CancelledError("did not enter"));
  OnThreads(ranks_.size(), [&](size_t i) {
    if (!enters || enters(i)) {
      results[i] =
          ranks_[i].runner->Execute(plans_[i / static_cast<size_t>(shape_.tp)].plan());
    }
  });
  for (PlanWriter& writer : plans_) {
    writer.BeginNextStep();
  }
  return results;
}

GraphGroup::Results GraphGroup::Step(const std::function<bool(size_t)>& enters) {
  std::vector<proto::StepPlan> all;
  for (PlanWriter& writer : plans_) {
    all.push_back(writer.plan());
  }
  for (PlanWriter& writer : plans_) {
    writer.plan().decode_rows = proto::DecodeRowsOf(all);
  }
  return Execute(enters);
}

Said RunStep(GraphGroup& group, const ScriptStep& step) {
  for (const uint32_t sequence : step.releases) {
    group.PlanOf(sequence).plan().releases.push_back(group.SlotOf(sequence));
  }
  group.Decode(step.decodes);
  for (const auto& [sequence, seed] : step.admits) {
    group.Admit(sequence, seed);
  }
  for (PlanWriter& writer : group.plans()) {
    writer.plan().reports_expert_counts = step.reports;
  }
  const GraphGroup::Results results = group.Step();
  Said said;
  for (size_t rank = 0; rank < results.size(); ++rank) {
    EXPECT_TRUE(results[rank].ok()) << "rank " << rank << ": " << results[rank].status();
    if (results[rank].ok()) {
      said.graph_rows.push_back(results[rank]->counters.graph_rows);
    }
  }
  for (uint32_t dp_rank = 0; dp_rank < group.num_dp_ranks(); ++dp_rank) {
    const auto& result = results[dp_rank * static_cast<size_t>(group.shape().tp)];
    if (!result.ok()) {
      return said;
    }
    for (const proto::SampledToken& token : result->sampled) {
      const uint32_t sequence = token.slot * group.num_dp_ranks() + dp_rank;
      said.of_sequence[sequence] = token;
      said.of_sequence[sequence].slot = sequence;
    }
    said.expert_counts.resize(
        std::max(said.expert_counts.size(), result->expert_counts.size()));
    for (size_t i = 0; i < result->expert_counts.size(); ++i) {
      said.expert_counts[i] += result->expert_counts[i];
    }
    said.imbalance.push_back(result->counters.expert_imbalance);
    said.num_tokens.push_back(result->counters.num_tokens);
  }
  return said;
}

std::vector<Said> RunAlone(const Served& served, int64_t num_slots,
                           const std::vector<ScriptStep>& script,
                           std::string_view numerics) {
  cli::RankOptions options = DecodeOptions(served, num_slots, false);
  options.numerics = numerics;
  GraphGroup alone(served, {}, options, MakeGroupMachine({}, 1));
  std::vector<Said> said;
  for (const ScriptStep& step : script) {
    said.push_back(RunStep(alone, step));
  }
  return said;
}

void ExpectTheBitsOfOneRank(GraphGroup& group, int64_t num_slots,
                            const std::vector<ScriptStep>& script,
                            const std::vector<Said>& alone) {
  for (size_t i = 0; i < script.size(); ++i) {
    SCOPED_TRACE(fmt::format("step {}", i + 1));
    const Said said = RunStep(group, script[i]);
    EXPECT_EQ(said.of_sequence, alone[i].of_sequence);
    EXPECT_EQ(said.of_sequence.size(),
              script[i].decodes.size() + script[i].admits.size());
    EXPECT_EQ(said.expert_counts, alone[i].expert_counts);
    EXPECT_EQ(
        said.graph_rows,
        std::vector<uint32_t>(group.ranks().size(),
                              GraphRowsOf(script[i], group.num_dp_ranks(), num_slots)));
    if (group.num_dp_ranks() == 1) {
      EXPECT_EQ(said.imbalance, alone[i].imbalance);
      EXPECT_EQ(said.num_tokens, alone[i].num_tokens);
    }
    if (::testing::Test::HasFailure()) {
      return;
    }
  }
}

}  // namespace tessera::testing
