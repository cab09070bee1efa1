// ServerOptions: the options of the processes that serve the API (serve, coordinator).
#ifndef TESSERA_CLI_SERVER_OPTIONS_H_
#define TESSERA_CLI_SERVER_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/access/access_options.h"
#include "cli/access/tls_options.h"
#include "cli/engram/engram_tables.h"
#include "cli/model_options.h"

#include "common/option_table.h"

namespace tessera::cli {

struct ServerOptions {
  ModelOptions model;
  std::string host = "127.0.0.1";
  int port = 8000;
  std::optional<int> grpc_port;  // absent: 8001, or any free one if that is taken
  std::vector<std::string> served_model_name;
  AccessOptions access;
  TlsFlags tls;
  std::vector<std::string> allowed_origins;
  std::string metrics_names = "all";
  bool metrics_need_key = false;
  bool console = true;
  bool default_thinking = false;
  std::optional<uint64_t> seed;
  bool enable_prefix_caching = true;
  std::optional<int64_t> prefill_cost_tokens;  // absent: by the model's attention
  int64_t kv_restore_mib = 64;                 // 0: no bound
  absl::Duration kv_disk_wait = absl::Seconds(1);
  std::optional<int64_t> prefill_min_tokens;  // absent: 512, or two blocks

  // Limits.
  int64_t max_request_bytes = int64_t{4} << 20;
  int max_connections = 16384;
  int max_waiting = 256;
  int max_choices = 8;
  int max_logprobs = 20;
  int idempotency_max_keys = 1024;
  int64_t idempotency_max_bytes = int64_t{64} << 20;
  absl::Duration idempotency_keep = absl::Minutes(10);

  // Deadlines and periods.
  absl::Duration request_timeout = absl::Minutes(10);
  absl::Duration step_timeout = absl::Seconds(30);
  absl::Duration probe_interval = absl::Seconds(5);
  absl::Duration shutdown_timeout = absl::Seconds(45);
  absl::Duration drain_delay = absl::ZeroDuration();
  absl::Duration form_timeout = absl::Seconds(60);
  absl::Duration heartbeat_interval = absl::Milliseconds(500);
  absl::Duration heartbeat_timeout = absl::Seconds(5);
  absl::Duration reform_pause_max = absl::Seconds(5);

  // Worker and shard processes.
  int engram_shards = 0;  // 0: tables in the ranks' own memory
  int engram_replicas = 1;
  std::string engram_source = "shm";

  // All of it as --print-config shows it, for people who look at a running server.
  std::string config_in_force;

  TableOptions engram_tables;  // of whoever holds them: shards, or the ranks
};

// Adds them, the model's included, to `table`; `options` must outlive it.
void AddServerOptions(OptionTable* table, ServerOptions* options);

// What can be known about keys, limits, certificates and caches before a model is loaded.
// kInvalidArgument, kNotFound: as CheckExposure, TlsOptionsOf and TlsContext::Create.
// kInvalidArgument: a host tier or prefill ranks without prefix caching.
absl::Status CheckServerOptions(const ServerOptions& options);

// Level and format of logs, for every subcommand that runs for long.
struct LogOptions {
  std::string level = "info";
  std::string format = "auto";
};
void AddLogOptions(OptionTable* table, LogOptions* options);
void ConfigureLogs(const LogOptions& options);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_SERVER_OPTIONS_H_
