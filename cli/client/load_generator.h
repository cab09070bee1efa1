// LoadGenerator: sends a planned workload to a server and records how each request went.
//
// It stands between Workload and LoadReport. It is an open loop: a request goes out at
// its time, whatever became of those before it. Only a limit of concurrency holds one
// back, and then its record says for how long. What it times is the stream: the first
// piece of text, and the gaps between pieces.
#ifndef TESSERA_CLI_CLIENT_LOAD_GENERATOR_H_
#define TESSERA_CLI_CLIENT_LOAD_GENERATOR_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/client/http_client.h"
#include "cli/client/load_record.h"
#include "cli/client/workload.h"

#include "common/clock.h"

namespace tessera::cli {

// Requests under way at most, where nothing else limits them: each is a thread and five
// descriptors of this process.
inline constexpr int kConcurrencyMax = 4096;

struct LoadRunOptions {
  HttpClientOptions http;  // Its cancel descriptor ends the run early.
  std::string api_key;
  std::string model;
  std::string endpoint = "/v1/completions";
  // The chat dialect: prompts are messages, and must be texts.
  bool chat = false;
  // A planned request waits for a free place among these; unset: kConcurrencyMax.
  std::optional<int> max_concurrency;
  bool ignore_eos = false;
  // Asks for usage in every chunk, which says how many tokens it brings. Servers that do
  // not know the field may refuse it.
  bool continuous_usage = false;
  std::string extra_body = "{}";  // A JSON object whose fields go into every request.
  bool keep_texts = false;
};

struct LoadRun {
  std::vector<RequestRecord> records;  // One for each planned request, in its order.
  absl::Duration duration;             // From the first start to the last end.
  absl::Duration client_cpu;           // Processor time of this process meanwhile.
  int max_concurrent_requests = 0;     // The most that were under way at once.
  // Requests that had to wait because max_concurrency were under way.
  int64_t num_held_back = 0;
};

// Blocks until every request has ended, or the run was cancelled; requests that were not
// sent by then are recorded as such. Failures of requests are in their records. Errors as
// HttpClient::Create; kInvalidArgument also for no concurrency, an extra body that is no
// object, and a chat without texts; kResourceExhausted: not even one thread.
absl::StatusOr<LoadRun> RunLoad(const LoadRunOptions& options,
                                std::span<const PlannedRequest> requests, Clock* clock);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_LOAD_GENERATOR_H_
