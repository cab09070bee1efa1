#include "cli/bench/bench_options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>

#include "absl/time/time.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

void DeclareServer(OptionTable* table, BenchOptions* options) {
  table->Heading("Server");
  table
      ->Add("backend", &options->backend,
            "dialect: openai and vllm post completions, openai-chat chats")
      .OneOf({"openai", "vllm", "openai-chat"});
  table->Add("base-url", &options->base_url,
             "where the server listens, http:// or https://, in place of host and port");
  table->Add("ca-file", &options->ca_file,
             "PEM authorities of an https:// server; default: the system's");
  table->Add("host", &options->host, "address of the server");
  table->Add("port", &options->port, "port of the server").Range(1, 65535);
  table->Add("endpoint", &options->endpoint,
             "path; default: /v1/completions, or /v1/chat/completions for openai-chat");
  table->Add("model", &options->model, "name of the model; default: the first listed");
  table
      ->Add("api-key", &options->api_key,
            "key of the server; default: OPENAI_API_KEY of the environment")
      .Secret();
  table->Add("header", &options->headers,
             "headers of every request, such as x-tenant=blue");
  table->Add("connect-timeout", &options->connect_timeout, "for each connection");
  table->Add("read-timeout", &options->read_timeout, "longest silence of the server");
  table
      ->Add("ready-check-timeout-sec", &options->ready_check_timeout_sec,
            "seconds to wait for a first answer before the run; 0: no check")
      .Range(0, 86400);
}

void DeclareWorkload(OptionTable* table, BenchOptions* options) {
  WorkloadOptions& workload = options->workload;
  table->Heading("Prompts");
  table->Add("dataset-name", &options->dataset_name, "where prompts come from")
      .OneOf({"random", "prefix_repetition", "sharegpt", "custom"});
  table->Add(
      "dataset-path", &workload.dataset_path,
      "file of sharegpt (JSON) or custom (a line {\"prompt\", \"output_tokens\"})");
  table->Add("num-prompts", &workload.num_prompts, "requests to send")
      .Range(1, 10'000'000);
  table
      ->Add("prompt-format", &options->prompt_format,
            "of made-up prompts: ids, or text of words of about one token each; "
            "default: ids, or text for openai-chat")
      .OneOf({"ids", "text"});
  table->Add("input-len", &options->input_len, "as --random-input-len").AtLeast(1);
  table
      ->Add("output-len", &options->output_len, "tokens to ask for, whatever the dataset")
      .AtLeast(1);
  table->Add("random-input-len", &workload.input_len, "tokens of a prompt").AtLeast(1);
  table->Add("random-output-len", &workload.output_len, "tokens to ask for").AtLeast(1);
  table
      ->Add("random-range-ratio", &workload.range_ratio,
            "lengths vary by this part of themselves")
      .Range(0, 0.999);
  table
      ->Add("random-prefix-len", &workload.prefix_len,
            "tokens that all prompts share, in front")
      .AtLeast(0);
  table->Add("random-range-begin", &workload.id_begin, "first token id of prompts")
      .AtLeast(0);
  table->Add("random-range", &workload.id_end, "token ids of prompts lie below this")
      .AtLeast(1);
  table
      ->Add("prefix-repetition-prefix-len", &workload.repeated_prefix_len,
            "tokens of each shared prefix")
      .AtLeast(0);
  table
      ->Add("prefix-repetition-suffix-len", &workload.repeated_suffix_len,
            "tokens behind it, each prompt's own")
      .AtLeast(0);
  table
      ->Add("prefix-repetition-num-prefixes", &workload.num_prefixes,
            "prefixes, each shared by as many prompts")
      .AtLeast(1);
  table
      ->Add("prefix-repetition-output-len", &workload.repeated_output_len,
            "tokens to ask for")
      .AtLeast(1);
  table
      ->Add("sharegpt-output-len", &options->sharegpt_output_len,
            "tokens to ask for; default: about the length of the file's answer")
      .AtLeast(1);
  table
      ->Add("custom-output-len", &options->custom_output_len,
            "tokens to ask for; default: those of the line")
      .AtLeast(1);
  table->Add("seed", &workload.seed, "of prompts and arrivals");
}

