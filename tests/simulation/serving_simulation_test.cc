// Runs ServingSimulation over many seeds, and over single traces that show what the
// scheduler promises about time. --seeds=N runs N seeds, --seed=N the one that a failure
// printed. Times are simulated, so that nothing here depends on the machine, except the
// ratio of simulated to real time that is printed.
#include "tests/simulation/serving_simulation.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <numeric>
#include <random>

#include "gtest/gtest.h"

#include "tests/simulation/seed_range.h"
#include "tests/testing/status_matchers.h"

namespace tessera::testing {
namespace {

// Options of a large sparse model.
ServingOptions BaseOptions() {
  ServingOptions options;
  options.scheduler.max_num_seqs = 64;
  options.scheduler.max_num_batched_tokens = 512;
  options.scheduler.max_model_len = 8192;
  options.scheduler.block_size = 128;
  options.scheduler.num_blocks = 2048;
  options.scheduler.max_waiting = 256;
  options.scheduler.prefill_cost_tokens = 65536;
  options.scheduler.prefix_hash_key = {7, 11};
  options.trace.max_model_len = options.scheduler.max_model_len;
  return options;
}

class SeededOptions {
 public:
  explicit SeededOptions(uint64_t seed) : random_(seed) {}

  ServingOptions Make(uint64_t seed) {
    ServingOptions options = BaseOptions();
    coordinator::SchedulerOptions& scheduler = options.scheduler;
    scheduler.num_dp_ranks = 1 + static_cast<int64_t>(Draw(3));
    scheduler.max_num_seqs = 1 + static_cast<int64_t>(Draw(24));
    scheduler.max_num_batched_tokens = 16 + static_cast<int64_t>(Draw(500));
    scheduler.block_size = int64_t{16} << Draw(4);
    scheduler.max_model_len = 512 + static_cast<int64_t>(Draw(2000));
    const int64_t least = scheduler.max_model_len / scheduler.block_size + 1;
    scheduler.num_blocks = least * static_cast<int64_t>(1 + Draw(5));
    scheduler.max_waiting = 4 + static_cast<int64_t>(Draw(60));
    scheduler.prefill_cost_tokens =
        Chance(70) ? 64 + static_cast<int64_t>(Draw(4000)) : 0;
    scheduler.enable_prefix_caching = Chance(85);
    scheduler.num_speculative_tokens = Chance(40) ? 1 + static_cast<int64_t>(Draw(5)) : 0;
    if (Chance(40)) {
      scheduler.tail_tokens = 127;
      scheduler.num_tail_blocks = 127 / scheduler.block_size + 3 +
                                  static_cast<int64_t>(Draw(Chance(50) ? 8 : 300));
    }
    if (scheduler.enable_prefix_caching && Chance(50)) {
      scheduler.num_host_blocks = 1 + static_cast<int64_t>(Draw(200));
      scheduler.num_host_tail_blocks =
          scheduler.tail_tokens > 0 ? 1 + static_cast<int64_t>(Draw(100)) : 0;
      scheduler.max_restores = Chance(70) ? 1 + static_cast<int64_t>(Draw(8)) : 0;
      if (Chance(50)) {
        scheduler.num_dp_ranks = 2 + static_cast<int64_t>(Draw(3));
        scheduler.num_prefill_ranks =
            1 +
            static_cast<int64_t>(Draw(static_cast<uint64_t>(scheduler.num_dp_ranks) - 1));
        scheduler.prefill_min_tokens =
            scheduler.block_size + 1 + static_cast<int64_t>(Draw(200));
        scheduler.max_transfers = 1 + static_cast<int64_t>(Draw(Chance(50) ? 4 : 60));
      } else {
        scheduler.num_disk_blocks = 1 + static_cast<int64_t>(Draw(500));
        scheduler.num_disk_tail_blocks =
            scheduler.tail_tokens > 0 ? 1 + static_cast<int64_t>(Draw(300)) : 0;
        scheduler.max_disk_copies = 1 + static_cast<int64_t>(Draw(30));
      }
    }
    options.trace = MakeTraceOptions(seed, scheduler);
    options.time.cost_tokens = 256 + static_cast<double>(Draw(4000));
    options.num_group_failures = Chance(30) ? 1 + static_cast<int>(Draw(2)) : 0;
    return options;
  }

