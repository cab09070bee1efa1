#include "cli/bench/engram_command.h"

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/bench/engram_bench.h"
#include "cli/bench/figures.h"
#include "cli/bench/machine_limits.h"
#include "cli/bench/row_limits.h"
#include "cli/subcommand.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"

#include "common/build_info.h"
#include "common/clock.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/client/engram_source.h"

namespace tessera::cli {
namespace {

constexpr double kMega = 1e6;
constexpr double kGiga = 1e9;
constexpr int64_t kMaxTokens = 1 << 14;
constexpr int64_t kHashTokens = 1 << 14;
// Of one measurement at least, so that a clock that ticks in microseconds does not show.
constexpr int64_t kRowsPerRound = 1 << 16;
// Each over other rows, and the best counts, of the raw loop and of the sources alike:
// the first still has to bring page tables and destination into the caches.
constexpr int kPasses = 3;

struct Options {
  EngramBenchOptions bench;
  std::string tokens = "1,64,1024";
  std::string sources = "resident,shm,remote,cached";
  int64_t table_mib = 512;
  int64_t cache_mib = 64;
  int num_shards = 2;
  int rounds = 5;
  std::string output_json;
};

// One source at one number of tokens.
struct Point {
  engram_store::EngramSource* source = nullptr;
  int64_t tokens = 0;
  Spread seconds;  // of one request
  Spread share;    // the raw loop's time over this, in the same round
  double cache_hit_share = 0;
};

struct Limits {
  Spread read_bytes;
  Spread remainders;                // per second
  std::vector<Spread> raw_seconds;  // of a request, by number of tokens
};

struct Hash {
  Spread tokens_per_second;
  Spread share;
};

struct Result {
  std::vector<int64_t> tokens;
  std::vector<Point> points;
  Limits limits;
  Hash hash;
  std::vector<uint64_t> rows_by_shard;
};

void DeclareOptions(OptionTable* table, Options* options) {
  table->Heading("Tables");
  table
      ->Add("table-mib", &options->table_mib,
            "MiB of packed rows; held twice, and once more to measure the raw rate")
      .Range(1, 1 << 20);
  table
      ->Add("num-shards", &options->num_shards,
            "shards that the rows are split over, of the sources other than resident")
      .Range(1, 64);
  table->Add("cache-mib", &options->cache_mib, "MiB of the cached source")
      .Range(1, 1 << 20);
  table->Heading("Measurement");
  table->Add("tokens", &options->tokens,
             "tokens of one request, with commas: 1,64,1024; each asks for 24 rows");
  table
      ->Add("token-choice", &options->bench.tokens,
            "random: hardly a row twice; text: few tokens often; repeated: one token")
      .OneOf({"random", "text", "repeated"});
  table->Add("sources", &options->sources,
             "what is measured, with commas: resident,shm,remote,cached");
  table
      ->Add("rounds", &options->rounds,
            "each measures the machine's limits and every point once")
      .Range(1, 1000);
  table->Add("output-json", &options->output_json, "file for the figures of every round");
}

// The sources that the list names, in its order.
absl::StatusOr<std::vector<engram_store::EngramSource*>> ChooseSources(
    const EngramBench& bench, const std::string& list) {
  std::vector<engram_store::EngramSource*> chosen;
  std::vector<std::string> known;
  for (const auto& source : bench.sources()) {
    known.emplace_back(source->name());
  }
  std::istringstream names(list);
  for (std::string name; std::getline(names, name, ',');) {
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end()) {
      return InvalidArgumentF("--sources {}: \"{}\", expected {}", list, name,
                              fmt::join(known, ", "));
    }
    chosen.push_back(bench.sources()[static_cast<size_t>(found - known.begin())].get());
  }
  if (chosen.empty()) {
    return InvalidArgumentF("--sources is empty, expected some of {}",
                            fmt::join(known, ", "));
  }
  return chosen;
}

int64_t RequestsPerRound(const EngramBench& bench, int64_t tokens) {
  return std::max<int64_t>(1, kRowsPerRound / (tokens * bench.num_columns()));
}

double CacheHitShare(const engram_store::EngramSourceStats& before,
                     const engram_store::EngramSourceStats& after) {
  const uint64_t hits = after.cache_hits - before.cache_hits;
  const uint64_t all = hits + after.cache_misses - before.cache_misses;
  return all == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(all);
}

absl::Status MeasurePoint(EngramBench& bench, double raw_seconds, Point* point) {
  const int64_t count = RequestsPerRound(bench, point->tokens);
  const engram_store::EngramSourceStats before = point->source->stats();
  double seconds = std::numeric_limits<double>::infinity();
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto requests = bench.Requests(count, point->tokens);
    TESSERA_ASSIGN_OR_RETURN(const double took, bench.Serve(point->source, requests));
    seconds = std::min(seconds, took);
  }
  point->cache_hit_share = CacheHitShare(before, point->source->stats());
  point->seconds.rounds.push_back(seconds / static_cast<double>(count));
  point->share.rounds.push_back(raw_seconds / point->seconds.rounds.back());
  return absl::OkStatus();
}