void DeclareLoad(OptionTable* table, BenchOptions* options) {
  table->Heading("Load");
  table->Add("request-rate", &options->request_rate,
             "requests a second in the mean, or inf: all at once");
  table->Add("request-rate-sweep", &options->request_rate_sweep,
             "several rates, a run each, such as 1 2 4 8");
  table->Add("burstiness", &options->burstiness,
             "shape of the gaps: 1: a Poisson process, less: bursts, more: even ones, "
             "inf: a metronome");
  table
      ->Add("ramp-up-strategy", &options->ramp_up_strategy,
            "how the rate grows over the run, in place of --request-rate")
      .OneOf({"linear", "exponential"});
  table->Add("ramp-up-start-rps", &options->ramp_up_start_rps, "rate at the start")
      .AtLeast(0);
  table->Add("ramp-up-end-rps", &options->ramp_up_end_rps, "rate at the end").AtLeast(0);
  table
      ->Add("max-concurrency", &options->max_concurrency,
            "requests under way at most; the others wait, and the load is not open any "
            "more")
      .Range(1, kConcurrencyMax);
  table
      ->Add("num-warmups", &options->num_warmups,
            "requests sent before, which are not measured")
      .Range(0, 1000);
}

void DeclareSampling(OptionTable* table, BenchOptions* options) {
  table->Heading("Sampling");
  table->Add("ignore-eos", &options->ignore_eos,
             "always generate the full length; default: for the random dataset");
  table->Add("temperature", &options->temperature, "default: the server's").Range(0, 2);
  table->Add("top-p", &options->top_p, "default: the server's").Range(0, 1);
  table->Add("top-k", &options->top_k, "default: the server's");
  table->Add("min-p", &options->min_p, "default: the server's").Range(0, 1);
  table->Add("frequency-penalty", &options->frequency_penalty, "default: the server's")
      .Range(-2, 2);
  table->Add("presence-penalty", &options->presence_penalty, "default: the server's")
      .Range(-2, 2);
  table->Add("repetition-penalty", &options->repetition_penalty, "default: the server's")
      .AtLeast(0);
  table->Add("logprobs", &options->logprobs, "log-probabilities to ask for").AtLeast(0);
  table->Add("extra-body", &options->extra_body,
             "JSON object whose fields go into every request");
  table->Add("continuous-usage", &options->continuous_usage,
             "ask for usage in every chunk, so that gaps are weighted by tokens");
}

void DeclareResult(OptionTable* table, BenchOptions* options) {
  table->Heading("Result");
  table->Add("goodput", &options->goodput,
             "limits in ms of a good request, such as ttft:500 tpot:50 e2el:10000");
  table->Add("percentile-metrics", &options->percentile_metrics,
             "latencies to report: ttft, tpot, itl, e2el, client_queue_time, "
             "e2el_including_client_queue");
  table->Add("metric-percentiles", &options->metric_percentiles,
             "their percentiles, with commas");
  table
      ->Add("latency-from", &options->latency_from,
            "where ttft and e2el start; auto: the planned arrival, or the sending where "
            "all requests arrive at once")
      .OneOf({"auto", "arrival", "send"});
  table->Add("save-result", &options->save_result, "write a JSON file");
  table->Add("save-detailed", &options->save_detailed,
             "with every request's lengths, times, text and error");
  table->Add("append-result", &options->append_result,
             "append to the file, as a line of its own");
  table->Add("result-filename", &options->result_filename, "its name");
  table->Add("result-dir", &options->result_dir, "its folder");
  table->Add("plot-file", &options->plot_file,
             "write the curves as one HTML page without script or outside resources");
  table->Add("label", &options->label, "a name for the run, kept in the file");
  table->Add("metadata", &options->metadata, "more for the file, such as version=1 tp=2");
  for (const char* name : {"disable-tqdm", "skip-tokenizer-init", "trust-remote-code"}) {
    table->Ignore(name, false, "there is no progress bar and no tokenizer here");
  }
  for (const char* name : {"tokenizer", "tokenizer-mode"}) {
    table->Ignore(name, true, "tokens are counted from the server's usage");
  }
}

// Infinity only where it is spelled `inf`.
absl::StatusOr<double> ParsePositive(const char* flag, const std::string& text) {
  if (text == "inf") {
    return std::numeric_limits<double>::infinity();
  }
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value) || value <= 0) {
    return InvalidArgumentF("{} {}: expected inf or a number above 0", flag, text);
  }
  return value;
}

