#include "cli/bench/kernels_command.h"

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/bench/figures.h"
#include "cli/bench/kernels_bench.h"
#include "cli/bench/machine_limits.h"
#include "cli/subcommand.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"

#include "common/build_info.h"
#include "common/clock.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

constexpr double kGiga = 1e9;
constexpr int64_t kMaxRows = 4096;

struct Options {
  std::string kernels = "bf16,fp8,mxfp4,experts,experts-int8";
  std::string rows = "1,4,16,256";
  int threads = 1;
  int rounds = 5;
  std::string output_json;
};

// One kernel at one number of rows.
struct Point {
  size_t kind = 0;
  int64_t rows = 0;
  KernelTime cost;  // bytes and multiply-adds; the seconds are those of the last round
  Spread seconds;
  Spread read_share;      // of the read bandwidth of the same round
  Spread multiply_share;  // of the peak of the same round

  // Of the nearer bound.
  double Share() const { return std::max(read_share.Median(), multiply_share.Median()); }
};

struct Limits {
  Spread read_bytes;
  Spread floats;  // multiply-adds per second
  Spread int8;
};

// The kinds that the list names.
absl::StatusOr<std::vector<KernelKind>> ChooseKinds(const std::string& list) {
  std::vector<KernelKind> chosen;
  std::vector<std::string_view> known;
  for (const KernelKind& kind : KernelKinds()) {
    known.push_back(kind.name);
  }
  std::istringstream names(list);
  for (std::string name; std::getline(names, name, ',');) {
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end()) {
      return InvalidArgumentF("--kernels {}: \"{}\", expected {}", list, name,
                              fmt::join(known, ", "));
    }
    chosen.push_back(KernelKinds()[static_cast<size_t>(found - known.begin())]);
  }
  if (chosen.empty()) {
    return InvalidArgumentF("--kernels is empty, expected some of {}",
                            fmt::join(known, ", "));
  }
  return chosen;
}

absl::Status Round(const std::vector<KernelKind>& kinds,
                   const std::vector<std::unique_ptr<KernelsBench>>& benches,
                   MachineLimits& machine, Limits* limits, std::vector<Point>* points) {
  limits->read_bytes.rounds.push_back(machine.ReadBytesPerSecond());
  limits->floats.rounds.push_back(machine.MultiplyAddsPerSecond(Arithmetic::kF32));
  limits->int8.rounds.push_back(machine.MultiplyAddsPerSecond(Arithmetic::kInt8));
  for (Point& point : *points) {
    TESSERA_ASSIGN_OR_RETURN(point.cost, benches[point.kind]->Run(point.rows));
    const Spread& peak =
        kinds[point.kind].numerics == "f32" ? limits->floats : limits->int8;
    const double seconds = point.cost.seconds;
    point.seconds.rounds.push_back(seconds);
    point.read_share.rounds.push_back(point.cost.bytes / seconds /
                                      limits->read_bytes.rounds.back());
    point.multiply_share.rounds.push_back(point.cost.multiply_adds / seconds /
                                          peak.rounds.back());
  }
  return absl::OkStatus();
}

void Print(const std::vector<KernelKind>& kinds, std::string_view isa,
           const Options& options, const Limits& limits,
           const std::vector<Point>& points) {
  std::cout << fmt::format(
      "{}, {} threads, {}; reads {:.2f} GB/s, multiplies {:.1f} GFLOP/s, {:.1f} of "
      "8-bit integers\n",
      ProcessorName(), options.threads, isa, limits.read_bytes.Median() / kGiga,
      2 * limits.floats.Median() / kGiga, 2 * limits.int8.Median() / kGiga);
  for (const Point& point : points) {
    const double seconds = point.seconds.Median();
    const bool reads = point.read_share.Median() >= point.multiply_share.Median();
    std::cout << fmt::format(
        "{:<12} {:>4} rows {} {:>7.1f} MB {:>7.2f} GB/s {:>7.2f} GFLOP {:>7.1f} GFLOP/s "
        "{:>5.1f} % of {}\n",
        kinds[point.kind].name, point.rows, point.seconds.Text(1e3, "ms"),
        point.cost.bytes / 1e6, point.cost.bytes / seconds / kGiga,
        2 * point.cost.multiply_adds / kGiga,
        2 * point.cost.multiply_adds / seconds / kGiga, 100 * point.Share(),
        reads ? "the read bandwidth" : "the peak");
  }
}