 private:
  uint64_t Draw(uint64_t bound) { return random_() % bound; }
  bool Chance(int percent) { return Draw(100) < static_cast<uint64_t>(percent); }

  TraceOptions MakeTraceOptions(uint64_t seed, coordinator::SchedulerOptions& scheduler) {
    TraceOptions trace;
    trace.seed = seed;
    trace.max_model_len = scheduler.max_model_len;
    trace.kind = static_cast<TraceKind>(Draw(4));
    trace.num_requests = trace.kind == TraceKind::kAgents ? 6 : 30;
    trace.requests_per_second = 2 + static_cast<double>(Draw(60));
    trace.percent_cancelled = Chance(50) ? 10 : 0;
    trace.percent_with_deadline = Chance(60) ? 30 : 0;
    trace.percent_urgent = Chance(40) ? 20 : 0;
    if (Chance(60)) {
      trace.tenants = {"a", "b", "c"};
      scheduler.tenants = {{.name = "a", .weight = 1 + static_cast<double>(Draw(4))},
                           {.name = "b", .weight = 1}};
      if (Chance(50)) {
        scheduler.tenants[0].max_running_tokens =
            scheduler.max_model_len / 2 + static_cast<int64_t>(Draw(4000));
      }
    }
    return trace;
  }

  std::mt19937_64 random_;
};

TEST(ServingSimulation, KeepsEveryPromiseOverManySeeds) {
  ServingReport total;
  uint64_t preemptions = 0;
  uint64_t hits = 0;
  coordinator::HandOverTotals hand_overs;
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t seed = Seeds().first; seed < Seeds().end(); ++seed) {
    ServingSimulation simulation(SeededOptions(seed).Make(seed));
    ASSERT_THAT(simulation.Run(), IsOk()) << "run again with --seed=" << seed;
    const ServingReport& report = simulation.report();
    total.finished += report.finished;
    total.cancelled += report.cancelled;
    total.expired += report.expired;
    total.refused += report.refused;
    total.epochs += report.epochs;
    total.turns += report.turns;
    total.steps += report.steps;
    total.tokens += report.tokens;
    total.accepted_drafts += report.accepted_drafts;
    total.simulated += report.simulated;
    preemptions += report.stats.preemptions;
    hits += report.stats.prefix_hit_tokens;
    hand_overs.Add(report.stats.hand_overs);
  }
  const std::chrono::duration<double> real = std::chrono::steady_clock::now() - begin;
  std::cout << Seeds().count << " seeds: " << total.finished << " finished, "
            << total.cancelled << " cancelled, " << total.expired << " expired, "
            << total.refused << " refused, " << total.turns << " later turns, "
            << total.epochs << " group failures, " << total.steps << " steps, "
            << total.tokens << " tokens, " << total.accepted_drafts
            << " accepted drafts, " << preemptions << " preemptions, " << hits
            << " prefix hit tokens, " << hand_overs.sequences
            << " sequences handed over, " << hand_overs.given_up << " given up; "
            << absl::ToDoubleSeconds(total.simulated) << " s simulated in "
            << real.count()
            << " s: " << absl::ToDoubleSeconds(total.simulated) / real.count()
            << " times real time\n";
  if (Seeds().count >= 100) {
    // A simulation in which nothing happens proves nothing.
    const auto seeds = static_cast<int64_t>(Seeds().count);
    EXPECT_GT(total.finished, 10 * seeds);
    EXPECT_GT(total.cancelled, seeds / 4);
    EXPECT_GT(total.expired, seeds / 4);
    EXPECT_GT(total.refused, seeds / 4);
    EXPECT_GT(total.turns, seeds / 2);
    EXPECT_GT(total.epochs, seeds / 8);
    EXPECT_GT(total.accepted_drafts, seeds);
    EXPECT_GT(preemptions, Seeds().count);
    EXPECT_GT(hits, Seeds().count);
    EXPECT_GT(hand_overs.sequences, Seeds().count);
  }
}

// Short chats, beside one prompt of a million tokens that comes after 2 seconds, or
// without it.
ServingReport RunChats(bool with_long_prompt, int64_t prefill_cost_tokens) {
  ServingOptions options = BaseOptions();
  options.scheduler.max_model_len = int64_t{1} << 20;
  options.scheduler.num_blocks = 10240;
  options.scheduler.prefill_cost_tokens = prefill_cost_tokens;
  options.trace.max_model_len = 8192;
  options.trace.kind = with_long_prompt ? TraceKind::kLong : TraceKind::kChat;
  options.trace.requests_per_second = 8;
  options.trace.num_requests = 2400;
  options.trace.long_prompt = 1'000'000;
  options.trace.long_at = absl::Seconds(2);
  options.stop_after = absl::Seconds(290);
  options.recount_every = 16;
  ServingSimulation simulation(options);
  EXPECT_THAT(simulation.Run(), IsOk());
  return simulation.report();
}

TEST(ServingSimulation, APromptOfAMillionTokensDoesNotDoubleTheOthersGaps) {
  const auto begin = std::chrono::steady_clock::now();
  const ServingReport without = RunChats(false, 65536);
  const ServingReport with = RunChats(true, 65536);
  const std::chrono::duration<double> real = std::chrono::steady_clock::now() - begin;
  const absl::Duration gap = Percentile(without.gaps, 99);
  std::cout << "p99 gap " << absl::FormatDuration(gap) << " without, "
            << absl::FormatDuration(Percentile(with.gaps, 99))
            << " with a prompt of 1M tokens, p99 first token "
            << absl::FormatDuration(Percentile(without.first_times, 99)) << " and "
            << absl::FormatDuration(Percentile(with.first_times, 99))
            << "; its first token after " << absl::FormatDuration(with.long_first_time)
            << "; " << absl::ToDoubleSeconds(without.simulated + with.simulated)
            << " s simulated in " << real.count() << " s\n";
  EXPECT_LT(Percentile(with.gaps, 99), 2 * gap);
  EXPECT_LT(Percentile(with.first_times, 99), 2 * Percentile(without.first_times, 99));
  EXPECT_GT(with.long_first_time, absl::ZeroDuration()) << "it was answered as well";
  // Without the bound on the cost of chunks it is not so.
  EXPECT_GT(Percentile(RunChats(true, 0).gaps, 99), 2 * gap);
}

TEST(ServingSimulation, ALongPromptThatWaitsForBlocksStopsNobodyBehindIt) {
  ServingOptions options = BaseOptions();
  options.scheduler.max_model_len = int64_t{1} << 18;
  options.scheduler.num_blocks = 2400;
  options.trace.kind = TraceKind::kLong;
  options.trace.requests_per_second = 8;
  options.trace.num_requests = 400;
  // The second has no room before the first has ended.
  options.trace.num_long = 2;
  options.trace.long_prompt = 200'000;
  options.recount_every = 16;
  ServingSimulation simulation(options);
  ASSERT_THAT(simulation.Run(), IsOk());
  const ServingReport& report = simulation.report();
  std::cout << "p99 first token "
            << absl::FormatDuration(Percentile(report.first_times, 99))
            << " while a prompt of 200K tokens waits for another; the second's first "
            << absl::FormatDuration(report.long_first_time) << "\n";
  EXPECT_LT(50 * Percentile(report.first_times, 99), report.long_first_time);
}

// Chats beside two prompts of 200K tokens that take turns: where one comes, the other
// must leave for the host, and it comes back from there.
ServingReport RunRestores(bool with_long_prompts, int64_t max_restores) {
  ServingOptions options = BaseOptions();
  options.scheduler.max_model_len = int64_t{1} << 18;
  options.scheduler.num_blocks = 2400;
  options.scheduler.num_host_blocks = 8192;
  options.scheduler.max_restores = max_restores;
  options.trace.kind = with_long_prompts ? TraceKind::kLong : TraceKind::kChat;
  options.trace.requests_per_second = 8;
  options.trace.num_requests = 1200;
  options.trace.num_long = 4;
  options.trace.num_distinct_long = 2;
  options.trace.long_prompt = 200'000;
  options.trace.long_every = absl::Seconds(30);
  options.recount_every = 64;
  ServingSimulation simulation(options);
  EXPECT_THAT(simulation.Run(), IsOk());
  return simulation.report();
}

TEST(ServingSimulation, ALongPrefixFromTheHostStopsNobodysTokens) {
  const auto longest = [](const ServingReport& report) {
    return Percentile(report.gaps, 100);
  };
  const ServingReport without = RunRestores(false, 8);
  const ServingReport bounded = RunRestores(true, 8);
  const ServingReport at_once = RunRestores(true, 0);
  std::cout << "longest gap " << absl::FormatDuration(longest(without)) << " without, "
            << absl::FormatDuration(longest(bounded)) << " beside "
            << bounded.stats.tiers.restored_blocks << " restored blocks, "
            << absl::FormatDuration(longest(at_once)) << " beside "
            << at_once.stats.tiers.restored_blocks
            << " at once; first token of the restored "
            << absl::FormatDuration(bounded.long_first_time) << " and "
            << absl::FormatDuration(at_once.long_first_time) << "\n";
  EXPECT_GT(bounded.stats.tiers.restored_blocks, 2000u);
  EXPECT_LT(longest(bounded), 2 * longest(without));
  EXPECT_GT(longest(at_once), 10 * longest(without)) << "the bound makes the difference";
  // It is worth its time: the first that was computed took longer.
  EXPECT_LT(bounded.long_first_time, absl::Seconds(15));
}

// Chats on four ranks beside a prompt of 500K tokens; of the ranks `num_prefill` only
// prefill.
ServingReport RunRoles(bool with_long_prompt, int64_t num_prefill) {
  ServingOptions options = BaseOptions();
  coordinator::SchedulerOptions& scheduler = options.scheduler;
  scheduler.num_dp_ranks = 4;
  scheduler.max_model_len = int64_t{1} << 19;
  scheduler.num_blocks = 5120;
  scheduler.num_host_blocks = 5120;
  scheduler.max_restores = 8;
  scheduler.num_prefill_ranks = num_prefill;
  scheduler.prefill_min_tokens = 512;
  scheduler.max_transfers = 8;
  options.trace.max_model_len = 8192;
  options.trace.kind = with_long_prompt ? TraceKind::kLong : TraceKind::kChat;
  options.trace.requests_per_second = 16;
  options.trace.num_requests = 1600;
  options.trace.long_prompt = 500'000;
  options.trace.long_at = absl::Seconds(2);
  options.recount_every = 64;
  ServingSimulation simulation(options);
  EXPECT_THAT(simulation.Run(), IsOk());
  return simulation.report();
}

TEST(ServingSimulation, ALongPromptIsHandedOverBesideStreams) {
  const auto show = [](const char* name, const ServingReport& report) {
    std::cout << name << ": p50 and p99 gap "
              << absl::FormatDuration(Percentile(report.gaps, 50)) << ", "
              << absl::FormatDuration(Percentile(report.gaps, 99)) << "; first token "
              << absl::FormatDuration(Percentile(report.first_times, 50)) << ", "
              << absl::FormatDuration(Percentile(report.first_times, 99))
              << "; of the long prompt " << absl::FormatDuration(report.long_first_time)
              << "; " << report.stats.hand_overs.blocks << " blocks handed over\n";
  };
  const ServingReport without = RunRoles(false, 1);
  const ServingReport roles = RunRoles(true, 1);
  const ServingReport mixed = RunRoles(true, 0);
  show("without the long prompt", without);
  show("one of four ranks prefills", roles);
  show("every rank does both", mixed);
  EXPECT_GT(roles.stats.hand_overs.blocks, 500'000u / 128);
  EXPECT_EQ(mixed.stats.hand_overs.blocks, 0u);
  EXPECT_LT(Percentile(roles.gaps, 99), 2 * Percentile(without.gaps, 99));
}

TEST(ServingSimulation, SaturatedTenantsGetTokensInTheRatioOfTheirWeights) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    ServingOptions options = BaseOptions();
    options.scheduler.max_num_seqs = 16;
    options.scheduler.max_waiting = 20000;
    options.scheduler.tenants = {{.name = "a", .weight = 1},
                                 {.name = "b", .weight = 2},
                                 {.name = "c", .weight = 4}};
    options.trace.seed = seed;
    options.trace.tenants = {"a", "b", "c"};
    options.trace.requests_per_second = 200;
    options.trace.num_requests = 3000;
    options.stop_after = absl::Seconds(60);
    options.recount_every = 16;
    ServingSimulation simulation(options);
    ASSERT_THAT(simulation.Run(), IsOk()) << "seed " << seed;
    const std::vector<coordinator::TenantStats>& tenants =
        simulation.report().stats.tenants;
    // Virtual times drift apart by what runs at once at most, 16 sequences, of which
    // this time sees some hundreds.
    const double unit = static_cast<double>(tenants[0].scheduled_tokens);
    for (size_t i = 0; i < tenants.size(); ++i) {
      ASSERT_GT(tenants[i].num_waiting, 0) << "seed " << seed << " tenant " << i;
      const double weight = options.scheduler.tenants[i].weight;
      const double time = static_cast<double>(tenants[i].scheduled_tokens) / weight;
      EXPECT_NEAR(time / unit, 1, 0.2) << "seed " << seed << " tenant " << i;
    }
  }
}

