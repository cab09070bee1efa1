// Runs SchedulerSimulation over many seeds. --seeds=N runs N of them, --seed=N the one
// that a failure printed.
#include "tests/simulation/scheduler_simulation.h"

#include <cstdint>
#include <iostream>

#include "gtest/gtest.h"

#include "tests/simulation/seed_range.h"
#include "tests/testing/status_matchers.h"

namespace tessera::testing {
namespace {

constexpr int kTicks = 150;

void ExpectTiersWork(const SimulationCoverage& total) {
  EXPECT_GT(total.tiers.restored_blocks, static_cast<uint64_t>(total.host_runs));
  EXPECT_GT(total.tiers.offloaded_blocks, 2 * total.tiers.restored_blocks);
  EXPECT_GT(total.tiers.resumed_tokens, Seeds().count);
}

void ExpectDisksWork(const SimulationCoverage& total) {
  const auto runs = static_cast<uint64_t>(total.disk_runs);
  EXPECT_GT(runs, 0u);
  EXPECT_GT(total.tiers.spilled_blocks, 10 * runs);
  EXPECT_GT(total.tiers.fetched_blocks, runs);
  EXPECT_GT(4 * total.tiers.disk_hit_tokens, runs);
  EXPECT_GT(total.tiers.failed_disk_copies, runs);
  EXPECT_GT(total.tiers.disk_waits, runs);
  EXPECT_GT(total.tiers.given_up_disk_waits, 0u);
  EXPECT_GT(total.tiers.disk_waits, 2 * total.tiers.given_up_disk_waits);
}

void ExpectHandOvers(const SimulationCoverage& total) {
  const auto runs = static_cast<uint64_t>(total.role_runs);
  EXPECT_GT(runs, 0u);
  EXPECT_GT(total.hand_overs.sequences, 10 * runs);
  EXPECT_GT(total.hand_overs.given_up, 0u);
  EXPECT_GT(total.hand_overs.blocks, 2 * total.hand_overs.sequences);
  EXPECT_GT(total.hand_overs.recomputed_tokens, 0u);
}

// A simulation in which nothing happens proves nothing.
void ExpectMuchHappens(const SimulationCoverage& total) {
  EXPECT_GT(total.finished, 10 * static_cast<int64_t>(Seeds().count));
  EXPECT_GT(total.expired, 0);
  EXPECT_GT(total.epochs, 0);
  EXPECT_GT(total.probes, 0);
  EXPECT_GT(total.steps_ahead, 0);
  EXPECT_GT(total.dropped_tokens, 0);
  EXPECT_GT(total.preemptions, Seeds().count);
  EXPECT_GT(total.prefix_hit_tokens, Seeds().count);
  EXPECT_GT(total.tail_runs, 0);
  EXPECT_GT(2 * total.tail_hits, total.tail_runs);
  EXPECT_GT(total.tail_chunks, total.tail_runs);
  EXPECT_GT(total.tail_preemptions, static_cast<uint64_t>(total.tail_runs));
  EXPECT_GT(total.shortened_tokens, static_cast<uint64_t>(total.tail_runs));
  ExpectTiersWork(total);
  ExpectDisksWork(total);
  ExpectHandOvers(total);
  EXPECT_GT(total.accepted_drafts, 10 * static_cast<int64_t>(Seeds().count));
  EXPECT_GT(total.planned_drafts, 2 * total.accepted_drafts);
  EXPECT_GT(total.tokens_after_a_stop, 0);
  EXPECT_GT(total.over_quota, total.tenant_runs / 4);
  EXPECT_GT(total.near_quota, 10 * total.tenant_runs);
}

TEST(SchedulerSimulation, KeepsEveryPromiseOfTheScheduler) {
  SimulationCoverage total;
  for (uint64_t seed = Seeds().first; seed < Seeds().end(); ++seed) {
    SchedulerSimulation simulation(seed);
    ASSERT_THAT(simulation.Run(kTicks), IsOk()) << "run again with --seed=" << seed;
    const SimulationCoverage& coverage = simulation.coverage();
    total.tokens += coverage.tokens;
    total.finished += coverage.finished;
    total.cancelled += coverage.cancelled;
    total.expired += coverage.expired;
    total.epochs += coverage.epochs;
    total.probes += coverage.probes;
    total.steps_ahead += coverage.steps_ahead;
    total.dropped_tokens += coverage.dropped_tokens;
    total.preemptions += coverage.preemptions;
    total.prefix_hit_tokens += coverage.prefix_hit_tokens;
    total.tail_runs += coverage.tail_runs;
    total.tail_hits += coverage.tail_hits;
    total.tail_chunks += coverage.tail_chunks;
    total.tail_preemptions += coverage.tail_preemptions;
    total.shortened_tokens += coverage.shortened_tokens;
    total.host_runs += coverage.host_runs;
    total.tiers.Add(coverage.tiers);
    total.disk_runs += coverage.disk_runs;
    total.role_runs += coverage.role_runs;
    total.hand_overs.Add(coverage.hand_overs);
    total.planned_drafts += coverage.planned_drafts;
    total.accepted_drafts += coverage.accepted_drafts;
    total.tokens_after_a_stop += coverage.tokens_after_a_stop;
    total.tenant_runs += coverage.tenant_runs;
    total.over_quota += coverage.over_quota;
    total.near_quota += coverage.near_quota;
  }
  std::cout << Seeds().count << " seeds: " << total.tokens << " tokens, "
            << total.finished << " finished, " << total.cancelled << " cancelled, "
            << total.expired << " expired, " << total.epochs << " epochs, "
            << total.probes << " probes, " << total.steps_ahead << " steps ahead, "
            << total.dropped_tokens << " dropped tokens, " << total.preemptions
            << " preemptions, " << total.prefix_hit_tokens << " prefix hit tokens; "
            << total.tail_runs << " runs with tail blocks: " << total.tail_hits
            << " hits, " << total.tail_chunks << " later chunks, "
            << total.tail_preemptions << " preemptions, " << total.shortened_tokens
            << " shortened tokens; " << total.host_runs
            << " runs with a host tier: " << total.tiers.offloaded_blocks
            << " blocks offloaded, " << total.tiers.restored_blocks << " restored, "
            << total.tiers.host_hit_tokens << " tokens hit there, "
            << total.tiers.resumed_tokens << " resumed, " << total.tiers.recomputed_tokens
            << " recomputed; " << total.disk_runs
            << " runs with a disk tier: " << total.tiers.spilled_blocks
            << " blocks spilled, " << total.tiers.fetched_blocks << " fetched, "
            << total.tiers.failed_disk_copies << " copies failed, "
            << total.tiers.disk_hit_tokens << " tokens hit there, "
            << total.tiers.disk_waits << " waits, " << total.tiers.given_up_disk_waits
            << " given up; " << total.role_runs
            << " runs with prefill ranks: " << total.hand_overs.sequences
            << " sequences handed over, " << total.hand_overs.given_up << " given up, "
            << total.hand_overs.blocks << " blocks; " << total.planned_drafts
            << " drafts planned, " << total.accepted_drafts << " accepted, "
            << total.tokens_after_a_stop << " tokens after a stop; " << total.tenant_runs
            << " runs with tenants: " << total.over_quota << " sequences over a quota, "
            << total.near_quota << " plans near one\n";
  if (Seeds().count >= 50) {
    ExpectMuchHappens(total);
  }
}

}  // namespace
}  // namespace tessera::testing

int main(int argc, char** argv) {
  tessera::testing::InitSimulation(argc, argv);
  return RUN_ALL_TESTS();
}
