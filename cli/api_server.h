// ApiServer: the coordinator inside a process: tokenizer, chat encoding, engine, metrics
// and doors, over a GroupProvider that says where the ranks are. `serve` and
// `coordinator` share it.
#ifndef TESSERA_CLI_API_SERVER_H_
#define TESSERA_CLI_API_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "cli/server_options.h"
#include "cli/signals.h"

#include "common/clock.h"
#include "coordinator/api/admin/admin_door.h"
#include "coordinator/api/api_service.h"
#include "coordinator/api/grpc/api_grpc_service.h"
#include "coordinator/api/http/tls_context.h"
#include "coordinator/api/http_server.h"
#include "coordinator/console/activity_recorder.h"
#include "coordinator/console/expert_loads.h"
#include "coordinator/grammar/grammar_compiler.h"
#include "coordinator/grammar/grammar_pool.h"
#include "coordinator/service/engine_loop.h"
#include "coordinator/service/metrics.h"
#include "coordinator/service/rank_group.h"
#include "model/chat/chat_encoding.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::cli {

// One thread creates and runs it.
class ApiServer {
 public:
  // Binds the ports, starts the engine (which forms its group in the background) and
  // answers probes at once. `model`, `provider` and `clock` must outlive it.
  // kInvalidArgument: options that do not fit; kUnavailable: a port that is taken.
  static absl::StatusOr<std::unique_ptr<ApiServer>> Create(
      const ServerOptions& options, const LoadedModel& model, const RankOptions& rank,
      const GroupShape& shape, coordinator::GroupProvider* provider, Clock* clock);

  // Prints where it serves once it is ready, and returns at the first signal, after the
  // drain. Reads keys, limits and certificates again when their files change and on
  // SIGHUP. An error at once: no group can ever be formed.
  absl::Status RunUntilSignal(const SignalWatcher& signals);

 private:
  ApiServer(const ServerOptions& options, Clock* clock)
      : options_(options), clock_(clock) {}

  absl::Status MakeGrammars(const LoadedModel& model, const RankOptions& rank);
  absl::Status OpenDoors(const LoadedModel& model, const RankOptions& rank,
                         const GroupShape& shape);
  absl::Status OpenGrpcDoor();
  void PrintBanner() const;
  // A mistake in the new files is logged, and the old state stays.
  void Reload();
  void Drain();

  const ServerOptions options_;
  Clock* const clock_;
  std::string model_name_;
  std::unique_ptr<model::Tokenizer> tokenizer_;
  std::unique_ptr<model::ChatEncoding> chat_;
  std::unique_ptr<coordinator::ExpertLoads> experts_;
  std::unique_ptr<coordinator::Metrics> metrics_;
  std::unique_ptr<coordinator::ActivityRecorder> activity_;
  std::unique_ptr<coordinator::EngineLoop> engine_;
  std::unique_ptr<coordinator::GrammarCompiler> grammar_compiler_;
  std::unique_ptr<coordinator::GrammarPool> grammars_;  // null without an end of sequence
  std::unique_ptr<coordinator::AdminDoor> admin_;
  std::unique_ptr<coordinator::ApiService> api_;
  std::shared_ptr<coordinator::TlsContext> tls_;  // null: plain HTTP
  std::unique_ptr<coordinator::HttpServer> http_;
  std::unique_ptr<coordinator::ApiGrpcServer> grpc_;  // null with --grpc-port -1
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_API_SERVER_H_