nlohmann::json ResultJson(const std::vector<KernelKind>& kinds, std::string_view isa,
                          const Options& options, const Limits& limits,
                          const std::vector<Point>& points) {
  nlohmann::json json = {{"command", "kernels"},
                         {"version", Version()},
                         {"processor", ProcessorName()},
                         {"isa", isa},
                         {"threads", options.threads},
                         {"rounds", options.rounds},
                         {"read_bytes_per_s", limits.read_bytes.Json()},
                         {"multiply_adds_per_s", limits.floats.Json()},
                         {"int8_multiply_adds_per_s", limits.int8.Json()},
                         {"points", nlohmann::json::array()}};
  for (const Point& point : points) {
    json["points"].push_back({{"kernel", kinds[point.kind].name},
                              {"numerics", kinds[point.kind].numerics},
                              {"rows", point.rows},
                              {"bytes", point.cost.bytes},
                              {"flops", 2 * point.cost.multiply_adds},
                              {"seconds", point.seconds.Json()},
                              {"read_share", point.read_share.Json()},
                              {"multiply_share", point.multiply_share.Json()}});
  }
  return json;
}

absl::Status Measure(const Options& options, Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<KernelKind> kinds,
                           ChooseKinds(options.kernels));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int64_t> rows,
                           ReadCounts("--rows", options.rows, kMaxRows));
  std::vector<std::unique_ptr<KernelsBench>> benches;
  std::vector<Point> points;
  for (const KernelKind& kind : kinds) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<KernelsBench> bench,
                             KernelsBench::Create(kind, options.threads, clock));
    // As a warm-up.
    TESSERA_RETURN_IF_ERROR(bench->Run(rows.front()).status());
    for (const int64_t count : rows) {
      Point& point = points.emplace_back();
      point.kind = benches.size();
      point.rows = count;
    }
    benches.push_back(std::move(bench));
  }
  MachineLimits machine(options.threads, clock);
  Limits limits;
  for (int round = 0; round < options.rounds; ++round) {
    TESSERA_RETURN_IF_ERROR(Round(kinds, benches, machine, &limits, &points));
  }
  const std::string_view isa = benches.front()->backend().isa();
  Print(kinds, isa, options, limits, points);
  return options.output_json.empty()
             ? absl::OkStatus()
             : WriteJson(options.output_json,
                         ResultJson(kinds, isa, options, limits, points));
}

}  // namespace

absl::Status RunBenchKernels(Arguments arguments) {
  Options options;
  OptionTable table(
      "bench kernels",
      "Times products with made-up weights of V4-Flash's shapes in this process: one "
      "matrix of 4096 x 4096, or the experts of a step. Of each: median and spread over "
      "the rounds, the bytes of the weights, the FLOPs, and the share of the nearer "
      "bound, "
      "the read bandwidth or the multiply-add peak, measured in the same round.");
  table.Heading("Measurement");
  table.Add("kernels", &options.kernels,
            "what is measured, with commas: bf16, fp8, mxfp4: one matrix; experts, "
            "experts-int8: six MXFP4 experts a token, of 16");
  table.Add("rows", &options.rows, "rows of x, or tokens, with commas: 1,4,16,256");
  table.Add("threads", &options.threads, "of the kernels and of the limits")
      .Range(1, 1024);
  table
      .Add("rounds", &options.rounds,
           "each measures the machine's limits and every point once")
      .Range(1, 1000);
  table.Add("output-json", &options.output_json, "file for the figures of every round");
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  return go_on ? Measure(options, Clock::Real()) : absl::OkStatus();
}

}  // namespace tessera::cli