std::vector<std::string> SplitCommas(const std::string& text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) {
      parts.push_back(text.substr(begin, end - begin));
    }
    begin = end + 1;
  }
  return parts;
}

absl::StatusOr<LatencyLimits> ParseGoodput(const std::vector<std::string>& words) {
  LatencyLimits limits;
  for (const std::string& word : words) {
    const size_t colon = word.find(':');
    const std::string name = word.substr(0, colon);
    absl::Duration* limit = name == "ttft"   ? &limits.time_to_first_token
                            : name == "tpot" ? &limits.time_per_output_token
                            : name == "e2el" ? &limits.end_to_end
                                             : nullptr;
    const auto milliseconds = ParsePositive(
        "--goodput", colon == std::string::npos ? "" : word.substr(colon + 1));
    if (limit == nullptr || !milliseconds.ok() || std::isinf(*milliseconds)) {
      return InvalidArgumentF("--goodput {}: expected ttft:MS, tpot:MS or e2el:MS", word);
    }
    *limit = absl::Milliseconds(*milliseconds);
  }
  return limits;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParsePairs(
    const char* flag, const std::vector<std::string>& words) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      return InvalidArgumentF("{} {}: expected KEY=VALUE", flag, word);
    }
    pairs.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return pairs;
}

absl::Status PlanReport(const BenchOptions& options, ReportOptions* report) {
  TESSERA_ASSIGN_OR_RETURN(report->limits, ParseGoodput(options.goodput));
  report->metrics = SplitCommas(options.percentile_metrics);
  const std::vector<std::string> known = LatencyKeys();
  for (const std::string& metric : report->metrics) {
    if (std::find(known.begin(), known.end(), metric) == known.end()) {
      return InvalidArgumentF("--percentile-metrics {}: there is no such latency",
                              metric);
    }
  }
  report->percentiles.clear();
  for (const std::string& text : SplitCommas(options.metric_percentiles)) {
    TESSERA_ASSIGN_OR_RETURN(const double percent,
                             ParsePositive("--metric-percentiles", text));
    if (percent > 100) {
      return InvalidArgumentF("--metric-percentiles {}: expected at most 100", text);
    }
    report->percentiles.push_back(percent);
  }
  return absl::OkStatus();
}

absl::Status PlanArrivalOptions(const BenchOptions& options, BenchPlan* plan) {
  ArrivalOptions& arrivals = plan->workload.arrivals;
  TESSERA_ASSIGN_OR_RETURN(arrivals.burstiness,
                           ParsePositive("--burstiness", options.burstiness));
  if (options.ramp_up_strategy.has_value()) {
    if (options.request_rate != "inf" || !options.request_rate_sweep.empty()) {
      return InvalidArgumentF("a ramp has its own rates: expected no --request-rate");
    }
    arrivals.ramp_up =
        *options.ramp_up_strategy == "linear" ? RampUp::kLinear : RampUp::kExponential;
    arrivals.ramp_up_start_rate = options.ramp_up_start_rps;
    arrivals.ramp_up_end_rate = options.ramp_up_end_rps;
  }
  std::vector<std::string> rates = {options.request_rate};
  if (!options.request_rate_sweep.empty()) {
    rates.clear();
    for (const std::string& word : options.request_rate_sweep) {
      const std::vector<std::string> parts = SplitCommas(word);
      rates.insert(rates.end(), parts.begin(), parts.end());
    }
  }
  for (const std::string& text : rates) {
    TESSERA_ASSIGN_OR_RETURN(const double rate, ParsePositive("--request-rate", text));
    plan->request_rates.push_back(rate);
  }
  const bool all_at_once =
      std::isinf(plan->request_rates.front()) && arrivals.ramp_up == RampUp::kNone;
  plan->report.from_arrival = options.latency_from == "arrival" ||
                              (options.latency_from == "auto" && !all_at_once);
  return absl::OkStatus();
}