TEST(ServingSimulation, AFloodOfOneTenantRefusesNobodyElseAndDelaysThemLittle) {
  const auto run = [](bool flood) {
    ServingOptions options = BaseOptions();
    options.scheduler.max_waiting = 64;
    options.trace.tenants = {"polite"};
    options.trace.requests_per_second = 2;
    options.trace.num_requests = 100;
    if (flood) {
      // One in fifty is the polite tenant's, at the same rate.
      options.trace.tenants.assign(50, "flood");
      options.trace.tenants.front() = "polite";
      options.trace.requests_per_second = 100;
      options.trace.num_requests = 5000;
    }
    ServingSimulation simulation(options);
    EXPECT_THAT(simulation.Run(), IsOk());
    return simulation.report();
  };
  ServingReport alone = run(false);
  ServingReport beside = run(true);
  const absl::Duration before = Percentile(alone.tenants["polite"].first_times, 99);
  const absl::Duration after = Percentile(beside.tenants["polite"].first_times, 99);
  const absl::Duration flood = Percentile(beside.tenants["flood"].first_times, 50);
  std::cout << "p99 first token " << absl::FormatDuration(before) << " alone, "
            << absl::FormatDuration(after) << " beside a flood whose median is "
            << absl::FormatDuration(flood) << "; " << beside.tenants["flood"].refused
            << " of it refused\n";
  EXPECT_GT(beside.tenants["flood"].refused, 100);
  EXPECT_EQ(beside.tenants["polite"].refused, 0);
  EXPECT_LT(after, flood / 2);
  EXPECT_LT(after, 1.4 * before) << "a newcomer waits for no sequence of the flood";
}

