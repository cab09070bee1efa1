#include "cli/bench/host_command.h"

#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/bench/figures.h"
#include "cli/bench/host_bench.h"
#include "cli/bench/machine_limits.h"
#include "cli/subcommand.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/build_info.h"
#include "common/clock.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cpu/thread_pool.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::cli {
namespace {

constexpr double kMega = 1e6;
constexpr int64_t kMaxSequences = 4096;
constexpr int64_t kSteps = 256;
// Of text, encoded in each round.
constexpr size_t kTextBytes = size_t{1} << 20;
constexpr size_t kMaxTextBytes = size_t{64} << 20;

// Prose, code, numbers and other scripts, when no file is named.
constexpr std::string_view kMixedText =
    "The scheduler plans a step while the one before still runs, so that its time is "
    "hidden.\nfor (size_t i = 0; i < rows.size(); ++i) {\n  out[i] = table[rows[i]];\n}\n"
    "In 2026, 1,048,576 tokens took 12.5 ms. Größe, naïve, Привет мир, 中文文本和日本語の"
    "テキスト。\n{\"temperature\": 0.7, \"messages\": [{\"role\": \"user\"}]}\n";

struct Options {
  std::string model;
  std::string text;
  std::string sequences = "1,64,256";
  int threads = 2;
  int rounds = 5;
  std::string output_json;
};

struct Result {
  Spread read_bytes;
  Spread round_trip;  // seconds
  Spread hand_over;   // seconds
  Spread hand_over_share;
  Spread encode;  // bytes per second
  Spread encode_share;
  Spread decode;
  Spread decode_share;
  size_t text_bytes = 0;
  size_t text_tokens = 0;
  std::vector<int64_t> sequences;
  std::vector<Spread> plan;  // seconds of a step, by number of sequences
};

void DeclareOptions(OptionTable* table, Options* options) {
  table->Heading("Measurement");
  table->Add("model", &options->model, "folder with tokenizer.json").Positional("MODEL");
  table->Add("text", &options->text,
             "file of text that is encoded, up to 64 MiB; without one, a paragraph of "
             "prose, code, numbers and other scripts, again and again");
  table->Add("sequences", &options->sequences,
             "sequences that decode in a planned step, with commas: 1,64,256");
  table->Add("threads", &options->threads, "of the pool that is handed work")
      .Range(2, 1024);
  table
      ->Add("rounds", &options->rounds,
            "each measures the machine's limits and every part once")
      .Range(1, 1000);
  table->Add("output-json", &options->output_json, "file for the figures of every round");
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  std::string text;
  if (path.empty()) {
    while (text.size() < kTextBytes) {
      text += kMixedText;
    }
    return text;
  }
  std::ifstream file(path, std::ios::binary);
  text.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  if (!file || text.empty() || text.size() > kMaxTextBytes) {
    return InvalidArgumentF("{}: {} readable bytes, expected 1 to {}", path, text.size(),
                            kMaxTextBytes);
  }
  return text;
}

void MeasureText(const model::Tokenizer& tokenizer, const std::string& text, Clock* clock,
                 Result* result) {
  const absl::Time begin = clock->Now();
  const std::vector<int32_t> ids = tokenizer.Encode(text, model::AddedTokens::kRecognize);
  const absl::Time middle = clock->Now();
  model::IncrementalDecoder decoder(&tokenizer, /*skip_special=*/true);
  size_t decoded = 0;
  for (const int32_t id : ids) {
    decoded += decoder.Push(id).size();
  }
  decoded += decoder.Flush().size();
  const absl::Time end = clock->Now();
  const double limit = result->read_bytes.rounds.back();
  result->text_bytes = text.size();
  result->text_tokens = ids.size();
  result->encode.rounds.push_back(static_cast<double>(text.size()) /
                                  absl::ToDoubleSeconds(middle - begin));
  result->encode_share.rounds.push_back(result->encode.rounds.back() / limit);
  result->decode.rounds.push_back(static_cast<double>(decoded) /
                                  absl::ToDoubleSeconds(end - middle));
  result->decode_share.rounds.push_back(result->decode.rounds.back() / limit);
}

void Print(const Options& options, const Result& result) {
  std::cout << fmt::format(
      "{}; one thread reads {:.2f} GB/s; a cache line goes to another thread and back in "
      "{}\n",
      ProcessorName(), result.read_bytes.Median() / 1e9,
      result.round_trip.Text(kMega, "us"));
  std::cout << fmt::format(
      "encode  {} bytes, {} tokens: {} {:>5.2f} % of the read bandwidth\n",
      result.text_bytes, result.text_tokens, result.encode.Text(1 / kMega, "MB/s"),
      100 * result.encode_share.Median());
  std::cout << fmt::format(
      "decode  token by token: {} {:>5.2f} % of the read bandwidth\n",
      result.decode.Text(1 / kMega, "MB/s"), 100 * result.decode_share.Median());
  for (size_t i = 0; i < result.sequences.size(); ++i) {
    std::cout << fmt::format(
        "plan    {:>4} sequences: {} a step, {:.0f} ns a sequence\n", result.sequences[i],
        result.plan[i].Text(kMega, "us"),
        result.plan[i].Median() * 1e9 / static_cast<double>(result.sequences[i]));
  }
  std::cout << fmt::format(
      "hand    {} threads get work and are done: {} {:>5.1f} % of the cache line's "
      "time\n",
      options.threads, result.hand_over.Text(kMega, "us"),
      100 * result.hand_over_share.Median());
}

nlohmann::json ResultJson(const Options& options, const Result& result) {
  nlohmann::json json = {{"command", "host"},
                         {"version", Version()},
                         {"processor", ProcessorName()},
                         {"model", options.model},
                         {"threads", options.threads},
                         {"rounds", options.rounds},
                         {"read_bytes_per_s", result.read_bytes.Json()},
                         {"text_bytes", result.text_bytes},
                         {"text_tokens", result.text_tokens},
                         {"encode_bytes_per_s", result.encode.Json()},
                         {"encode_share", result.encode_share.Json()},
                         {"decode_bytes_per_s", result.decode.Json()},
                         {"decode_share", result.decode_share.Json()},
                         {"round_trip_seconds", result.round_trip.Json()},
                         {"hand_over_seconds", result.hand_over.Json()},
                         {"hand_over_share", result.hand_over_share.Json()},
                         {"plans", nlohmann::json::array()}};
  for (size_t i = 0; i < result.sequences.size(); ++i) {
    json["plans"].push_back(
        {{"sequences", result.sequences[i]}, {"seconds", result.plan[i].Json()}});
  }
  return json;
}

absl::Status Measure(const Options& options, Clock* clock) {
  if (options.model.empty()) {
    return absl::InvalidArgumentError("a model folder is missing: --model DIR");
  }
  Result result;
  TESSERA_ASSIGN_OR_RETURN(result.sequences,
                           ReadCounts("--sequences", options.sequences, kMaxSequences));
  result.plan.resize(result.sequences.size());
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<model::Tokenizer> tokenizer,
                           model::Tokenizer::Load(options.model));
  TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadText(options.text));
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<kernels::cpu::ThreadPool> pool,
      kernels::cpu::ThreadPool::Create({.num_threads = options.threads}));
  std::vector<std::unique_ptr<SchedulerSteps>> steps;
  for (const int64_t count : result.sequences) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<SchedulerSteps> made,
                             SchedulerSteps::Create(count, clock));
    steps.push_back(std::move(made));
  }
  MachineLimits machine(1, clock);
  for (int round = 0; round < options.rounds; ++round) {
    result.read_bytes.rounds.push_back(machine.ReadBytesPerSecond());
    result.round_trip.rounds.push_back(RoundTripSeconds(clock));
    MeasureText(*tokenizer, text, clock, &result);
    for (size_t i = 0; i < steps.size(); ++i) {
      TESSERA_ASSIGN_OR_RETURN(const double seconds, steps[i]->Run(kSteps));
      result.plan[i].rounds.push_back(seconds);
    }
    result.hand_over.rounds.push_back(HandOverSeconds(pool.get(), clock));
    result.hand_over_share.rounds.push_back(result.round_trip.rounds.back() /
                                            result.hand_over.rounds.back());
  }
  Print(options, result);
  return options.output_json.empty()
             ? absl::OkStatus()
             : WriteJson(options.output_json, ResultJson(options, result));
}

}  // namespace

absl::Status RunBenchHost(Arguments arguments) {
  Options options;
  OptionTable table(
      "bench host",
      "Times what the host does around a model's steps, in this process and without "
      "weights: text to tokens and back on one thread, plans and answers of the "
      "scheduler, and the hand-over of work to a rank's threads. Median and spread over "
      "the rounds; shares are of the read bandwidth, and of the time in which a cache "
      "line goes to another thread and back, measured in the same round.");
  DeclareOptions(&table, &options);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  return go_on ? Measure(options, Clock::Real()) : absl::OkStatus();
}

}  // namespace tessera::cli