absl::Status PlanPromptOptions(const BenchOptions& options, BenchPlan* plan) {
  WorkloadOptions& workload = plan->workload;
  workload.dataset = options.dataset_name == "random"     ? Dataset::kRandom
                     : options.dataset_name == "custom"   ? Dataset::kCustom
                     : options.dataset_name == "sharegpt" ? Dataset::kShareGpt
                                                          : Dataset::kPrefixRepetition;
  const bool from_file =
      workload.dataset == Dataset::kCustom || workload.dataset == Dataset::kShareGpt;
  if (from_file == workload.dataset_path.empty()) {
    return InvalidArgumentF("--dataset-name {}: expected {}", options.dataset_name,
                            from_file ? "--dataset-path" : "no --dataset-path");
  }
  workload.as_text =
      options.prompt_format.value_or(plan->load.chat ? "text" : "ids") == "text";
  if (plan->load.chat && !workload.as_text) {
    return InvalidArgumentF("--prompt-format ids: a chat has no token ids");
  }
  workload.input_len = options.input_len.value_or(workload.input_len);
  workload.output_len = options.output_len.value_or(workload.output_len);
  workload.repeated_output_len =
      options.output_len.value_or(workload.repeated_output_len);
  workload.file_output_len = workload.dataset == Dataset::kShareGpt
                                 ? options.sharegpt_output_len
                                 : options.custom_output_len;
  if (!workload.file_output_len.has_value()) {
    workload.file_output_len = options.output_len;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ExtraBody(const BenchOptions& options) {
  json body = json::object();
  const auto set = [&body](const char* key, const auto& value) {
    if (value.has_value()) {
      body[key] = *value;
    }
  };
  set("temperature", options.temperature);
  set("top_p", options.top_p);
  set("top_k", options.top_k);
  set("min_p", options.min_p);
  set("frequency_penalty", options.frequency_penalty);
  set("presence_penalty", options.presence_penalty);
  set("repetition_penalty", options.repetition_penalty);
  if (options.logprobs.has_value() && options.backend == "openai-chat") {
    body["logprobs"] = true;
    body["top_logprobs"] = *options.logprobs;
  } else {
    set("logprobs", options.logprobs);
  }
  if (!options.extra_body.empty()) {
    const json extra = json::parse(options.extra_body, nullptr, false);
    if (!extra.is_object()) {
      return InvalidArgumentF("--extra-body {}: expected a JSON object",
                              options.extra_body);
    }
    body.update(extra);
  }
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::Status PlanLoad(const BenchOptions& options, const Environment& environment,
                      LoadRunOptions* load) {
  load->chat = options.backend == "openai-chat";
  load->endpoint =
      options.endpoint.value_or(load->chat ? "/v1/chat/completions" : "/v1/completions");
  load->model = options.model;
  load->api_key = options.api_key;
  if (load->api_key.empty()) {
    load->api_key = environment("OPENAI_API_KEY").value_or("");
  }
  const bool v6 = options.host.find(':') != std::string::npos;
  const std::string host = v6 ? "[" + options.host + "]" : options.host;
  load->http.url =
      options.base_url.value_or(fmt::format("http://{}:{}", host, options.port));
  load->http.ca_file = options.ca_file;
  load->http.connect_timeout = options.connect_timeout;
  load->http.read_timeout = options.read_timeout;
  TESSERA_ASSIGN_OR_RETURN(load->http.headers, ParsePairs("--header", options.headers));
  load->max_concurrency = options.max_concurrency;
  load->ignore_eos = options.ignore_eos.value_or(options.dataset_name == "random");
  load->continuous_usage = options.continuous_usage;
  load->keep_texts = options.save_detailed;
  TESSERA_ASSIGN_OR_RETURN(load->extra_body, ExtraBody(options));
  return absl::OkStatus();
}

}  // namespace

void DeclareBench(OptionTable* table, BenchOptions* options) {
  DeclareServer(table, options);
  DeclareWorkload(table, options);
  DeclareLoad(table, options);
  DeclareSampling(table, options);
  DeclareResult(table, options);
}

absl::StatusOr<BenchPlan> PlanBench(const BenchOptions& options,
                                    const Environment& environment) {
  BenchPlan plan;
  plan.workload = options.workload;
  TESSERA_RETURN_IF_ERROR(PlanLoad(options, environment, &plan.load));
  TESSERA_RETURN_IF_ERROR(PlanReport(options, &plan.report));
  TESSERA_RETURN_IF_ERROR(PlanArrivalOptions(options, &plan));
  TESSERA_RETURN_IF_ERROR(PlanPromptOptions(options, &plan));
  TESSERA_ASSIGN_OR_RETURN(plan.metadata, ParsePairs("--metadata", options.metadata));
  return plan;
}

}  // namespace tessera::cli
