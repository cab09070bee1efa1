#include "coordinator/service/native_metrics.h"

#include <algorithm>
#include <string>

namespace tessera::coordinator {
namespace {

using Buckets = std::vector<double>;

// Seconds between 10 us and 10 s in a 1-2-5 series: steps of a small model and queues of
// a large one.
Buckets TimeBuckets() {
  Buckets buckets;
  for (const double decade : {1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0}) {
    for (const double step : {1.0, 2.0, 5.0}) {
      buckets.push_back(step * decade);
    }
  }
  buckets.push_back(10);
  return buckets;
}

// A small model answers in milliseconds: vLLM's floor of 10 ms would put everything in
// one bucket.
Buckets InterTokenBuckets() {
  return {.001, .002, .004, .006, .008, .010, .015, .020, .025, .030, .035, .040,
          .060, .080, .100, .200, .400, .600, .800, 1,    2,    4,    8};
}

Buckets RequestBuckets() {
  return {.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800};
}

void SetBlocks(int64_t total, int64_t used, int64_t cached,
               prometheus::Family<prometheus::Gauge>& family) {
  family.Add({{"state", "used"}}).Set(static_cast<double>(used));
  family.Add({{"state", "cached"}}).Set(static_cast<double>(cached));
  family.Add({{"state", "free"}}).Set(static_cast<double>(total - used - cached));
}

Buckets CountBuckets() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
}

const char* Name(RejectReason reason) {
  switch (reason) {
    case RejectReason::kQueueFull:
      return "queue_full";
    case RejectReason::kRateLimit:
      return "rate_limit";
    case RejectReason::kDraining:
      return "draining";
    case RejectReason::kTooLarge:
      return "too_large";
    case RejectReason::kAuth:
      return "auth";
  }
  return "other";
}

const char* Name(IdempotencyOutcome outcome) {
  switch (outcome) {
    case IdempotencyOutcome::kFirst:
      return "first";
    case IdempotencyOutcome::kReplayed:
      return "replayed";
    case IdempotencyOutcome::kWaits:
      return "waits";
    case IdempotencyOutcome::kRefused:
      return "refused";
  }
  return "other";
}

const char* Name(RequestOutcome outcome) {
  switch (outcome) {
    case RequestOutcome::kStop:
      return "stop";
    case RequestOutcome::kLength:
      return "length";
    case RequestOutcome::kAbort:
      return "abort";
    case RequestOutcome::kError:
      return "error";
  }
  return "other";
}

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

}  // namespace

prometheus::Family<prometheus::Counter>& NativeMetrics::Counters(const char* name,
                                                                 const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
}

prometheus::Family<prometheus::Gauge>& NativeMetrics::Gauges(const char* name,
                                                             const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry_);
}

prometheus::Family<prometheus::Histogram>& NativeMetrics::Histograms(const char* name,
                                                                     const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_);
}

