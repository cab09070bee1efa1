// tessera bench: `serve` loads a running server and reports what its clients see, with
// the flags and keys that other benchmark tools have; `decode` and `prefill` measure a
// model in this process (model_command.h), `kernels` single ops, `engram` lookups of rows
// (engram_command.h), `host` what stands around a step (host_command.h).
#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/bench/bench_options.h"
#include "cli/bench/bench_plot.h"
#include "cli/bench/bench_result.h"
#include "cli/bench/engram_command.h"
#include "cli/bench/host_command.h"
#include "cli/bench/kernels_command.h"
#include "cli/bench/model_command.h"
#include "cli/bench/sources_command.h"
#include "cli/client/interrupt.h"
#include "cli/client/load_generator.h"
#include "cli/client/load_report.h"
#include "cli/client/openai_client.h"
#include "cli/client/workload.h"
#include "cli/subcommand.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"
#include <sys/resource.h>

#include "common/clock.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

// Each request under way takes descriptors, and the usual soft limit is 1024.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

// The failure of the first request that failed.
absl::Status FirstFailure(const LoadRun& run, const char* doing) {
  for (const RequestRecord& record : run.records) {
    if (!record.error_kind.empty()) {
      return UnavailableF("{}: {}", doing, record.error);
    }
    if (!record.sent) {
      return absl::CancelledError("interrupted");
    }
  }
  return absl::OkStatus();
}

// Requests of their own seed, so that the run finds no prompt of theirs in a cache.
absl::StatusOr<LoadRun> SendOthers(const BenchPlan& plan, int64_t count, Clock* clock) {
  WorkloadOptions workload = plan.workload;
  workload.num_prompts = count;
  workload.num_prefixes = std::min(workload.num_prefixes, count);
  workload.arrivals = ArrivalOptions();
  workload.seed = ~workload.seed;
  TESSERA_ASSIGN_OR_RETURN(const auto planned, PlanWorkload(workload));
  return RunLoad(plan.load, planned, clock);
}

// Until a request is answered, as the workload's will be, or the time is over.
absl::Status WaitReady(const BenchOptions& options, const BenchPlan& plan, Clock* clock) {
  if (options.ready_check_timeout_sec == 0) {
    return absl::OkStatus();
  }
  const absl::Time deadline =
      clock->Now() + absl::Seconds(options.ready_check_timeout_sec);
  for (;;) {
    TESSERA_ASSIGN_OR_RETURN(const LoadRun run, SendOthers(plan, 1, clock));
    const std::string& kind = run.records.front().error_kind;
    if (kind.empty() || kind == "cancelled" || clock->Now() >= deadline) {
      return FirstFailure(run, "checking that the server is ready");
    }
    clock->Sleep(absl::Seconds(1));
  }
}

