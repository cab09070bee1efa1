#include "benchmarks/stub_service.h"

#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/status_macros.h"
#include "coordinator/service/rank_group.h"
#include "tests/testing/fake_text.h"
#include "tests/testing/stub_executor.h"

namespace tessera::benchmarks {
namespace {

constexpr char kTokenizerFolder[] = "models/demo";
constexpr int64_t kBlockSize = 64;

// Groups of one stub rank.
class StubProvider final : public coordinator::GroupProvider {
 public:
  StubProvider(const testing::StubWorkerOptions& options, absl::Duration step_time)
      : options_(options), step_time_(step_time) {}

  absl::StatusOr<coordinator::RankExecutors> Form(uint64_t /*epoch*/) override {
    return coordinator::RankExecutors{
        std::make_shared<testing::StubExecutor>(options_, Clock::Real(), step_time_)};
  }
  void OnGroupFailed(uint64_t /*epoch*/, const absl::Status& /*reason*/) override {}

 private:
  const testing::StubWorkerOptions options_;
  const absl::Duration step_time_;
};

}  // namespace

coordinator::EngineOptions EngineOptionsOf(const StubServiceOptions& options) {
  coordinator::EngineOptions engine;
  coordinator::SchedulerOptions& scheduler = engine.scheduler;
  scheduler.max_num_seqs = options.max_num_seqs;
  scheduler.max_num_batched_tokens = 8192;
  scheduler.max_model_len = options.max_model_len;
  scheduler.block_size = kBlockSize;
  scheduler.num_blocks = options.max_num_seqs * (options.max_model_len / kBlockSize + 1);
  scheduler.max_waiting = options.max_waiting;
  scheduler.prefix_hash_key = {1, 2};
  return engine;
}

testing::StubWorkerOptions WorkerOptionsOf(const coordinator::SchedulerOptions& options,
                                           int32_t vocab_size) {
  testing::StubWorkerOptions worker;
  worker.num_blocks = options.num_blocks;
  worker.block_size = options.block_size;
  worker.max_num_seqs = options.max_num_seqs;
  worker.max_num_batched_tokens = options.max_num_batched_tokens;
  worker.max_model_len = options.max_model_len;
  worker.vocab_size = vocab_size;
  return worker;
}

absl::StatusOr<std::unique_ptr<StubService>> StubService::Create(
    const StubServiceOptions& options) {
  std::unique_ptr<StubService> service(new StubService());
  TESSERA_ASSIGN_OR_RETURN(service->tokenizer_, model::Tokenizer::Load(kTokenizerFolder));
  const model::Tokenizer& tokenizer = *service->tokenizer_;
  service->chat_ = std::make_unique<tests::PlainChat>(&tokenizer);
  const coordinator::EngineOptions engine = EngineOptionsOf(options);
  service->provider_ = std::make_unique<StubProvider>(
      WorkerOptionsOf(engine.scheduler, tokenizer.size()), options.step_time);
  coordinator::MetricsOptions metrics;
  metrics.model_name = "stub";
  service->metrics_ = std::make_unique<coordinator::Metrics>(metrics);
  TESSERA_ASSIGN_OR_RETURN(
      service->engine_,
      coordinator::EngineLoop::Create(engine, service->provider_.get(), &tokenizer,
                                      Clock::Real(), service->metrics_.get()));
  coordinator::ApiServiceOptions api;
  api.model_names = {"stub"};
  api.limits.vocab_size = api.limits.num_token_ids = tokenizer.size();
  api.limits.max_model_len = options.max_model_len;
  api.system_fingerprint = "stub-0-cpu/f32";
  TESSERA_ASSIGN_OR_RETURN(service->api_, coordinator::ApiService::Create(
                                              api, {.tokenizer = &tokenizer,
                                                    .chat = service->chat_.get(),
                                                    .engine = service->engine_.get(),
                                                    .clock = Clock::Real(),
                                                    .observer = service->metrics_.get(),
                                                    .metrics = service->metrics_.get()}));
  if (!service->engine_->WaitReady(absl::Now() + absl::Seconds(10))) {
    return absl::InternalError("the stub engine is not ready");
  }
  return service;
}

StubService::~StubService() {
  if (engine_ != nullptr) {
    engine_->Shutdown();
  }
}

}  // namespace tessera::benchmarks
