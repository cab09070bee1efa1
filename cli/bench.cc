// tessera bench: loads a running server and reports what its clients see, with the flags
// and keys that other benchmark tools have.
#include <charconv>
#include <cmath>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/client/interrupt.h"
#include "cli/client/load_generator.h"
#include "cli/client/load_report.h"
#include "cli/client/openai_client.h"
#include "cli/client/workload.h"
#include "cli/subcommand.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/build_info.h"
#include "common/clock.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

struct BenchOptions {
  LoadOptions load;
  WorkloadOptions workload;
  std::string base_url = "http://127.0.0.1:8000";
  std::string dataset_name = "random";
  std::string backend = "openai";
  std::string request_rate = "inf";
  std::vector<std::string> goodput;
  int64_t num_warmups = 0;
  bool save_result = false;
  std::string result_dir;
  std::string result_filename;
  std::string label;
};

void Declare(OptionTable* table, BenchOptions* options) {
  WorkloadOptions& workload = options->workload;
  LoadOptions& load = options->load;
  table->Heading("Server");
  table->Add("base-url", &options->base_url, "where the server listens");
  table->Add("endpoint", &load.endpoint, "path of the completions");
  table->Add("backend", &options->backend, "dialect of the server")
      .OneOf({"openai", "vllm"});
  table->Add("model", &load.model, "name of the model; default: the first listed");
  table->Add("api-key", &load.api_key, "key of the server").Secret();
  table->Add("connect-timeout", &load.http.connect_timeout, "for each connection");
  table->Add("read-timeout", &load.http.read_timeout, "longest silence of the server");
  table->Heading("Workload");
  table->Add("dataset-name", &options->dataset_name, "where prompts come from")
      .OneOf({"random"});
  table->Add("num-prompts", &workload.num_prompts, "requests to send")
      .Range(1, 10'000'000);
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
  table->Add("seed", &workload.seed, "of prompts and arrivals");
  table->Add("ignore-eos", &load.ignore_eos, "always generate the full length");
  table->Add("temperature", &load.temperature, "default: the server's").Range(0, 2);
  table->Heading("Load");
  table->Add("request-rate", &options->request_rate,
             "requests a second, as a Poisson process, or inf: all at once");
  table->Add("max-concurrency", &load.max_concurrency, "requests under way at most")
      .Range(1, 4096);
  table
      ->Add("num-warmups", &options->num_warmups,
            "requests sent before, which are not measured")
      .Range(0, 1000);
  table->Heading("Result");
  table->Add("goodput", &options->goodput,
             "limits in ms of a good request, such as ttft:500 tpot:50 e2el:10000");
  table->Add("save-result", &options->save_result, "write a JSON file");
  table->Add("result-filename", &options->result_filename, "its name");
  table->Add("result-dir", &options->result_dir, "its folder");
  table->Add("label", &options->label, "a name for the run, kept in the file");
}

absl::StatusOr<double> ParseRate(const std::string& text) {
  if (text == "inf") {
    return std::numeric_limits<double>::infinity();
  }
  double rate = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, rate);
  if (error != std::errc() || stop != end || !std::isfinite(rate) || rate <= 0) {
    return InvalidArgumentF("--request-rate {}: expected inf or a number above 0", text);
  }
  return rate;
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
    double milliseconds = 0;
    const char* begin = word.data() + std::min(colon, word.size() - 1) + 1;
    const char* end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(begin, end, milliseconds);
    if (limit == nullptr || error != std::errc() || stop != end ||
        !std::isfinite(milliseconds) || milliseconds <= 0) {
      return InvalidArgumentF("--goodput {}: expected ttft:MS, tpot:MS or e2el:MS", word);
    }
    *limit = absl::Milliseconds(milliseconds);
  }
  return limits;
}

json ResultJson(const BenchOptions& options, const LatencyLimits& limits,
                const LoadRun& run, const LoadReport& report, Clock* clock) {
  json out = ReportJson(report, limits);
  const double rate = options.workload.request_rate;
  out["date"] = absl::FormatTime("%Y%m%d-%H%M%S", clock->Now(), absl::UTCTimeZone());
  out["backend"] = options.backend;
  out["endpoint_type"] = options.backend;
  out["label"] = options.label.empty() ? json(nullptr) : json(options.label);
  out["model_id"] = options.load.model;
  out["base_url"] = options.base_url;
  out["endpoint"] = options.load.endpoint;
  out["dataset_name"] = options.dataset_name;
  out["num_prompts"] = options.workload.num_prompts;
  out["random_input_len"] = options.workload.input_len;
  out["random_output_len"] = options.workload.output_len;
  out["random_range_ratio"] = options.workload.range_ratio;
  out["random_prefix_len"] = options.workload.prefix_len;
  out["seed"] = options.workload.seed;
  out["ignore_eos"] = options.load.ignore_eos;
  out["request_rate"] = std::isfinite(rate) ? json(rate) : json("inf");
  out["max_concurrency"] = options.load.max_concurrency;
  out["max_concurrent_requests"] = run.max_concurrent_requests;
  out["environment"] = {{"client", fmt::format("tessera {}", Version())},
                        {"compiler", Compiler()},
                        {"client_threads", std::thread::hardware_concurrency()}};
  return out;
}

