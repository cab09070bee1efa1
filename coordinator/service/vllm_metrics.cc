#include "coordinator/service/vllm_metrics.h"

#include <algorithm>

namespace tessera::coordinator {
namespace {

// vLLM's buckets: dashboards compare quantiles across engines, so these must not differ.
const std::vector<double>& FirstTokenBuckets() {
  static const auto* const buckets =
      new std::vector<double>{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                              1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
  return *buckets;
}

const std::vector<double>& TokenTimeBuckets() {
  static const auto* const buckets = new std::vector<double>{
      .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
  return *buckets;
}

const std::vector<double>& RequestTimeBuckets() {
  static const auto* const buckets =
      new std::vector<double>{.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                              30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
  return *buckets;
}

// 1, 2, 5, 10, 20, 50… up to the context length.
std::vector<double> OneTwoFive(int64_t max) {
  std::vector<double> buckets;
  for (int64_t decade = 1; decade <= max; decade *= 10) {
    for (const int64_t step : {1, 2, 5}) {
      if (step * decade <= max) {
        buckets.push_back(static_cast<double>(step * decade));
      }
    }
  }
  return buckets.empty() ? std::vector<double>{1} : buckets;
}

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

}  // namespace

prometheus::Gauge& VllmMetrics::Gauge(const char* name, const char* help,
                                      const prometheus::Labels& more) {
  prometheus::Labels labels = labels_;
  labels.insert(more.begin(), more.end());
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels);
}

prometheus::Counter& VllmMetrics::Counter(const char* name, const char* help,
                                          const prometheus::Labels& more) {
  prometheus::Labels labels = labels_;
  labels.insert(more.begin(), more.end());
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add(labels);
}

prometheus::Histogram& VllmMetrics::Histogram(const char* name, const char* help,
                                              const std::vector<double>& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add(
      labels_, buckets);
}

prometheus::Counter& VllmMetrics::Outcome(const char* reason) {
  return Counter("vllm:request_success_total", "Requests that ended, by how.",
                 {{"finished_reason", reason}});
}

prometheus::Counter& VllmMetrics::Source(const char* source) {
  return Counter("vllm:prompt_tokens_by_source_total",
                 "Prompt tokens, by where they came from.", {{"source", source}});
}

VllmMetrics::VllmMetrics(const MetricsOptions& options)
    : labels_{{"model_name", options.model_name}, {"engine", "0"}},
      token_buckets_(OneTwoFive(options.max_model_len)),
      running_(Gauge("vllm:num_requests_running", "Requests in a slot.")),
      waiting_(Gauge("vllm:num_requests_waiting", "Requests in the queue.")),
      waiting_capacity_(Gauge("vllm:num_requests_waiting_by_reason",
                              "Waiting, by reason.", {{"reason", "capacity"}})),
      waiting_deferred_(Gauge("vllm:num_requests_waiting_by_reason",
                              "Waiting, by reason.", {{"reason", "deferred"}})),
      kv_usage_(Gauge("vllm:kv_cache_usage_perc", "KV blocks in use, 0 to 1.")),
      prompt_tokens_(Counter("vllm:prompt_tokens_total", "Prompt tokens.")),
      generation_tokens_(Counter("vllm:generation_tokens_total", "Generated tokens.")),
      cached_tokens_(
          Counter("vllm:prompt_tokens_cached_total", "Prompt tokens from the cache.")),
      source_compute_(Source("local_compute")),
      source_cache_(Source("local_cache_hit")),
      source_transfer_(Source("external_kv_transfer")),
      prefix_queries_(Counter("vllm:prefix_cache_queries_total", "Tokens looked up.")),
      prefix_hits_(Counter("vllm:prefix_cache_hits_total", "Tokens found.")),
      preemptions_(
          Counter("vllm:num_preemptions_total", "Sequences that lost their blocks.")),
      corrupted_(Counter("vllm:corrupted_requests_total", "Requests with NaN logits.")),
      stop_(Outcome("stop")),
      length_(Outcome("length")),
      abort_(Outcome("abort")),
      error_(Outcome("error")),
      first_token_(Histogram("vllm:time_to_first_token_seconds",
                             "Arrival to first token.", FirstTokenBuckets())),
      inter_token_(Histogram("vllm:inter_token_latency_seconds",
                             "Between tokens of a choice.", TokenTimeBuckets())),
      per_output_token_(Histogram("vllm:request_time_per_output_token_seconds",
                                  "Mean gap of a request.", TokenTimeBuckets())),
      per_output_token_alias_(Histogram("vllm:time_per_output_token_seconds",
                                        "Old name of inter_token_latency_seconds.",
                                        TokenTimeBuckets())),
      total_time_(Histogram("vllm:e2e_request_latency_seconds", "Arrival to last event.",
                            RequestTimeBuckets())),
      queue_time_(Histogram("vllm:request_queue_time_seconds", "Time in the queue.",
                            RequestTimeBuckets())),
      inference_time_(Histogram("vllm:request_inference_time_seconds",
                                "First step to last token.", RequestTimeBuckets())),
      prefill_time_(Histogram("vllm:request_prefill_time_seconds",
                              "First step to first token.", RequestTimeBuckets())),
      decode_time_(Histogram("vllm:request_decode_time_seconds", "First to last token.",
                             RequestTimeBuckets())),
      request_prompt_tokens_(
          Histogram("vllm:request_prompt_tokens", "Prompt tokens.", token_buckets_)),
      request_generation_tokens_(Histogram("vllm:request_generation_tokens",
                                           "Generated tokens.", token_buckets_)),
      request_max_generation_tokens_(Histogram("vllm:request_max_num_generation_tokens",
                                               "Longest choice allowed.",
                                               token_buckets_)),
      request_max_tokens_(Histogram("vllm:request_params_max_tokens", "max_tokens asked.",
                                    token_buckets_)),
      request_computed_tokens_(Histogram("vllm:request_prefill_kv_computed_tokens",
                                         "Prompt tokens computed.", token_buckets_)),
      request_n_(Histogram("vllm:request_params_n", "n asked.", {1, 2, 5, 10, 20})),
      iteration_tokens_(
          Histogram("vllm:iteration_tokens_total", "Tokens of a step.",
                    {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384})),
      drafts_(Counter("vllm:spec_decode_num_drafts_total", "Sequences drafted for.")),
      draft_tokens_(
          Counter("vllm:spec_decode_num_draft_tokens_total", "Tokens drafted.")),
      accepted_drafts_(Counter("vllm:spec_decode_num_accepted_tokens_total",
                               "Drafted tokens that stood.")) {
  for (int64_t i = 0; i < options.num_speculative_tokens; ++i) {
    accepted_at_.push_back(&Counter("vllm:spec_decode_num_accepted_tokens_per_pos_total",
                                    "Drafted tokens that stood, by position.",
                                    {{"position", std::to_string(i)}}));
  }
  Gauge("vllm:cache_config_info", "The KV cache.",
        {{"block_size", std::to_string(options.block_size)},
         {"num_gpu_blocks", std::to_string(options.num_blocks)},
         {"cache_dtype", options.kv_cache_dtype},
         {"enable_prefix_caching", options.enable_prefix_caching ? "True" : "False"}})
      .Set(1);
}

void VllmMetrics::OnStep(const StepObservation& step) {
  const EngineGauges& gauges = step.gauges;
  running_.Set(static_cast<double>(gauges.num_running));
  waiting_.Set(static_cast<double>(gauges.num_waiting));
  waiting_capacity_.Set(static_cast<double>(gauges.num_waiting));
  if (gauges.blocks_total > 0) {
    kv_usage_.Set(static_cast<double>(gauges.blocks_used) /
                  static_cast<double>(gauges.blocks_total));
  }
  // Totals of the scheduler become increments; a smaller total means that it was
  // replaced.
  if (gauges.prefix_query_tokens >= query_tokens_seen_ &&
      gauges.prefix_hit_tokens >= hit_tokens_seen_) {
    prefix_queries_.Increment(
        static_cast<double>(gauges.prefix_query_tokens - query_tokens_seen_));
    prefix_hits_.Increment(
        static_cast<double>(gauges.prefix_hit_tokens - hit_tokens_seen_));
  }
  query_tokens_seen_ = gauges.prefix_query_tokens;
  hit_tokens_seen_ = gauges.prefix_hit_tokens;
  drafts_.Increment(static_cast<double>(step.drafts.num_drafts));
  draft_tokens_.Increment(static_cast<double>(step.drafts.num_draft_tokens));
  for (size_t i = 0; i < accepted_at_.size(); ++i) {
    const auto accepted = static_cast<double>(step.drafts.accepted[i]);
    accepted_at_[i]->Increment(accepted);
    accepted_drafts_.Increment(accepted);
  }
  if (!step.probe && step.num_tokens > 0) {
    iteration_tokens_.Observe(static_cast<double>(step.num_tokens));
  }
}

void VllmMetrics::OnToken(std::optional<absl::Duration> gap) {
  generation_tokens_.Increment();
  if (gap.has_value()) {
    inter_token_.Observe(Seconds(*gap));
    per_output_token_alias_.Observe(Seconds(*gap));
  }
}

void VllmMetrics::OnRequestFinished(const RequestObservation& request) {
  prometheus::Counter* const outcomes[] = {&stop_, &length_, &abort_, &error_};
  outcomes[static_cast<size_t>(request.outcome)]->Increment();
  total_time_.Observe(Seconds(request.total_time));
  const auto prompt = static_cast<double>(request.prompt_tokens);
  const auto cached = static_cast<double>(request.cached_prompt_tokens);
  if (request.queue_time.has_value()) {
    queue_time_.Observe(Seconds(*request.queue_time));
  }
  if (request.first_token_time.has_value()) {
    prompt_tokens_.Increment(prompt);
    cached_tokens_.Increment(cached);
    source_cache_.Increment(cached);
    source_compute_.Increment(std::max(0.0, prompt - cached));
    request_computed_tokens_.Observe(std::max(0.0, prompt - cached));
    first_token_.Observe(Seconds(*request.first_token_time));
    const absl::Duration queued = request.queue_time.value_or(absl::ZeroDuration());
    const absl::Duration decode = request.decode_time.value_or(absl::ZeroDuration());
    prefill_time_.Observe(Seconds(*request.first_token_time - queued));
    inference_time_.Observe(Seconds(*request.first_token_time - queued + decode));
  }
  if (request.decode_time.has_value()) {
    decode_time_.Observe(Seconds(*request.decode_time));
    const int64_t per_choice =
        request.completion_tokens / std::max(1, request.num_choices);
    if (per_choice > 1) {
      per_output_token_.Observe(Seconds(*request.decode_time) /
                                static_cast<double>(per_choice - 1));
    }
  }
  request_prompt_tokens_.Observe(prompt);
  request_generation_tokens_.Observe(static_cast<double>(request.completion_tokens));
  request_max_generation_tokens_.Observe(static_cast<double>(request.max_tokens));
  request_max_tokens_.Observe(static_cast<double>(request.max_tokens));
  request_n_.Observe(request.num_choices);
}

void VllmMetrics::OnPreemptions(int64_t count) {
  preemptions_.Increment(static_cast<double>(count));
}

}  // namespace tessera::coordinator
