#include "cli/server_options.h"

#include "cli/model_options.h"

#include "common/log.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/api/http/tls_context.h"

namespace tessera::cli {
namespace {

void AddDoors(OptionTable* table, ServerOptions* options) {
  table->Heading("API");
  table->Add("host", &options->host, "address of the API; beyond loopback it needs keys");
  table->Add("port", &options->port, "port of the API; 0: any free one").Range(0, 65535);
  table
      ->Add("grpc-port", &options->grpc_port,
            "port of the gRPC API on loopback; 0: any free one, -1: none")
      .Range(-1, 65535);
  table->Add("served-model-name", &options->served_model_name,
             "names of the model in the API; default: the folder's name");
  table->Add("allowed-origins", &options->allowed_origins,
             "origins that browsers may call from; * is any");
  table
      ->Add("metrics-names", &options->metrics_names,
            "metric names of /metrics: native, vllm or all")
      .OneOf({"native", "vllm", "all"});
  table->Add("metrics-need-key", &options->metrics_need_key, "/metrics needs an API key");
  table->Add("console", &options->console, "serve the web console at /console/");
  table->Add("default-thinking", &options->default_thinking,
             "chat requests think when they do not say");
  table->Add("seed", &options->seed, "seeds requests that bring none; default: random");
}

void AddAccess(OptionTable* table, ServerOptions* options) {
  table->Heading("Access");
  AddAccessOptions(table, &options->access);
  AddTlsFlags(table, &options->tls);
}

void AddLimits(OptionTable* table, ServerOptions* options) {
  table->Heading("Limits");
  table->Add("max-request-bytes", &options->max_request_bytes, "largest request body")
      .AtLeast(1024);
  table
      ->Add("max-connections", &options->max_connections,
            "open connections; the limit of open files is raised for them")
      .Range(1, 65536);
  table
      ->Add("max-waiting", &options->max_waiting,
            "queued sequences; one more is answered 429 with Retry-After")
      .Range(1, 1 << 20);
  table
      ->Add(
          "prefill-cost-tokens", &options->prefill_cost_tokens,
          "context behind which a prompt's token costs twice as much as at its start: "
          "beside decodes, chunks of prompts are cut accordingly, so that a long prompt "
          "delays no stream; 0: never; default: 65536 for sparse attention, else 8192")
      .AtLeast(0);
  table
      ->Add("kv-restore-mib", &options->kv_restore_mib,
            "MiB per rank that a step which also decodes reads back from host memory, so "
            "that a long prefix delays no stream; at least one block; 0: no bound")
      .Range(0, 1 << 20);
  table->Add("kv-disk-wait", &options->kv_disk_wait,
             "with --kv-disk-dir: for how long a request waits for what of its prefix is "
             "read back from there before it is computed");
  table
      ->Add("prefill-min-tokens", &options->prefill_min_tokens,
            "with --prefill-ranks: a prompt of which fewer tokens are to be computed is "
            "prefilled where it decodes; more than a block; default: 512, or two blocks")
      .AtLeast(2);
  table->Add("max-choices", &options->max_choices, "largest n of a request")
      .Range(1, 128);
  table->Add("max-logprobs", &options->max_logprobs, "most logprobs per token")
      .Range(0, 20);
  table->Add("enable-prefix-caching", &options->enable_prefix_caching,
             "reuse KV blocks of equal prompt beginnings");
}

void AddIdempotency(OptionTable* table, ServerOptions* options) {
  table->Heading("Idempotency keys");
  table
      ->Add("idempotency-max-keys", &options->idempotency_max_keys,
            "keys in use or remembered with their answers; 0: the header is refused")
      .Range(0, 1 << 20);
  table
      ->Add("idempotency-max-bytes", &options->idempotency_max_bytes,
            "memory of remembered answers and of streams that are being recorded; one "
            "above "
            "a sixteenth of it is not remembered")
      .AtLeast(0);
  table->Add("idempotency-keep", &options->idempotency_keep,
             "an answer is remembered for so long");
}

void AddProcesses(OptionTable* table, ServerOptions* options) {
  table->Heading("Engram");
  table
      ->Add("engram-shards", &options->engram_shards,
            "shard processes that hold the Engram tables; 0: the ranks' own memory")
      .Range(0, 1024);
  table->Add("engram-replicas", &options->engram_replicas, "processes per shard")
      .Range(1, 16);
  table
      ->Add("engram-source", &options->engram_source,
            "how workers read shards: shm (mapped, same host) or remote (gRPC)")
      .OneOf({"shm", "remote"});
  AddTableOptions(table, &options->engram_tables);
}

void AddDeadlines(OptionTable* table, ServerOptions* options) {
  table->Heading("Deadlines");
  table->Add("request-timeout", &options->request_timeout, "of a whole request");
  table->Add("step-timeout", &options->step_timeout,
             "a step that takes longer ends the group and its streams");
  table->Add("probe-interval", &options->probe_interval,
             "an idle group proves its health so often");
  table->Add("shutdown-timeout", &options->shutdown_timeout,
             "requests in flight may finish for so long after SIGTERM");
  table->Add("drain-delay", &options->drain_delay,
             "wait after SIGTERM before new requests are refused");
  table->Add("form-timeout", &options->form_timeout,
             "workers and shards must be ready within");
  table->Add("heartbeat-interval", &options->heartbeat_interval,
             "between a process's signs of life");
  table->Add("heartbeat-timeout", &options->heartbeat_timeout,
             "a process silent for longer is taken for dead");
  table->Add("reform-pause-max", &options->reform_pause_max,
             "longest pause between attempts to form the group again");
}

}  // namespace

void AddServerOptions(OptionTable* table, ServerOptions* options) {
  AddModelOptions(table, &options->model);
  AddDoors(table, options);
  AddAccess(table, options);
  AddLimits(table, options);
  AddIdempotency(table, options);
  AddProcesses(table, options);
  AddDeadlines(table, options);
}

absl::Status CheckServerOptions(const ServerOptions& options) {
  const ModelOptions& model = options.model;
  if (!options.enable_prefix_caching &&
      (model.kv_host_gib > 0 || model.num_host_blocks.value_or(0) > 0)) {
    return absl::InvalidArgumentError(
        "--kv-host-gib and --num-host-blocks keep cached prefixes, expected none of them "
        "without --enable-prefix-caching");
  }
  if (!options.enable_prefix_caching && model.prefill_ranks > 0) {
    return InvalidArgumentF(
        "--prefill-ranks {}: blocks are handed over as cached prefixes, expected none "
        "without --enable-prefix-caching",
        model.prefill_ranks);
  }
  TESSERA_RETURN_IF_ERROR(CheckExposure(options.host, options.access));
  TESSERA_ASSIGN_OR_RETURN(const coordinator::TlsOptions tls, TlsOptionsOf(options.tls));
  return options.tls.on() ? coordinator::TlsContext::Create(tls).status()
                          : absl::OkStatus();
}

void AddLogOptions(OptionTable* table, LogOptions* options) {
  table->Heading("Logs");
  table->Add("log-level", &options->level, "debug, info, warning or error")
      .OneOf({"debug", "info", "warning", "error"});
  table->Add("log-format", &options->format, "auto (text on a terminal), text or json")
      .OneOf({"auto", "text", "json"});
}

void ConfigureLogs(const LogOptions& options) {
  const log::Level level = options.level == "debug"     ? log::Level::kDebug
                           : options.level == "warning" ? log::Level::kWarning
                           : options.level == "error"   ? log::Level::kError
                                                        : log::Level::kInfo;
  const log::Format format = options.format == "text"   ? log::Format::kText
                             : options.format == "json" ? log::Format::kJson
                                                        : log::Format::kAuto;
  log::Configure(level, format);
}

}  // namespace tessera::cli