// Of a request.
double RawSeconds(EngramBench& bench, const RowLimits& rows, int64_t tokens) {
  const int64_t count = RequestsPerRound(bench, tokens);
  double best = std::numeric_limits<double>::infinity();
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto requests = bench.Requests(count, tokens);
    best = std::min(
        best, rows.GatherSeconds(requests, bench.Destination(requests.front().size())));
  }
  return best / static_cast<double>(count);
}

absl::Status Round(EngramBench& bench, const RowLimits& rows, MachineLimits& machine,
                   Result* result) {
  Limits& limits = result->limits;
  limits.read_bytes.rounds.push_back(machine.ReadBytesPerSecond());
  limits.remainders.rounds.push_back(rows.RemaindersPerSecond());
  const double hashed = static_cast<double>(kHashTokens) / bench.HashSeconds(kHashTokens);
  result->hash.tokens_per_second.rounds.push_back(hashed);
  result->hash.share.rounds.push_back(2 * static_cast<double>(bench.num_columns()) *
                                      hashed / limits.remainders.rounds.back());
  size_t next = 0;
  for (size_t i = 0; i < result->tokens.size(); ++i) {
    const double seconds = RawSeconds(bench, rows, result->tokens[i]);
    limits.raw_seconds[i].rounds.push_back(seconds);
    for (;
         next < result->points.size() && result->points[next].tokens == result->tokens[i];
         ++next) {
      TESSERA_RETURN_IF_ERROR(MeasurePoint(bench, seconds, &result->points[next]));
    }
  }
  return absl::OkStatus();
}

double ShardSkew(const std::vector<uint64_t>& rows) {
  const auto [low, high] = std::minmax_element(rows.begin(), rows.end());
  return static_cast<double>(*high) / static_cast<double>(std::max<uint64_t>(1, *low));
}

void Print(const EngramBench& bench, const Result& result) {
  std::cout << fmt::format(
      "{}, one thread; {} rows of {} bytes; reads {:.2f} GB/s, {:.0f} M remainders/s\n",
      ProcessorName(), bench.num_rows(), bench.row_bytes(),
      result.limits.read_bytes.Median() / kGiga,
      result.limits.remainders.Median() / kMega);
  std::cout << fmt::format(
      "hash of {} columns: {} {:>5.1f} % of the machine's remainders\n",
      2 * bench.num_columns(),
      result.hash.tokens_per_second.Text(1 / kMega, "M tokens/s"),
      100 * result.hash.share.Median());
  size_t next = 0;
  for (size_t i = 0; i < result.tokens.size(); ++i) {
    const int64_t count = result.tokens[i] * bench.num_columns();
    const Spread& raw = result.limits.raw_seconds[i];
    std::cout << fmt::format("{:>6} rows raw      {} {:>6.2f} M rows/s\n", count,
                             raw.Text(kMega, "us"),
                             static_cast<double>(count) / raw.Median() / kMega);
    for (; next < result.points.size() && result.points[next].tokens == result.tokens[i];
         ++next) {
      const Point& point = result.points[next];
      const double rate = static_cast<double>(count) / point.seconds.Median();
      std::cout << fmt::format(
          "{:>6} rows {:<8} {} {:>6.2f} M rows/s {:>6.2f} GB/s {:>5.1f} % of raw{}\n",
          count, point.source->name(), point.seconds.Text(kMega, "us"), rate / kMega,
          rate * static_cast<double>(bench.row_bytes()) / kGiga,
          100 * point.share.Median(),
          point.source->name() == "cached"
              ? fmt::format(", {:.0f} % hits", 100 * point.cache_hit_share)
              : std::string());
    }
  }
  std::cout << fmt::format("distinct rows of {} tokens by shard: {}, skew {:.3f}\n",
                           result.tokens.back(), fmt::join(result.rows_by_shard, ", "),
                           ShardSkew(result.rows_by_shard));
}