NativeMetrics::NativeMetrics(const MetricsOptions& options)
    : http_requests_(Counters("tessera_http_requests_total", "HTTP requests answered.")),
      http_duration_(
          Histograms("tessera_http_request_duration_seconds", "Time to the last byte.")),
      http_in_flight_(
          Gauges("tessera_http_requests_in_flight", "Requests under way.").Add({})),
      http_streams_(Gauges("tessera_http_streams_open", "Streams under way.").Add({})),
      http_disconnects_(Counters("tessera_http_client_disconnects_total",
                                 "Clients that left before their answer ended.")
                            .Add({})),
      http_rejected_(
          Counters("tessera_http_rejected_total", "Requests refused at the edge.")),
      idempotency_keys_(Counters("tessera_idempotency_keys_total",
                                 "Requests with an Idempotency-Key, by what they got.")),
      grpc_handled_(Counters("grpc_server_handled_total", "gRPC calls that ended.")),
      grpc_handling_(
          Histograms("grpc_server_handling_seconds", "Duration of gRPC calls.")),
      ready_(Gauges("tessera_ready", "1 while the group answers steps.").Add({})),
      ready_workers_(
          Gauges("tessera_ready_workers", "Ranks of the group in service.").Add({})),
      group_failures_(
          Counters("tessera_group_failures_total", "Groups that were lost.").Add({})),
      queue_size_(Gauges("tessera_queue_size", "Sequences that wait.")
                      .Add({{"priority", "default"}})),
      queue_tokens_(
          Gauges("tessera_queue_tokens", "Tokens that waiting sequences must compute.")
              .Add({})),
      running_(
          Gauges("tessera_running_sequences", "Sequences that hold a slot.").Add({})),
      saturation_(
          Gauges("tessera_pool_saturation_ratio", "KV blocks in use, 0 to 1.").Add({})),
      kv_blocks_(Gauges("tessera_kv_blocks", "KV blocks by state.")),
      tail_blocks_(Gauges("tessera_tail_blocks",
                          "Blocks of the last tokens' rows, by state; none for models "
                          "that keep everything.")),
      prefix_queries_(Counters("tessera_prefix_query_tokens_total",
                               "Tokens looked up in the prefix cache.")
                          .Add({})),
      prefix_hits_(
          Counters("tessera_prefix_hit_tokens_total", "Tokens found there.").Add({})),
      prefix_shortened_(
          Counters(
              "tessera_prefix_shortened_tokens_total",
              "Cached prompt tokens computed again since their tail blocks were gone.")
              .Add({})),
      preemptions_(
          Counters("tessera_preemptions_total", "Sequences that lost their blocks.")
              .Add({})),
      prompt_tokens_(
          Counters("tessera_prompt_tokens_total", "Tokens prefilled.").Add({})),
      generation_tokens_(
          Counters("tessera_generation_tokens_total", "Tokens generated.").Add({})),
      requests_(Counters("tessera_requests_total", "Requests of the engine that ended.")),
      queue_wait_(Histograms("tessera_queue_wait_seconds", "Arrival to first step.")
                      .Add({}, RequestBuckets())),
      first_token_(
          Histograms("tessera_time_to_first_token_seconds", "Arrival to first token.")
              .Add({}, RequestBuckets())),
      inter_token_(
          Histograms("tessera_inter_token_latency_seconds", "Between tokens of a choice.")
              .Add({}, InterTokenBuckets())),
      request_time_(Histograms("tessera_request_seconds", "Arrival to last event.")
                        .Add({}, RequestBuckets())),
      scheduler_time_(
          Histograms("tessera_scheduler_step_seconds", "The scheduler's own time.")
              .Add({}, TimeBuckets())),
      batch_tokens_(Histograms("tessera_batch_tokens", "Tokens of a step.")
                        .Add({}, CountBuckets())),
      batch_sequences_(Histograms("tessera_batch_sequences", "Sequences of a step.")
                           .Add({}, CountBuckets())),
      step_time_(Histograms("tessera_step_seconds", "Plans out to last result in.")),
      rank_steps_(Counters("tessera_rank_steps_total",
                           "Steps of ranks, by a launch of a graph or eagerly.")),
      collective_time_(Histograms("tessera_collective_seconds",
                                  "The host's time in collectives of a step, per rank; "
                                  "those on a device's stream take none.")
                           .Add({{"op", "all"}}, TimeBuckets())),
      collective_bytes_(
          Counters("tessera_collective_bytes_total", "Bytes of collectives.")
              .Add({{"op", "all"}})),
      drafts_(Counters("tessera_drafts_total", "Sequences drafted for.").Add({})),
      draft_tokens_(Counters("tessera_draft_tokens_total", "Tokens drafted.").Add({})),
      tenants_(options.tenants, &registry_),
      tiers_(&registry_),
      imbalance_(
          Gauges("tessera_expert_load_imbalance_ratio", "Largest over mean expert load.")
              .Add({})),
      engram_rows_(
          Counters("tessera_engram_rows_total", "Engram rows gathered.").Add({})),
      engram_late_waits_(
          Counters("tessera_engram_late_waits_total", "Waits for Engram rows.").Add({})),
      engram_cache_hits_(Counters("tessera_engram_cache_hits_total",
                                  "Engram rows that the row cache had.")
                             .Add({})),
      engram_cache_misses_(Counters("tessera_engram_cache_misses_total",
                                    "Engram rows that the row cache had not.")
                               .Add({})),
      engram_disk_bytes_(Counters("tessera_engram_disk_read_bytes_total",
                                  "Read from Engram tables on disk.")
                             .Add({})),
      engram_wait_(
          Histograms("tessera_engram_wait_seconds", "Time a step waited for rows.")
              .Add({}, TimeBuckets())) {
  InitialiseLabels(options);
}

