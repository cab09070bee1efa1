#include "tests/simulation/serving_traces.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace tessera::testing {
namespace {

constexpr uint64_t kVocabSize = 32000;
constexpr int kTurns = 6;

class TraceMaker {
 public:
  explicit TraceMaker(const TraceOptions& options)
      : options_(options), random_(options.seed) {}

  std::vector<TraceRequest> Make() {
    for (int i = 0; i < 3; ++i) {
      systems_.push_back(Tokens(options_.max_model_len / 8));
    }
    std::vector<TraceRequest> requests;
    absl::Time at = absl::UnixEpoch();
    for (int i = 0; i < options_.num_requests; ++i) {
      at += absl::Seconds(-std::log(Uniform()) / options_.requests_per_second);
      requests.push_back(Request(at));
    }
    if (options_.kind == TraceKind::kLong) {
      for (int i = 0; i < options_.num_long; ++i) {
        requests.push_back(LongRequest(i));
      }
      std::sort(requests.begin(), requests.end(),
                [](const auto& a, const auto& b) { return a.at < b.at; });
    }
    return requests;
  }

 private:
  // In (0, 1].
  double Uniform() { return static_cast<double>((random_() >> 11) + 1) * 0x1.0p-53; }
  bool Chance(int percent) { return random_() % 100 < static_cast<uint64_t>(percent); }

  int64_t LogNormal(double median, double sigma, int64_t least, int64_t most) {
    const double normal =
        std::sqrt(-2 * std::log(Uniform())) * std::cos(2 * std::numbers::pi * Uniform());
    const double value = median * std::exp(sigma * normal);
    return std::clamp(static_cast<int64_t>(value), least, std::max(least, most));
  }

  std::vector<int32_t> Tokens(int64_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens) {
      token = static_cast<int32_t>(random_() % kVocabSize);
    }
    return tokens;
  }

  TraceRequest Request(absl::Time at) {
    TraceRequest request;
    request.at = at;
    request.tenant = options_.tenants[random_() % options_.tenants.size()];
    const int64_t most = options_.max_model_len / 2;
    int64_t prompt_length = 0;
    if (options_.kind == TraceKind::kPoisson) {
      prompt_length = 1 + static_cast<int64_t>(Uniform() * static_cast<double>(most - 1));
      request.max_tokens = 1 + static_cast<int64_t>(Uniform() * 100);
    } else {
      prompt_length = LogNormal(120, 1.1, 4, most);
      request.max_tokens = LogNormal(150, 0.9, 1, options_.max_model_len / 4);
    }
    request.prompt = Tokens(prompt_length);
    if (options_.kind == TraceKind::kAgents) {
      const std::vector<int32_t>& system = systems_[random_() % systems_.size()];
      request.prompt.resize(static_cast<size_t>(1 + prompt_length / 8));
      request.prompt.insert(request.prompt.begin(), system.begin(), system.end());
      request.max_tokens = 1 + request.max_tokens / 4;
      request.num_turns_left = kTurns;
    }
    AddFates(&request);
    return request;
  }

  void AddFates(TraceRequest* request) {
    if (Chance(options_.percent_cancelled)) {
      request->cancelled_at = request->at + absl::Seconds(2 * Uniform());
    }
    if (Chance(options_.percent_with_deadline)) {
      request->deadline = request->at + absl::Seconds(0.05 + 4 * Uniform());
    }
    request->priority = Chance(options_.percent_urgent) ? -1 : 0;
  }

  TraceRequest LongRequest(int idx) {
    TraceRequest request;
    request.at = absl::UnixEpoch() + options_.long_at + idx * options_.long_every;
    request.tenant = options_.tenants.front();
    const int distinct =
        options_.num_distinct_long > 0 ? options_.num_distinct_long : options_.num_long;
    if (idx < distinct) {
      longs_.push_back(Tokens(options_.long_prompt > 0
                                  ? options_.long_prompt
                                  : options_.max_model_len * 9 / 10));
    }
    request.prompt = longs_[static_cast<size_t>(idx % distinct)];
    request.max_tokens = 8;
    request.is_long = true;
    return request;
  }

  const TraceOptions& options_;
  std::mt19937_64 random_;
  std::vector<std::vector<int32_t>> systems_;
  std::vector<std::vector<int32_t>> longs_;
};

}  // namespace

std::vector<TraceRequest> MakeTrace(const TraceOptions& options) {
  return TraceMaker(options).Make();
}

std::optional<TraceRequest> NextTurn(const TraceRequest& request,
                                     const std::vector<int32_t>& answer, absl::Time now,
                                     int64_t max_model_len, std::mt19937_64* random) {
  const size_t added = 5 + (*random)() % 60;
  const size_t length = request.prompt.size() + answer.size() + added;
  if (request.num_turns_left == 0 || length + static_cast<size_t>(request.max_tokens) >=
                                         static_cast<size_t>(max_model_len)) {
    return std::nullopt;
  }
  TraceRequest next = request;
  next.prompt.insert(next.prompt.end(), answer.begin(), answer.end());
  for (size_t i = 0; i < added; ++i) {
    next.prompt.push_back(static_cast<int32_t>((*random)() % kVocabSize));
  }
  next.at = now + absl::Milliseconds(static_cast<int64_t>(20 + (*random)() % 500));
  if (next.deadline != absl::InfiniteFuture()) {
    next.deadline = next.at + (request.deadline - request.at);
  }
  next.cancelled_at.reset();
  --next.num_turns_left;
  return next;
}

}  // namespace tessera::testing