absl::Status WarmUp(const BenchOptions& options, const BenchPlan& plan, Clock* clock) {
  if (options.num_warmups == 0) {
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(const LoadRun run,
                           SendOthers(plan, options.num_warmups, clock));
  return FirstFailure(run, "warming up");
}

// One rate. `index` counts the runs: each has prompts of its own, or the second would
// find those of the first in a cache.
absl::StatusOr<BenchRun> RunOne(const BenchPlan& plan, size_t index, Clock* clock) {
  WorkloadOptions workload = plan.workload;
  workload.seed += index;
  workload.arrivals.request_rate = plan.request_rates[index];
  TESSERA_ASSIGN_OR_RETURN(const auto planned, PlanWorkload(workload));
  std::cerr << fmt::format("{} requests to {} at {}, {}\n", planned.size(),
                           plan.load.model, plan.load.http.url,
                           std::isinf(plan.request_rates[index])
                               ? std::string("without waiting")
                               : fmt::format("{} a second", plan.request_rates[index]));
  BenchRun run;
  run.request_rate = plan.request_rates[index];
  TESSERA_ASSIGN_OR_RETURN(run.load, RunLoad(plan.load, planned, clock));
  run.report = MakeReport(run.load.records, run.load.duration, plan.report);
  std::cout << ReportText(run.report, plan.report) << std::flush;
  for (const std::string& warning : Warnings(plan, run)) {
    std::cerr << "warning: " << warning << '\n';
  }
  return run;
}

absl::Status Save(const BenchOptions& options, const BenchPlan& plan,
                  const std::vector<BenchRun>& runs, absl::Time now) {
  if (options.save_result || options.save_detailed || options.append_result ||
      !options.result_filename.empty()) {
    std::vector<nlohmann::json> results;
    for (const BenchRun& run : runs) {
      results.push_back(ResultJson(options, plan, run, now));
    }
    const std::string path = ResultPath(options, plan, now);
    TESSERA_RETURN_IF_ERROR(WriteResults(path, options.append_result, results));
    std::cerr << "wrote " << path << '\n';
  }
  if (!options.plot_file.empty()) {
    TESSERA_RETURN_IF_ERROR(WritePlot(options.plot_file, plan, runs));
    std::cerr << "wrote " << options.plot_file << '\n';
  }
  return absl::OkStatus();
}

absl::Status BenchServe(const BenchOptions& options, Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(BenchPlan plan, PlanBench(options, ProcessEnvironment()));
  TESSERA_ASSIGN_OR_RETURN(const auto interrupt, Interrupt::Create());
  plan.load.http.cancel_descriptor = interrupt->descriptor();
  RaiseDescriptorLimit();
  if (plan.load.model.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const auto client,
                             OpenAiClient::Create(plan.load.http, plan.load.api_key));
    TESSERA_ASSIGN_OR_RETURN(plan.load.model, client->FirstModel());
  }
  TESSERA_RETURN_IF_ERROR(WaitReady(options, plan, clock));
  TESSERA_RETURN_IF_ERROR(WarmUp(options, plan, clock));
  std::vector<BenchRun> runs;
  int64_t failed = 0;
  bool interrupted = false;
  for (size_t i = 0; i < plan.request_rates.size() && !interrupted; ++i) {
    TESSERA_ASSIGN_OR_RETURN(BenchRun run, RunOne(plan, i, clock));
    failed += run.report.failed;
    interrupted = interrupt->Take();
    runs.push_back(std::move(run));
  }
  TESSERA_RETURN_IF_ERROR(Save(options, plan, runs, clock->Now()));
  if (interrupted) {
    return absl::CancelledError("interrupted; the report is of what completed before");
  }
  if (failed > 0) {
    return UnavailableF("{} requests failed", failed);
  }
  return absl::OkStatus();
}

absl::Status RunBenchServe(Arguments arguments) {
  BenchOptions options;
  OptionTable table("bench serve",
                    "Loads a running server of the OpenAI API, this one or another, and "
                    "reports throughput and latencies. Requests go out at their time, "
                    "whatever became of those before them. Ends with 1 if one failed.");
  DeclareBench(&table, &options);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  return go_on ? BenchServe(options, Clock::Real()) : absl::OkStatus();
}

constexpr std::array kKinds = {
    Subcommand{"serve", "Loads a running server of the OpenAI API.", &RunBenchServe},
    Subcommand{"decode", "Times decode steps of a model on this machine.",
               &RunBenchDecode},
    Subcommand{"prefill", "Times prefills of a model on this machine.", &RunBenchPrefill},
    Subcommand{"kernels", "Times products with weights on this machine.",
               &RunBenchKernels},
    Subcommand{"engram", "Times lookups of Engram rows on this machine.",
               &RunBenchEngram},
    Subcommand{"sources", "Times a model's steps with Engram rows from every source.",
               &RunBenchSources},
    Subcommand{"host", "Times the host's part of a step on this machine.", &RunBenchHost},
};

}  // namespace

absl::Status RunBench(Arguments arguments) {
  const std::string name = arguments.empty() ? "" : arguments.front();
  for (const Subcommand& kind : kKinds) {
    if (name == kind.name) {
      return kind.run(arguments.subspan(1));
    }
  }
  if (name != "--help" && name != "-h") {
    std::vector<std::string_view> names;
    for (const Subcommand& kind : kKinds) {
      names.emplace_back(kind.name);
    }
    return InvalidArgumentF("expected one of {} behind bench, got {}",
                            fmt::join(names, ", "), name.empty() ? "nothing" : name);
  }
  std::cout << "Measures a server, or parts of one on this machine.\n"
               "Usage: tessera bench KIND [OPTIONS]\n\nKinds:\n";
  for (const Subcommand& kind : kKinds) {
    std::cout << fmt::format("  {:<10}{}\n", kind.name, kind.summary);
  }
  std::cout << "\n`tessera bench KIND --help` lists the options of one.\n";
  return absl::OkStatus();
}

}  // namespace tessera::cli