// Series exist with zero before their first event, so that rates and alerts see the first
// one.
void NativeMetrics::InitialiseLabels(const MetricsOptions& options) {
  for (const char* route : {"/v1/chat/completions", "/v1/completions"}) {
    for (const char* code : {"200", "400", "429", "500", "503"}) {
      http_requests_.Add({{"route", route}, {"method", "POST"}, {"code", code}});
    }
    http_duration_.Add({{"route", route}}, RequestBuckets());
  }
  for (const RejectReason reason :
       {RejectReason::kQueueFull, RejectReason::kRateLimit, RejectReason::kDraining,
        RejectReason::kTooLarge, RejectReason::kAuth}) {
    http_rejected_.Add({{"reason", Name(reason)}});
  }
  for (const IdempotencyOutcome outcome :
       {IdempotencyOutcome::kFirst, IdempotencyOutcome::kReplayed,
        IdempotencyOutcome::kWaits, IdempotencyOutcome::kRefused}) {
    idempotency_keys_.Add({{"outcome", Name(outcome)}});
  }
  for (const RequestOutcome outcome : {RequestOutcome::kStop, RequestOutcome::kLength,
                                       RequestOutcome::kAbort, RequestOutcome::kError}) {
    requests_.Add({{"outcome", Name(outcome)}});
  }
  for (const char* state : {"free", "used", "cached"}) {
    kv_blocks_.Add({{"state", state}});
    tail_blocks_.Add({{"state", state}});
  }
  for (const char* phase : {"prefill", "decode", "mixed"}) {
    step_time_.Add({{"phase", phase}}, TimeBuckets());
  }
  for (const char* execution : {"graph", "eager"}) {
    rank_steps_.Add({{"execution", execution}});
  }
  auto& accepted =
      Counters("tessera_accepted_draft_tokens_total", "Drafted tokens that stood.");
  for (int64_t i = 0; i < options.num_speculative_tokens; ++i) {
    accepted_at_.push_back(&accepted.Add({{"position", std::to_string(i)}}));
  }
  Gauges("tessera_build_info", "The build.")
      .Add({{"version", options.version},
            {"revision", options.revision},
            {"cuda", options.cuda},
            {"isa", options.isa}})
      .Set(1);
  Gauges("tessera_kv_cache_tokens", "Tokens that all KV blocks hold.")
      .Add({{"dtype", options.kv_cache_dtype}})
      .Set(static_cast<double>(options.num_blocks * options.block_size));
  Gauges("tessera_numerics_info", "How numbers are computed.")
      .Add({{"mode", options.numerics_mode}, {"id", options.numerics_id}})
      .Set(1);
}

void NativeMetrics::OnStep(const StepObservation& step) {
  const EngineGauges& gauges = step.gauges;
  queue_size_.Set(static_cast<double>(gauges.num_waiting));
  queue_tokens_.Set(static_cast<double>(gauges.waiting_tokens));
  running_.Set(static_cast<double>(gauges.num_running));
  SetBlocks(gauges.blocks_total, gauges.blocks_used, gauges.blocks_cached, kv_blocks_);
  SetBlocks(gauges.tail_blocks_total, gauges.tail_blocks_used, gauges.tail_blocks_cached,
            tail_blocks_);
  if (gauges.blocks_total > 0) {
    saturation_.Set(static_cast<double>(gauges.blocks_used) /
                    static_cast<double>(gauges.blocks_total));
  }
  // Totals of the scheduler become increments; a smaller total means that it was
  // replaced.
  if (gauges.prefix_query_tokens >= query_tokens_seen_ &&
      gauges.prefix_hit_tokens >= hit_tokens_seen_ &&
      gauges.prefix_shortened_tokens >= shortened_tokens_seen_) {
    prefix_queries_.Increment(
        static_cast<double>(gauges.prefix_query_tokens - query_tokens_seen_));
    prefix_hits_.Increment(
        static_cast<double>(gauges.prefix_hit_tokens - hit_tokens_seen_));
    prefix_shortened_.Increment(
        static_cast<double>(gauges.prefix_shortened_tokens - shortened_tokens_seen_));
  }
  query_tokens_seen_ = gauges.prefix_query_tokens;
  hit_tokens_seen_ = gauges.prefix_hit_tokens;
  shortened_tokens_seen_ = gauges.prefix_shortened_tokens;
  tenants_.OnStep(gauges.tenants);
  tiers_.OnStep(gauges, step.rank_counters);
  ready_workers_.Set(static_cast<double>(step.rank_counters.size()));
  if (!step.probe) {
    const bool decodes = step.num_tokens > step.num_prefill_tokens;
    const char* phase = step.num_prefill_tokens == 0 ? "decode"
                        : decodes                    ? "mixed"
                                                     : "prefill";
    step_time_.Add({{"phase", phase}}, TimeBuckets()).Observe(Seconds(step.step_time));
    scheduler_time_.Observe(Seconds(step.scheduler_time));
    batch_tokens_.Observe(static_cast<double>(step.num_tokens));
    batch_sequences_.Observe(static_cast<double>(step.num_sequences));
    prompt_tokens_.Increment(static_cast<double>(step.num_prefill_tokens));
    drafts_.Increment(static_cast<double>(step.drafts.num_drafts));
    draft_tokens_.Increment(static_cast<double>(step.drafts.num_draft_tokens));
    for (size_t i = 0; i < accepted_at_.size(); ++i) {
      accepted_at_[i]->Increment(static_cast<double>(step.drafts.accepted[i]));
    }
    OnRankCounters(step);
  }
}

