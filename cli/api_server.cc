#include "cli/api_server.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/access/access_options.h"
#include "cli/access/file_stamps.h"
#include "cli/cell_options.h"
#include "fmt/format.h"
#include <sys/stat.h>

#include "common/build_info.h"
#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/api/api_context.h"
#include "coordinator/api/api_observer.h"
#include "coordinator/service/engine_core.h"
#include "kernels/kernel_backend.h"
#include "routing/expert_placement.h"

namespace tessera::cli {
namespace {

constexpr absl::Duration kReadyPoll = absl::Milliseconds(5);
// How soon a changed file or SIGHUP takes effect.
constexpr absl::Duration kReloadPoll = absl::Seconds(1);

// A shorter prompt costs the rank that decodes no more than one full step by default.
constexpr int64_t kPrefillMinTokens = 512;

std::string DefaultModelName(const std::string& directory) {
  std::filesystem::path path = std::filesystem::path(directory).lexically_normal();
  if (path.filename().empty()) {
    path = path.parent_path();
  }
  return path.filename().string();
}

std::string Address(const std::string& host) {
  return host == "localhost" ? "127.0.0.1" : host;
}

// The context at which attention costs a token as much as all else, roughly: the ratio of
// active parameters to what one more token of context costs in V3's attention, and in
// the indexers of sparse families.
int64_t PrefillCostTokens(const model::ModelConfig& config) {
  return config.attention == model::AttentionKind::kMla ? 8192 : 65536;
}

coordinator::EngineOptions EngineOptionsOf(const ServerOptions& options,
                                           const LoadedModel& model,
                                           const RankOptions& rank,
                                           const GroupShape& shape) {
  coordinator::EngineOptions engine;
  coordinator::SchedulerOptions& scheduler = engine.scheduler;
  scheduler.num_dp_ranks = shape.dp;
  scheduler.max_num_seqs = rank.runner.max_slots;
  scheduler.max_num_batched_tokens = rank.runner.max_tokens;
  scheduler.max_model_len = rank.runner.max_model_len;
  scheduler.block_size = rank.runner.block_size;
  scheduler.num_blocks = rank.runner.num_blocks;
  scheduler.num_tail_blocks = rank.runner.num_tail_blocks;
  scheduler.tail_tokens = model.config.tail_tokens();
  scheduler.num_host_blocks = rank.runner.num_host_blocks;
  scheduler.num_host_tail_blocks = rank.runner.num_host_tail_blocks;
  if (options.kv_restore_mib > 0) {
    scheduler.max_restores = std::max<int64_t>(
        1, (options.kv_restore_mib << 20) / CopyBytes(model.config, rank));
  }
  scheduler.num_disk_blocks = rank.runner.num_disk_blocks;
  scheduler.num_disk_tail_blocks = rank.runner.num_disk_tail_blocks;
  scheduler.max_disk_copies = rank.runner.max_disk_copies;
  scheduler.max_disk_wait = options.kv_disk_wait;
  scheduler.num_prefill_ranks = rank.prefill_ranks;
  scheduler.max_transfers = rank.runner.max_transfers;
  scheduler.prefill_min_tokens = options.prefill_min_tokens.value_or(
      std::max(kPrefillMinTokens, 2 * rank.runner.block_size));
  scheduler.num_speculative_tokens = rank.runner.num_speculative_tokens;
  scheduler.max_waiting = options.max_waiting;
  scheduler.prefill_cost_tokens =
      options.prefill_cost_tokens.value_or(PrefillCostTokens(model.config));
  scheduler.enable_prefix_caching = options.enable_prefix_caching;
  scheduler.cache_key_prefix =
      fmt::format("{}:{}", model.checkpoint->digest(), NumericsIdOf(rank));
  scheduler.placement_version = rank.placement_version;
  // Unpredictable, so that nobody can aim at collisions of prefix keys.
  std::random_device random;
  for (uint64_t& word : scheduler.prefix_hash_key) {
    word = (uint64_t{random()} << 32) | random();
  }
  engine.tp = shape.tp;
  engine.step_timeout = options.step_timeout;
  engine.probe_interval = options.probe_interval;
  engine.reform_pause_max = options.reform_pause_max;
  return engine;
}

// Of the checkpoint, in seconds since 1970: when its config.json was written.
int64_t CreationTime(const std::string& directory) {
  struct stat file = {};
  const std::string path = directory + "/config.json";
  return ::stat(path.c_str(), &file) == 0 ? int64_t{file.st_mtime} : 0;
}

coordinator::ApiServiceOptions ApiOptionsOf(const ServerOptions& options,
                                            const LoadedModel& model,
                                            const model::Tokenizer& tokenizer,
                                            const RankOptions& rank) {
  coordinator::ApiServiceOptions api;
  api.model_names = options.served_model_name;
  if (api.model_names.empty()) {
    api.model_names.push_back(DefaultModelName(options.model.model));
  }
  api.limits.vocab_size = model.config.vocab_size;
  api.limits.num_token_ids = std::min<int64_t>(model.config.vocab_size, tokenizer.size());
  if (model.hash.has_value()) {
    api.limits.num_token_ids =
        std::min(api.limits.num_token_ids, model.hash->num_token_ids());
  }
  api.limits.eos_token_ids = model.config.eos_token_ids;
  api.limits.image_token_id = model.config.image_token_id;
  api.limits.max_model_len = rank.runner.max_model_len;
  api.limits.max_choices = options.max_choices;
  api.limits.max_logprobs = options.max_logprobs;
  api.limits.default_timeout = options.request_timeout;
  api.limits.max_timeout = std::max(options.request_timeout, api.limits.max_timeout);
  api.idempotency = {
      .max_keys = static_cast<size_t>(options.idempotency_max_keys),
      .max_bytes = static_cast<size_t>(options.idempotency_max_bytes),
      .keep = options.idempotency_keep,
  };
  api.default_thinking = options.default_thinking;
  api.metrics_need_key = options.metrics_need_key;
  api.allowed_origins = options.allowed_origins;
  api.metric_names = options.metrics_names == "native" ? coordinator::MetricNames::kNative
                     : options.metrics_names == "vllm" ? coordinator::MetricNames::kVllm
                                                       : coordinator::MetricNames::kAll;
  api.system_fingerprint =
      fmt::format("tessera-{}-{}-{}", Version(), model.checkpoint->digest().substr(0, 12),
                  NumericsIdOf(rank));
  api.version = Version();
  api.seed = options.seed;
  api.model_created = CreationTime(options.model.model);
  return api;
}

coordinator::MetricsOptions MetricsOptionsOf(const ServerOptions& options,
                                             const RankOptions& rank,
                                             const GroupShape& shape) {
  coordinator::MetricsOptions metrics;
  metrics.model_name = options.served_model_name.empty()
                           ? DefaultModelName(options.model.model)
                           : options.served_model_name.front();
  metrics.max_model_len = rank.runner.max_model_len;
  metrics.block_size = rank.runner.block_size;
  metrics.num_blocks = rank.runner.num_blocks * shape.dp;
  metrics.num_speculative_tokens = rank.runner.num_speculative_tokens;
  metrics.kv_cache_dtype = options.model.kv_cache_dtype;
  metrics.enable_prefix_caching = options.enable_prefix_caching;
  metrics.version = Version();
  // What the ranks of a machine like this one choose; a backend without threads costs
  // nothing.
  const auto backend = kernels::CreateBackend({.name = rank.backend,
                                               .dtype = rank.dtype,
                                               .cpu_isa = rank.cpu_isa,
                                               .numerics = rank.numerics});
  metrics.isa = backend.ok() ? std::string((*backend)->isa()) : rank.cpu_isa;
  metrics.numerics_id = NumericsIdOf(rank);
  return metrics;
}

// What the console shows of the options.
coordinator::AdminOptions AdminOptionsOf(const ServerOptions& options,
                                         const coordinator::ApiServiceOptions& api,
                                         const LoadedModel& model,
                                         const RankOptions& rank,
                                         const GroupShape& shape) {
  coordinator::AdminOptions admin;
  admin.console = options.console;
  admin.facts = {.model = api.model_names.front(),
                 .version = api.version,
                 .fingerprint = api.system_fingerprint,
                 .tp = shape.tp,
                 .dp = shape.dp,
                 .block_size = rank.runner.block_size,
                 .max_model_len = rank.runner.max_model_len,
                 .max_num_seqs = rank.runner.max_slots,
                 .num_speculative_tokens = rank.runner.num_speculative_tokens,
                 .has_engram = model.hash.has_value(),
                 .kv_cache_dtype = options.model.kv_cache_dtype,
                 .backend = NumericsIdOf(rank),
                 .config = options.config_in_force};
  return admin;
}

// The counts of routed items that the ranks of a new group keep, and where its experts
// are.
absl::StatusOr<coordinator::ExpertShape> ExpertShapeOf(const model::ModelConfig& config,
                                                       const GroupShape& shape) {
  coordinator::ExpertShape experts = {
      .first_layer = config.num_dense_layers,
      .num_layers = config.num_layers - config.num_dense_layers};
  TESSERA_ASSIGN_OR_RETURN(
      experts.rank_of_expert,
      routing::StaticPlacement(static_cast<int>(config.moe.num_experts),
                               shape.num_ranks()));
  return experts;
}

// What the access file grants in the scheduler, and whose series metrics show.
absl::Status AddTenants(const AccessOptions& options,
                        coordinator::SchedulerOptions* scheduler,
                        coordinator::MetricsOptions* metrics) {
  TESSERA_ASSIGN_OR_RETURN(const coordinator::AccessConfig access, LoadAccess(options));
  scheduler->tenants = access.tenants;
  scheduler->other_tenants = access.others;
  for (const coordinator::TenantPolicy& tenant : access.tenants) {
    if (metrics->tenants.size() < coordinator::kMaxReportedTenants) {
      metrics->tenants.push_back(tenant.name);
    }
  }
  return absl::OkStatus();
}

void LogReload(std::string_view read, std::string_view kept, const absl::Status& status) {
  if (status.ok()) {
    log::Info("main", read);
  } else {
    log::Error("main", kept, {{"error", std::string(status.message())}});
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ApiServer>> ApiServer::Create(
    const ServerOptions& options, const LoadedModel& model, const RankOptions& rank,
    const GroupShape& shape, coordinator::GroupProvider* provider, Clock* clock) {
  TESSERA_RETURN_IF_ERROR(CheckServerOptions(options));
  std::unique_ptr<ApiServer> server(new ApiServer(options, clock));
  TESSERA_ASSIGN_OR_RETURN(server->tokenizer_,
                           model::Tokenizer::Load(options.model.model));
  TESSERA_ASSIGN_OR_RETURN(
      server->chat_, model::ChatEncoding::Create(model.config, server->tokenizer_.get()));
  coordinator::EngineOptions engine = EngineOptionsOf(options, model, rank, shape);
  coordinator::MetricsOptions metrics = MetricsOptionsOf(options, rank, shape);
  TESSERA_RETURN_IF_ERROR(AddTenants(options.access, &engine.scheduler, &metrics));
  log::Info("main", "KV cache",
            {{"dtype", metrics.kv_cache_dtype},
             {"blocks", metrics.num_blocks},
             {"tokens", metrics.num_blocks * metrics.block_size},
             {"tail_blocks", rank.runner.num_tail_blocks * shape.dp},
             {"host_blocks", rank.runner.num_host_blocks * shape.dp},
             {"disk_blocks", rank.runner.num_disk_blocks * shape.dp}});
  TESSERA_ASSIGN_OR_RETURN(coordinator::ExpertShape experts,
                           ExpertShapeOf(model.config, shape));
  server->experts_ =
      std::make_unique<coordinator::ExpertLoads>(std::move(experts), clock);
  engine.num_expert_counts = static_cast<int64_t>(server->experts_->shape().num_counts());
  metrics.expert_loads = server->experts_.get();
  server->metrics_ = std::make_unique<coordinator::Metrics>(metrics);
  server->activity_ = std::make_unique<coordinator::ActivityRecorder>(
      server->metrics_.get(), clock, server->experts_.get());
  TESSERA_ASSIGN_OR_RETURN(
      server->engine_,
      coordinator::EngineLoop::Create(engine, provider, server->tokenizer_.get(), clock,
                                      server->activity_.get()));
  TESSERA_RETURN_IF_ERROR(server->MakeGrammars(model, rank));
  TESSERA_RETURN_IF_ERROR(server->OpenDoors(model, rank, shape));
  return server;
}

absl::Status ApiServer::MakeGrammars(const LoadedModel& model, const RankOptions& rank) {
  const coordinator::RequestLimits limits =
      ApiOptionsOf(options_, model, *tokenizer_, rank).limits;
  if (limits.eos_token_ids.empty()) {
    return absl::OkStatus();  // A grammar would have no end.
  }
  TESSERA_ASSIGN_OR_RETURN(grammar_compiler_, coordinator::GrammarCompiler::Create(
                                                  {.vocab_size = limits.vocab_size,
                                                   .num_token_ids = limits.num_token_ids,
                                                   .eos_token_ids = limits.eos_token_ids},
                                                  {}, *tokenizer_));
  grammars_ = std::make_unique<coordinator::GrammarPool>(
      coordinator::GrammarPoolOptions(), grammar_compiler_.get(), clock_);
  return absl::OkStatus();
}

absl::Status ApiServer::OpenDoors(const LoadedModel& model, const RankOptions& rank,
                                  const GroupShape& shape) {
  coordinator::ApiServiceOptions api = ApiOptionsOf(options_, model, *tokenizer_, rank);
  TESSERA_ASSIGN_OR_RETURN(api.access, LoadAccess(options_.access));
  model_name_ = api.model_names.front();
  admin_ = std::make_unique<coordinator::AdminDoor>(
      AdminOptionsOf(options_, api, model, rank, shape),
      coordinator::AdminParts{.engine = engine_.get(),
                              .operations = engine_.get(),
                              .activity = activity_.get(),
                              .experts = experts_.get(),
                              .clock = clock_});
  TESSERA_ASSIGN_OR_RETURN(
      api_, coordinator::ApiService::Create(api, {.tokenizer = tokenizer_.get(),
                                                  .chat = chat_.get(),
                                                  .engine = engine_.get(),
                                                  .clock = clock_,
                                                  .observer = metrics_.get(),
                                                  .metrics = metrics_.get(),
                                                  .admin = admin_.get(),
                                                  .grammars = grammars_.get()}));
  coordinator::HttpServerOptions http;
  http.host = Address(options_.host);
  http.port = static_cast<uint16_t>(options_.port);
  http.max_request_bytes = static_cast<size_t>(
      std::max(options_.max_request_bytes, 8 * rank.runner.max_model_len));
  http.max_connections = static_cast<size_t>(options_.max_connections);
  TESSERA_ASSIGN_OR_RETURN(const coordinator::TlsOptions tls, TlsOptionsOf(options_.tls));
  if (options_.tls.on()) {
    TESSERA_ASSIGN_OR_RETURN(tls_, coordinator::TlsContext::Create(tls));
    http.tls = tls_;
  }
  TESSERA_ASSIGN_OR_RETURN(http_, coordinator::HttpServer::Create(http, api_.get()));
  http_->Start();
  return OpenGrpcDoor();
}

absl::Status ApiServer::OpenGrpcDoor() {
  constexpr int kDefaultPort = 8001;
  const int port = options_.grpc_port.value_or(kDefaultPort);
  if (port < 0) {
    return absl::OkStatus();
  }
  coordinator::ApiGrpcOptions grpc;
  grpc.port = static_cast<uint16_t>(port);
  grpc.max_message_bytes = static_cast<int>(options_.max_request_bytes);
  TESSERA_ASSIGN_OR_RETURN(const coordinator::TlsOptions tls, TlsOptionsOf(options_.tls));
  if (options_.tls.on()) {
    grpc.tls = tls;
  }
  auto server = coordinator::ApiGrpcServer::Create(grpc, api_.get());
  if (!server.ok() && !options_.grpc_port.has_value()) {
    grpc.port = 0;
    server = coordinator::ApiGrpcServer::Create(grpc, api_.get());
  }
  TESSERA_ASSIGN_OR_RETURN(grpc_, std::move(server));
  log::Info("main", "serving gRPC", {{"port", grpc_->port()}});
  return absl::OkStatus();
}

void ApiServer::PrintBanner() const {
  const std::string url = fmt::format("{}://{}:{}", options_.tls.on() ? "https" : "http",
                                      Address(options_.host), http_->port());
  std::cout
      << fmt::format(
             "\nTessera {} serves {} at {}\n\n"
             "  curl {}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
             "    -d '{{\"model\": \"{}\", \"messages\": [{{\"role\": \"user\", "
             "\"content\": \"Hello\"}}]}}'\n\n{}",
             Version(), model_name_, url, url, model_name_,
             options_.console ? fmt::format("  console: {}/console/\n\n", url) : "")
      << std::flush;
}

absl::Status ApiServer::RunUntilSignal(const SignalWatcher& signals) {
  while (!signals.signalled() && !engine_->status().ready) {
    if (const absl::Status fatal = engine_->status().fatal; !fatal.ok()) {
      Drain();
      return fatal;
    }
    signals.WaitForFirst(kReadyPoll);
  }
  if (!signals.signalled()) {
    PrintBanner();
    log::Info("main", "ready", {{"port", http_->port()}, {"model", model_name_}});
  }
  FileStamps files({options_.access.api_key_file, options_.tls.ssl_certfile,
                    options_.tls.ssl_keyfile, options_.tls.ssl_ca_certs});
  for (int64_t seen = 0; !signals.WaitForFirst(kReloadPoll);) {
    const bool asked = std::exchange(seen, signals.hangups()) != signals.hangups();
    if (files.Changed() || asked) {
      Reload();
    }
  }
  Drain();
  return absl::OkStatus();
}

void ApiServer::Reload() {
  absl::Status status;
  if (auto access = LoadAccess(options_.access); access.ok()) {
    status = api_->access()->Replace(*access);
    if (status.ok()) {
      status = engine_->SetTenants(access->tenants, access->others);
    }
  } else {
    status = access.status();
  }
  LogReload(
      "keys and limits read again; cached blocks of tenants stay as they were at the "
      "start",
      "keys and limits stay as they are", status);
  if (tls_ != nullptr) {
    LogReload("certificates read again", "certificates stay as they are", tls_->Reload());
  }
}

void ApiServer::Drain() {
  if (options_.drain_delay > absl::ZeroDuration()) {
    clock_->Sleep(options_.drain_delay);
  }
  const absl::Time begin = clock_->Now();
  api_->SetDraining();
  engine_->StartDrain(options_.shutdown_timeout);
  engine_->WaitDrained();
  // The engine's last events are on their way to the sockets; a slow reader gets what is
  // left of the time.
  const auto time_left = [&] {
    return std::max(absl::Seconds(1),
                    options_.shutdown_timeout - (clock_->Now() - begin));
  };
  const int64_t cut = http_->Drain(time_left());
  http_->Stop();
  if (grpc_ != nullptr) {
    grpc_->Stop(time_left());
  }
  engine_->Shutdown();
  log::Info(
      "main", "drained",
      {{"seconds", absl::ToDoubleSeconds(clock_->Now() - begin)}, {"answers_cut", cut}});
}

}  // namespace tessera::cli
