// Traces for ServingSimulation: who asks what and when. All are drawn from a seed by
// documented distributions; nothing is recorded from anybody.
//
//   poisson   arrivals of a Poisson process, lengths uniform
//   chat      the same arrivals; lengths log-normal, as conversations with assistants
//             have: prompts of median 120 and sigma 1.1, answers of median 150 and
//             sigma 0.9, in tokens
//   agents    several conversations of many turns over a few long system prompts: each
//             turn is the whole conversation so far and a little more
//   long      chat, and prompts of nearly the longest context, a second apart
#ifndef TESSERA_TESTS_SIMULATION_SERVING_TRACES_H_
#define TESSERA_TESTS_SIMULATION_SERVING_TRACES_H_

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace tessera::testing {

enum class TraceKind { kPoisson, kChat, kAgents, kLong };

struct TraceOptions {
  TraceKind kind = TraceKind::kChat;
  uint64_t seed = 1;
  int num_requests = 50;  // of agents: conversations
  double requests_per_second = 10;
  int64_t max_model_len = 4096;
  std::vector<std::string> tenants = {""};  // one of them by chance; repeats count
  int percent_cancelled = 0;
  int percent_with_deadline = 0;
  int percent_urgent = 0;   // of a better priority
  int num_long = 1;         // of kLong
  int64_t long_prompt = 0;  // of kLong; 0: nine tenths of max_model_len
  absl::Duration long_at = absl::Seconds(1);
  absl::Duration long_every = absl::Seconds(1);
  int num_distinct_long = 0;  // they repeat after so many; 0: none is like another
};

struct TraceRequest {
  absl::Time at;
  std::string tenant;
  std::vector<int32_t> prompt;
  int64_t max_tokens = 1;
  int32_t priority = 0;
  absl::Time deadline = absl::InfiniteFuture();
  std::optional<absl::Time> cancelled_at;
  int num_turns_left = 0;
  bool is_long = false;
};

// The requests that do not answer others, by time.
std::vector<TraceRequest> MakeTrace(const TraceOptions& options);

// The next turn of a conversation whose `request` was answered with `answer` at `now`;
// nothing if it was the last or the context is full.
std::optional<TraceRequest> NextTurn(const TraceRequest& request,
                                     const std::vector<int32_t>& answer, absl::Time now,
                                     int64_t max_model_len, std::mt19937_64* random);

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_SIMULATION_SERVING_TRACES_H_