TEST(ServingSimulation, RanksShareTheWorkAndConversationsFindTheirPrefixes) {
  const auto run = [](TraceKind kind, int64_t num_ranks) {
    ServingOptions options = BaseOptions();
    options.scheduler.num_dp_ranks = num_ranks;
    options.scheduler.num_blocks = 1024;
    options.scheduler.block_size = 64;
    options.trace.kind = kind;
    options.trace.num_requests = kind == TraceKind::kAgents ? 80 : 1000;
    options.trace.requests_per_second = 60;
    options.recount_every = 16;
    ServingSimulation simulation(options);
    EXPECT_THAT(simulation.Run(), IsOk());
    return simulation.report();
  };
  const auto imbalance = [](const ServingReport& report) {
    const std::vector<int64_t>& tokens = report.rank_tokens;
    const double mean =
        static_cast<double>(std::accumulate(tokens.begin(), tokens.end(), int64_t{0})) /
        static_cast<double>(tokens.size());
    return static_cast<double>(*std::max_element(tokens.begin(), tokens.end())) / mean;
  };
  const auto hit_rate = [](const ServingReport& report) {
    return static_cast<double>(report.stats.prefix_hit_tokens) /
           static_cast<double>(report.stats.prefix_query_tokens);
  };
  const ServingReport chats = run(TraceKind::kChat, 4);
  const ServingReport agents = run(TraceKind::kAgents, 4);
  const double best = hit_rate(run(TraceKind::kAgents, 1));
  std::cout << "largest over mean tokens of 4 ranks: " << imbalance(chats)
            << " of chats, " << imbalance(agents) << " of agents; prefix hits "
            << hit_rate(agents) << " on 4 ranks, " << best << " on one\n";
  EXPECT_LT(imbalance(chats), 1.1);
  EXPECT_LT(imbalance(agents), 1.5);
  EXPECT_GT(hit_rate(agents), 0.8 * best);
}

}  // namespace
}  // namespace tessera::testing

int main(int argc, char** argv) {
  tessera::testing::InitSimulation(argc, argv);
  return RUN_ALL_TESTS();
}