nlohmann::json ResultJson(const Options& options, const EngramBench& bench,
                          const Result& result) {
  nlohmann::json json = {{"command", "engram"},
                         {"version", Version()},
                         {"processor", ProcessorName()},
                         {"threads", 1},
                         {"rounds", options.rounds},
                         {"num_rows", bench.num_rows()},
                         {"row_bytes", bench.row_bytes()},
                         {"num_shards", options.num_shards},
                         {"token_choice", options.bench.tokens},
                         {"read_bytes_per_s", result.limits.read_bytes.Json()},
                         {"remainders_per_s", result.limits.remainders.Json()},
                         {"hash",
                          {{"columns", 2 * bench.num_columns()},
                           {"tokens_per_s", result.hash.tokens_per_second.Json()},
                           {"share", result.hash.share.Json()}}},
                         {"rows_by_shard", result.rows_by_shard},
                         {"shard_skew", ShardSkew(result.rows_by_shard)},
                         {"raw", nlohmann::json::array()},
                         {"points", nlohmann::json::array()}};
  for (size_t i = 0; i < result.tokens.size(); ++i) {
    json["raw"].push_back({{"rows", result.tokens[i] * bench.num_columns()},
                           {"seconds", result.limits.raw_seconds[i].Json()}});
  }
  for (const Point& point : result.points) {
    const int64_t rows = point.tokens * bench.num_columns();
    json["points"].push_back({{"source", point.source->name()},
                              {"rows", rows},
                              {"bytes", rows * static_cast<int64_t>(bench.row_bytes())},
                              {"seconds", point.seconds.Json()},
                              {"share", point.share.Json()},
                              {"cache_hit_share", point.cache_hit_share}});
  }
  return json;
}

absl::Status Measure(Options options, Clock* clock) {
  Result result;
  TESSERA_ASSIGN_OR_RETURN(result.tokens,
                           ReadCounts("--tokens", options.tokens, kMaxTokens));
  options.bench.table_bytes = static_cast<uint64_t>(options.table_mib) << 20;
  options.bench.cache_bytes = static_cast<uint64_t>(options.cache_mib) << 20;
  options.bench.num_shards = static_cast<uint32_t>(options.num_shards);
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<EngramBench> bench,
                           EngramBench::Create(options.bench, clock));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<engram_store::EngramSource*> sources,
                           ChooseSources(*bench, options.sources));
  for (const int64_t tokens : result.tokens) {
    for (engram_store::EngramSource* const source : sources) {
      // As a warm-up, too: connections, buffers.
      TESSERA_RETURN_IF_ERROR(bench->Check(source, bench->Requests(1, tokens).front()));
      Point& point = result.points.emplace_back();
      point.source = source;
      point.tokens = tokens;
    }
  }
  result.limits.raw_seconds.resize(result.tokens.size());
  TESSERA_ASSIGN_OR_RETURN(
      result.rows_by_shard,
      bench->RowsByShard(bench->Requests(1, result.tokens.back()).front()));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<RowLimits> rows,
                           RowLimits::Create(bench->num_rows() * bench->row_bytes(),
                                             bench->row_bytes(), clock));
  MachineLimits machine(1, clock);
  for (int round = 0; round < options.rounds; ++round) {
    TESSERA_RETURN_IF_ERROR(Round(*bench, *rows, machine, &result));
  }
  Print(*bench, result);
  return options.output_json.empty()
             ? absl::OkStatus()
             : WriteJson(options.output_json, ResultJson(options, *bench, result));
}

}  // namespace

absl::Status RunBenchEngram(Arguments arguments) {
  Options options;
  OptionTable table(
      "bench engram",
      "Times lookups of Engram rows on one thread of this machine, in tables of V4.1's "
      "shape with made-up rows. Of each source: median and spread over the rounds, rows "
      "and bytes per second, and the share of the rate at which a plain loop copies "
      "random rows out of memory, measured in the same round. Also the hash of tokens to "
      "rows, against the remainders that one thread can take, and how evenly the rows of "
      "a request spread over the shards.");
  DeclareOptions(&table, &options);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  return go_on ? Measure(std::move(options), Clock::Real()) : absl::OkStatus();
}

}  // namespace tessera::cli
