// LoadGenerator: sends a planned workload to a server and records how each request went.
//
// It stands between Workload and LoadReport. It measures on the client's side only, and
// what it times is the text of the stream: a server that sends several tokens in one
// piece has longer gaps and the same time per token.
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
#include "cli/client/load_report.h"
#include "cli/client/workload.h"

#include "common/clock.h"

namespace tessera::cli {

struct LoadOptions {
  HttpClientOptions http;  // Its cancel descriptor ends the run early.
  std::string api_key;
  std::string model;
  std::string endpoint = "/v1/completions";
  // Connections, and threads: a planned request waits for a free one.
  int max_concurrency = 64;
  bool ignore_eos = false;
  std::optional<double> temperature;
};

struct LoadRun {
  std::vector<RequestRecord> records;  // One for each planned request, in its order.
  absl::Duration duration;             // From the first start to the last end.
  int max_concurrent_requests = 0;     // The most that were under way at once.
};

// Blocks until every request has ended, or the run was cancelled; requests that were not
// sent by then are recorded as such. Failures of requests are in their records. Errors as
// HttpClient::Create; kInvalidArgument also for no concurrency.
absl::StatusOr<LoadRun> RunLoad(const LoadOptions& options,
                                std::span<const PlannedRequest> requests, Clock* clock);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_LOAD_GENERATOR_H_