void NativeMetrics::OnRankCounters(const StepObservation& step) {
  float imbalance = 0;
  for (const proto::StepCounters& rank : step.rank_counters) {
    rank_steps_.Add({{"execution", rank.graph_rows > 0 ? "graph" : "eager"}}).Increment();
    collective_time_.Observe(static_cast<double>(rank.collective_ns) * 1e-9);
    collective_bytes_.Increment(static_cast<double>(rank.collective_bytes));
    engram_wait_.Observe(static_cast<double>(rank.engram_wait_ns) * 1e-9);
    engram_rows_.Increment(static_cast<double>(rank.engram_rows));
    engram_late_waits_.Increment(static_cast<double>(rank.engram_late_waits));
    engram_cache_hits_.Increment(static_cast<double>(rank.engram_cache_hits));
    engram_cache_misses_.Increment(static_cast<double>(rank.engram_cache_misses));
    engram_disk_bytes_.Increment(static_cast<double>(rank.engram_disk_bytes));
    imbalance = std::max(imbalance, rank.expert_imbalance);
  }
  if (imbalance > 0) {
    imbalance_.Set(imbalance);
  }
}

void NativeMetrics::OnToken(std::optional<absl::Duration> gap) {
  generation_tokens_.Increment();
  if (gap.has_value()) {
    inter_token_.Observe(Seconds(*gap));
  }
}

void NativeMetrics::OnRequestFinished(const RequestObservation& request) {
  requests_.Add({{"outcome", Name(request.outcome)}}).Increment();
  request_time_.Observe(Seconds(request.total_time));
  if (request.queue_time.has_value()) {
    queue_wait_.Observe(Seconds(*request.queue_time));
  }
  if (request.first_token_time.has_value()) {
    first_token_.Observe(Seconds(*request.first_token_time));
  }
}

void NativeMetrics::OnPreemptions(int64_t count) {
  preemptions_.Increment(static_cast<double>(count));
}

void NativeMetrics::OnGroupReady() { ready_.Set(1); }

void NativeMetrics::OnGroupFailed() {
  ready_.Set(0);
  ready_workers_.Set(0);
  group_failures_.Increment();
}

void NativeMetrics::OnHttpStart() { http_in_flight_.Increment(); }

void NativeMetrics::OnHttpEnd(std::string_view route, std::string_view method, int code,
                              absl::Duration duration) {
  http_in_flight_.Decrement();
  http_requests_
      .Add({{"route", std::string(route)},
            {"method", std::string(method)},
            {"code", std::to_string(code)}})
      .Increment();
  http_duration_.Add({{"route", std::string(route)}}, RequestBuckets())
      .Observe(Seconds(duration));
}

void NativeMetrics::OnStreams(int change) { http_streams_.Increment(change); }
void NativeMetrics::OnClientDisconnect() { http_disconnects_.Increment(); }

void NativeMetrics::OnRejected(RejectReason reason) {
  http_rejected_.Add({{"reason", Name(reason)}}).Increment();
}

void NativeMetrics::OnIdempotencyKey(IdempotencyOutcome outcome) {
  idempotency_keys_.Add({{"outcome", Name(outcome)}}).Increment();
}

void NativeMetrics::OnGrpcEnd(std::string_view service, std::string_view method,
                              std::string_view code, absl::Duration duration) {
  const prometheus::Labels labels = {{"grpc_service", std::string(service)},
                                     {"grpc_method", std::string(method)}};
  prometheus::Labels with_code = labels;
  with_code.emplace("grpc_code", std::string(code));
  grpc_handled_.Add(with_code).Increment();
  grpc_handling_.Add(labels, RequestBuckets()).Observe(Seconds(duration));
}

}  // namespace tessera::coordinator
