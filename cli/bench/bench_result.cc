#include "cli/bench/bench_result.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <thread>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include <sys/utsname.h>

#include "common/build_info.h"
#include "common/status.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

// A generator that is late by less changes no figure that a user looks at.
constexpr double kLagMsMax = 10;
constexpr double kLagShareMax = 0.1;
// Of all processors: above this the streams wait for the client, not for the server.
constexpr double kProcessorShareMax = 0.8;
constexpr double kTokensPerEventMax = 1.1;

std::string TimeText(absl::Time now) {
  return absl::FormatTime("%Y%m%d-%H%M%S", now, absl::UTCTimeZone());
}

json RateJson(double rate) { return std::isfinite(rate) ? json(rate) : json("inf"); }

double Processors() { return std::max(1U, std::thread::hardware_concurrency()); }

// The share of this machine that the client itself used.
double ProcessorShare(const LoadRun& run) {
  const double seconds = absl::ToDoubleSeconds(run.duration);
  return seconds > 0 ? absl::ToDoubleSeconds(run.client_cpu) / seconds / Processors() : 0;
}

json EnvironmentJson(const LoadRun& run) {
  utsname machine{};
  ::uname(&machine);
  return {{"client", fmt::format("tessera {}", Version())},
          {"compiler", Compiler()},
          {"system",
           fmt::format("{} {} {}", machine.sysname, machine.release, machine.machine)},
          {"client_threads", std::thread::hardware_concurrency()},
          {"client_cpu_seconds", absl::ToDoubleSeconds(run.client_cpu)},
          {"client_cpu_share", ProcessorShare(run)}};
}

json WorkloadJson(const WorkloadOptions& workload) {
  json out = {{"num_prompts", workload.num_prompts},
              {"seed", workload.seed},
              {"prompt_format", workload.as_text ? "text" : "ids"}};
  switch (workload.dataset) {
    case Dataset::kRandom:
      out["random_input_len"] = workload.input_len;
      out["random_output_len"] = workload.output_len;
      out["random_range_ratio"] = workload.range_ratio;
      out["random_prefix_len"] = workload.prefix_len;
      break;
    case Dataset::kPrefixRepetition:
      out["prefix_repetition_prefix_len"] = workload.repeated_prefix_len;
      out["prefix_repetition_suffix_len"] = workload.repeated_suffix_len;
      out["prefix_repetition_num_prefixes"] = workload.num_prefixes;
      out["prefix_repetition_output_len"] = workload.repeated_output_len;
      break;
    case Dataset::kShareGpt:
    case Dataset::kCustom:
      out["dataset_path"] = workload.dataset_path;
      break;
  }
  return out;
}

}  // namespace

json ResultJson(const BenchOptions& options, const BenchPlan& plan, const BenchRun& run,
                absl::Time now) {
  json out = {{"date", TimeText(now)},
              {"endpoint_type", options.backend},
              {"backend", options.backend},
              {"label", options.label.empty() ? json(nullptr) : json(options.label)},
              {"model_id", plan.load.model},
              {"tokenizer_id", nullptr},
              {"base_url", plan.load.http.url},
              {"endpoint", plan.load.endpoint},
              {"dataset_name", options.dataset_name}};
  for (const auto& [key, value] : plan.metadata) {
    out[key] = value;
  }
  out.update(WorkloadJson(plan.workload));
  out["ignore_eos"] = plan.load.ignore_eos;
  out["extra_body"] = json::parse(plan.load.extra_body, nullptr, false);
  out["request_rate"] = RateJson(run.request_rate);
  out["burstiness"] = RateJson(plan.workload.arrivals.burstiness);
  out["max_concurrency"] = options.max_concurrency.has_value()
                               ? json(*options.max_concurrency)
                               : json(nullptr);
  if (options.ramp_up_strategy.has_value()) {
    out["ramp_up_strategy"] = *options.ramp_up_strategy;
    out["ramp_up_start_rps"] = options.ramp_up_start_rps;
    out["ramp_up_end_rps"] = options.ramp_up_end_rps;
  }
  out.update(ReportJson(run.report, plan.report));
  out["max_concurrent_requests"] = run.load.max_concurrent_requests;
  out["held_back_requests"] = run.load.num_held_back;
  out["goodput"] = options.goodput;
  out["environment"] = EnvironmentJson(run.load);
  out["warnings"] = Warnings(plan, run);
  if (options.save_detailed) {
    out.update(DetailJson(run.load.records));
  }
  return out;
}

std::string ResultPath(const BenchOptions& options, const BenchPlan& plan,
                       absl::Time now) {
  std::string name = options.result_filename;
  if (name.empty()) {
    const std::string rate =
        options.ramp_up_strategy.has_value()
            ? fmt::format("ramp-up-{}-{}qps-{}qps", *options.ramp_up_strategy,
                          options.ramp_up_start_rps, options.ramp_up_end_rps)
        : options.request_rate_sweep.empty() ? options.request_rate + "qps"
                                             : std::string("sweep");
    const std::string concurrency =
        options.max_concurrency.has_value()
            ? fmt::format("-concurrency{}", *options.max_concurrency)
            : "";
    const std::string& model = plan.load.model;
    name = fmt::format("{}-{}{}-{}-{}.json",
                       options.label.empty() ? options.backend : options.label, rate,
                       concurrency, model.substr(model.rfind('/') + 1), TimeText(now));
  }
  return options.result_dir.empty() ? name : options.result_dir + "/" + name;
}

absl::Status WriteResults(const std::string& path, bool append,
                          std::span<const json> results) {
  std::error_code error;  // Of no interest: the file then cannot be opened either.
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  std::ofstream file(path, append ? std::ios::app : std::ios::trunc);
  const bool lines = append || results.size() > 1;
  for (const json& result : results) {
    file << result.dump(lines ? -1 : 2, ' ', false, json::error_handler_t::replace)
         << '\n';
  }
  file.close();
  return file ? absl::OkStatus() : UnavailableF("cannot write {}", path);
}

std::vector<std::string> Warnings(const BenchPlan& plan, const BenchRun& run) {
  std::vector<std::string> warnings;
  const LoadReport& report = run.report;
  const auto ttft = report.latencies.find("ttft");
  const double first_ms = ttft == report.latencies.end() ? 0 : ttft->second.median;
  // Where everything arrives at once, sending it all takes its time and harms nothing.
  if (plan.report.from_arrival &&
      report.lag_ms_p99 > std::max(kLagMsMax, kLagShareMax * first_ms)) {
    warnings.push_back(fmt::format(
        "the generator was late by up to {:.1f} ms (p99 {:.1f}): it, not the server, "
        "limits these figures; give it more processors or a lower rate",
        report.lag_ms_max, report.lag_ms_p99));
  }
  const double share = ProcessorShare(run.load);
  if (share > kProcessorShareMax) {
    warnings.push_back(fmt::format(
        "the client used {:.0f} % of this machine's processors", 100 * share));
  }
  if (plan.report.from_arrival && run.load.num_held_back > 0) {
    warnings.push_back(fmt::format(
        "{} requests waited for a free place: the load was not open, and the server saw "
        "{:.2f} requests a second of {:.2f}",
        run.load.num_held_back, report.achieved_rate, report.offered_rate));
  }
  if (report.tokens_per_event > kTokensPerEventMax && !plan.load.continuous_usage) {
    warnings.push_back(fmt::format(
        "the server sends {:.1f} tokens in a piece: itl is between pieces unless the "
        "server says how many each holds (see --continuous-usage); tpot is per token",
        report.tokens_per_event));
  }
  return warnings;
}

}  // namespace tessera::cli