std::string ResultPath(const BenchOptions& options, Clock* clock) {
  std::string name = options.result_filename;
  if (name.empty()) {
    name =
        fmt::format("{}-{}qps-concurrency{}-{}.json", options.backend,
                    options.request_rate, options.load.max_concurrency,
                    absl::FormatTime("%Y%m%d-%H%M%S", clock->Now(), absl::UTCTimeZone()));
  }
  return options.result_dir.empty() ? name : options.result_dir + "/" + name;
}

absl::Status WriteResult(const std::string& path, const json& result) {
  std::ofstream file(path);
  file << result.dump(2, ' ', false, json::error_handler_t::replace) << '\n';
  file.close();
  return file ? absl::OkStatus() : UnavailableF("cannot write {}", path);
}

// Requests of their own seed, so that the run finds no prompt of theirs in a cache.
absl::Status WarmUp(const BenchOptions& options, Clock* clock) {
  if (options.num_warmups == 0) {
    return absl::OkStatus();
  }
  WorkloadOptions workload = options.workload;
  workload.num_prompts = options.num_warmups;
  workload.seed = ~workload.seed;
  TESSERA_ASSIGN_OR_RETURN(const auto planned, PlanWorkload(workload));
  TESSERA_ASSIGN_OR_RETURN(const LoadRun run, RunLoad(options.load, planned, clock));
  for (const RequestRecord& record : run.records) {
    if (!record.error_kind.empty()) {
      return UnavailableF("warming up: {}", record.error);
    }
  }
  return absl::OkStatus();
}

absl::Status BenchServe(BenchOptions options, Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(options.workload.request_rate,
                           ParseRate(options.request_rate));
  TESSERA_ASSIGN_OR_RETURN(const LatencyLimits limits, ParseGoodput(options.goodput));
  TESSERA_ASSIGN_OR_RETURN(const auto planned, PlanWorkload(options.workload));
  TESSERA_ASSIGN_OR_RETURN(const auto interrupt, Interrupt::Create());
  options.load.http.url = options.base_url;
  options.load.http.cancel_descriptor = interrupt->descriptor();
  if (options.load.model.empty()) {
    TESSERA_ASSIGN_OR_RETURN(
        const auto client, OpenAiClient::Create(options.load.http, options.load.api_key));
    TESSERA_ASSIGN_OR_RETURN(options.load.model, client->FirstModel());
  }
  TESSERA_RETURN_IF_ERROR(WarmUp(options, clock));
  std::cerr << fmt::format(
      "{} requests to {} at {}: {} + {} tokens, rate {}, at most {} at once\n",
      planned.size(), options.load.model, options.base_url,
      options.workload.prefix_len + options.workload.input_len,
      options.workload.output_len, options.request_rate, options.load.max_concurrency);
  TESSERA_ASSIGN_OR_RETURN(const LoadRun run, RunLoad(options.load, planned, clock));
  const LoadReport report = MakeReport(run.records, run.duration, limits);
  std::cout << ReportText(report, limits) << std::flush;
  if (options.save_result || !options.result_filename.empty()) {
    const std::string path = ResultPath(options, clock);
    TESSERA_RETURN_IF_ERROR(
        WriteResult(path, ResultJson(options, limits, run, report, clock)));
    std::cerr << "wrote " << path << '\n';
  }
  if (interrupt->Take()) {
    return absl::CancelledError("interrupted; the report is of what completed before");
  }
  if (report.failed > 0) {
    return UnavailableF("{} of {} requests failed", report.failed, planned.size());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunBench(Arguments arguments) {
  BenchOptions options;
  OptionTable table("bench serve",
                    "Loads a running server of the OpenAI API and reports throughput "
                    "and latencies. Ends with 1 if a request failed.");
  Declare(&table, &options);
  const bool named = !arguments.empty() && arguments.front() == "serve";
  const bool options_only = !arguments.empty() && arguments.front().starts_with('-');
  if (!named && !options_only) {
    return InvalidArgumentF("expected tessera bench serve [OPTIONS]");
  }
  TESSERA_ASSIGN_OR_RETURN(
      const bool go_on, ParseOptions(&table, named ? arguments.subspan(1) : arguments));
  if (!go_on) {
    return absl::OkStatus();
  }
  if (!named) {
    return InvalidArgumentF("expected tessera bench serve in front of {}",
                            arguments.front());
  }
  return BenchServe(std::move(options), Clock::Real());
}

}  // namespace tessera::cli
