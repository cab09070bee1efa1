#include "coordinator/service/metrics.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/clock.h"

namespace tessera::coordinator {
namespace {

using testing::HasSubstr;
using testing::Not;

MetricsOptions Options() {
  MetricsOptions options;
  options.model_name = "demo";
  options.max_model_len = 4096;
  options.num_blocks = 100;
  options.num_speculative_tokens = 2;
  options.numerics_id = "cpu/f32";
  return options;
}

StepObservation Step() {
  StepObservation step;
  step.step_time = absl::Milliseconds(3);
  step.scheduler_time = absl::Microseconds(20);
  step.num_tokens = 12;
  step.num_prefill_tokens = 10;
  step.num_sequences = 3;
  step.drafts.num_drafts = 3;
  step.drafts.num_draft_tokens = 6;
  step.drafts.accepted = {2, 1};
  step.gauges.num_waiting = 4;
  step.gauges.num_running = 3;
  step.gauges.blocks_total = 100;
  step.gauges.blocks_used = 25;
  step.gauges.blocks_cached = 5;
  step.gauges.tail_blocks_total = 12;
  step.gauges.tail_blocks_used = 4;
  step.gauges.tail_blocks_cached = 6;
  step.gauges.prefix_shortened_tokens = 8;
  step.gauges.prefix_query_tokens = 40;
  step.gauges.prefix_hit_tokens = 16;
  step.gauges.host_blocks_total = 9;
  step.gauges.host_blocks_cached = 5;
  step.gauges.host_hit_tokens = 6;
  step.gauges.disk_blocks_total = 30;
  step.gauges.disk_blocks_cached = 21;
  step.gauges.disk_hit_tokens = 2;
  step.gauges.spilled_blocks = 25;
  step.gauges.fetched_blocks = 4;
  step.gauges.failed_disk_copies = 3;
  step.gauges.disk_waits = 5;
  step.gauges.given_up_disk_waits = 1;
  step.gauges.offloaded_blocks = 7;
  step.gauges.restored_blocks = 3;
  step.gauges.handed_over_sequences = 11;
  step.gauges.given_up_sequences = 1;
  step.gauges.handed_over_tokens = 176;
  step.gauges.handed_over_blocks = 13;
  step.gauges.handed_over_recomputed_tokens = 14;
  return step;
}

// A scrape after a bit of everything.
void Exercise(Metrics* metrics) {
  std::vector<proto::StepCounters> ranks(2);
  ranks[0].collective_ns = 1000;
  ranks[0].engram_rows = 24;
  ranks[0].engram_cache_hits = 20;
  ranks[0].engram_cache_misses = 4;
  ranks[0].engram_disk_bytes = 16384;
  ranks[1].expert_imbalance = 1.5f;
  ranks[0].transfer_bytes = 4000;
  ranks[1].transfer_bytes = 96;
  ranks[0].disk_written_bytes = 700;
  ranks[1].disk_written_bytes = 70;
  ranks[1].disk_read_bytes = 50;
  ranks[1].graph_rows = 8;
  StepObservation step = Step();
  step.rank_counters = ranks;
  metrics->OnGroupReady(1);
  metrics->OnStep(step);
  metrics->OnToken(std::nullopt);
  metrics->OnToken(absl::Milliseconds(7));
  RequestObservation request;
  request.outcome = RequestOutcome::kLength;
  request.prompt_tokens = 10;
  request.cached_prompt_tokens = 4;
  request.completion_tokens = 2;
  request.max_tokens = 2;
  request.total_time = absl::Milliseconds(90);
  request.queue_time = absl::Milliseconds(1);
  request.first_token_time = absl::Milliseconds(30);
  request.decode_time = absl::Milliseconds(60);
  metrics->OnRequestFinished(request);
  metrics->OnPreemptions(2);
  metrics->OnHttpStart();
  metrics->OnHttpEnd("/v1/completions", "POST", 200, absl::Milliseconds(90));
  metrics->OnStreamOpen();
  metrics->OnClientDisconnect();
  metrics->OnRejected(RejectReason::kQueueFull);
  metrics->OnIdempotencyKey(IdempotencyOutcome::kReplayed);
  metrics->OnGrpcEnd("tessera.api.v1.ApiService", "Chat", "OK", absl::Seconds(1));
}

TEST(Metrics, ExpectedLabelSetsExistBeforeTheFirstEvent) {
  Metrics metrics(Options());
  const std::string text = metrics.Render(MetricNames::kAll);
  for (const char* line :
       {"tessera_http_rejected_total{reason=\"queue_full\"} 0",
        "tessera_idempotency_keys_total{outcome=\"first\"} 0",
        "tessera_requests_total{outcome=\"error\"} 0",
        "tessera_kv_blocks{state=\"free\"} 0", "tessera_ready 0",
        "tessera_step_seconds_count{phase=\"decode\"} 0",
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"demo\"} 0",
        "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\","
        "model_name=\"demo\",position=\"1\"} 0",
        "vllm:prompt_tokens_by_source_total{engine=\"0\",model_name=\"demo\","
        "source=\"external_kv_transfer\"} 0"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(Metrics, SayHowManyTokensTheCacheHoldsAndInWhatFormat) {
  MetricsOptions options = Options();
  options.kv_cache_dtype = "fp8";
  Metrics metrics(options);
  EXPECT_THAT(metrics.Render(MetricNames::kNative),
              HasSubstr("tessera_kv_cache_tokens{dtype=\"fp8\"} 1600"));
}

TEST(Metrics, EventsMoveBothSetsOfNames) {
  Metrics metrics(Options());
  Exercise(&metrics);
  const std::string text = metrics.Render(MetricNames::kAll);
  const std::string labels = "{engine=\"0\",model_name=\"demo\"} ";
  for (const std::string& line :
       {std::string("tessera_ready 1"),
        std::string("tessera_ready_workers 2"),
        std::string("tessera_queue_size{priority=\"default\"} 4"),
        std::string("tessera_kv_blocks{state=\"free\"} 70"),
        std::string("tessera_tail_blocks{state=\"free\"} 2"),
        std::string("tessera_tail_blocks{state=\"cached\"} 6"),
        std::string("tessera_host_blocks{state=\"cached\"} 5"),
        std::string("tessera_host_blocks{state=\"free\"} 4"),
        std::string("tessera_prefix_tier_hit_tokens_total{tier=\"device\"} 8"),
        std::string("tessera_prefix_tier_hit_tokens_total{tier=\"host\"} 6"),
        std::string("tessera_host_copied_blocks_total{direction=\"offload\"} 7"),
        std::string("tessera_host_copied_blocks_total{direction=\"restore\"} 3"),
        std::string("tessera_hand_over_sequences_total{outcome=\"whole\"} 11"),
        std::string("tessera_hand_over_sequences_total{outcome=\"given_up\"} 1"),
        std::string("tessera_hand_over_tokens_total 176"),
        std::string("tessera_hand_over_blocks_total 13"),
        std::string("tessera_hand_over_recomputed_tokens_total 14"),
        std::string("tessera_hand_over_bytes_total 4096"),
        std::string("tessera_prefix_shortened_tokens_total 8"),
        std::string("tessera_pool_saturation_ratio 0.25"),
        std::string("tessera_prefix_hit_tokens_total 16"),
        std::string("tessera_step_seconds_count{phase=\"mixed\"} 1"),
        std::string("tessera_rank_steps_total{execution=\"graph\"} 1"),
        std::string("tessera_rank_steps_total{execution=\"eager\"} 1"),
        std::string("tessera_engram_rows_total 24"),
        std::string("tessera_engram_cache_hits_total 20"),
        std::string("tessera_engram_cache_misses_total 4"),
        std::string("tessera_engram_disk_read_bytes_total 16384"),
        std::string("tessera_expert_load_imbalance_ratio 1.5"),
        std::string("tessera_generation_tokens_total 2"),
        std::string("tessera_drafts_total 3"),
        std::string("tessera_draft_tokens_total 6"),
        std::string("tessera_accepted_draft_tokens_total{position=\"1\"} 1"),
        std::string("tessera_http_requests_in_flight 0"),
        std::string("tessera_http_streams_open 1"),
        std::string("tessera_http_requests_total{code=\"200\",method=\"POST\","
                    "route=\"/v1/completions\"} 1"),
        std::string("grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Chat\","
                    "grpc_service=\"tessera.api.v1.ApiService\"} 1"),
        "vllm:num_requests_running" + labels + "3",
        "vllm:kv_cache_usage_perc" + labels + "0.25",
        "vllm:prompt_tokens_total" + labels + "10",
        "vllm:prompt_tokens_cached_total" + labels + "4",
        "vllm:generation_tokens_total" + labels + "2",
        "vllm:num_preemptions_total" + labels + "2",
        "vllm:spec_decode_num_drafts_total" + labels + "3",
        "vllm:spec_decode_num_draft_tokens_total" + labels + "6",
        "vllm:spec_decode_num_accepted_tokens_total" + labels + "3",
        std::string("vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\","
                    "model_name=\"demo\",position=\"0\"} 2"),
        "vllm:time_to_first_token_seconds_count" + labels + "1",
        "vllm:inter_token_latency_seconds_count" + labels + "1",
        "vllm:iteration_tokens_total_sum" + labels + "12"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, HasSubstr("finished_reason=\"length\",model_name=\"demo\"} 1"));
  EXPECT_THAT(text, HasSubstr("vllm:cache_config_info{block_size=\"16\""));
}

TEST(Metrics, ALayersImbalanceIsThatOfTheLastMinute) {
  SimulatedClock clock(absl::FromUnixSeconds(1000));
  ExpertLoads loads({.first_layer = 3, .num_layers = 2, .rank_of_expert = {0, 1}},
                    &clock);
  MetricsOptions options = Options();
  options.expert_loads = &loads;
  Metrics metrics(options);
  loads.Add(std::vector<uint32_t>{1, 3, 0, 0});
  std::string text = metrics.Render(MetricNames::kNative);
  EXPECT_THAT(text, HasSubstr("tessera_expert_layer_imbalance_ratio{layer=\"3\"} 1.5"));
  EXPECT_THAT(text, Not(HasSubstr("{layer=\"4\"}"))) << "nothing was routed there";
  clock.Advance(absl::Minutes(1));
  EXPECT_THAT(metrics.Render(MetricNames::kNative), Not(HasSubstr("layer=\"3\"")));
}

TEST(Metrics, TotalsOfTheSchedulerAreCountedOnce) {
  Metrics metrics(Options());
  metrics.OnStep(Step());
  metrics.OnStep(Step());
  EXPECT_THAT(metrics.Render(MetricNames::kNative),
              HasSubstr("tessera_prefix_query_tokens_total 40"));
}

TEST(Metrics, HealthStepsAreNotLoad) {
  Metrics metrics(Options());
  StepObservation probe = Step();
  probe.probe = true;
  metrics.OnStep(probe);
  EXPECT_THAT(metrics.Render(MetricNames::kAll),
              HasSubstr("tessera_batch_tokens_count 0"));
}

TEST(Metrics, ALostGroupIsNotReady) {
  Metrics metrics(Options());
  Exercise(&metrics);
  metrics.OnGroupFailed(1, absl::UnavailableError(""));
  const std::string text = metrics.Render(MetricNames::kNative);
  EXPECT_THAT(text, HasSubstr("tessera_ready 0"));
  EXPECT_THAT(text, HasSubstr("tessera_group_failures_total 1"));
}

TEST(Metrics, NamesAreChosenByTheScraper) {
  Metrics metrics(Options());
  EXPECT_THAT(metrics.Render(MetricNames::kNative), Not(HasSubstr("vllm:")));
  EXPECT_THAT(metrics.Render(MetricNames::kVllm), Not(HasSubstr("tessera_")));
  const std::string all = metrics.Render(MetricNames::kAll);
  EXPECT_THAT(all, HasSubstr("vllm:"));
  EXPECT_THAT(all, HasSubstr("tessera_"));
  EXPECT_THAT(all, HasSubstr("process_resident_memory_bytes"));
  EXPECT_THAT(all, HasSubstr("process_cpu_seconds_total"));
}

TEST(Metrics, PromtoolAcceptsTheNativeNames) {
  if (std::system("command -v promtool > /dev/null 2>&1") != 0) {
    GTEST_SKIP() << "promtool is not installed";
  }
  Metrics metrics(Options());
  Exercise(&metrics);
  const std::string text = metrics.Render(MetricNames::kNative);
  FILE* promtool = popen("promtool check metrics", "w");
  ASSERT_NE(promtool, nullptr);
  ASSERT_EQ(std::fwrite(text.data(), 1, text.size(), promtool), text.size());
  EXPECT_EQ(pclose(promtool), 0) << "see promtool's lines above";
}

}  // namespace
}  // namespace tessera::coordinator
