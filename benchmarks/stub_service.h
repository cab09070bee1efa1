// StubService: the coordinator over a stub rank, without sockets: tokenizer, engine loop,
// metrics and ApiService, so that a benchmark sees what the host costs where the device
// costs nothing.
#ifndef TESSERA_BENCHMARKS_STUB_SERVICE_H_
#define TESSERA_BENCHMARKS_STUB_SERVICE_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "coordinator/api/api_service.h"
#include "coordinator/service/engine_loop.h"
#include "coordinator/service/metrics.h"
#include "model/chat/chat_encoding.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/testing/stub_worker.h"

namespace tessera::benchmarks {

struct StubServiceOptions {
  int64_t max_num_seqs = 256;
  int64_t max_waiting = 4096;
  int64_t max_model_len = 4096;
  absl::Duration step_time = absl::ZeroDuration();  // that the device takes
};

// The engine of that size, and the rank that fits it.
coordinator::EngineOptions EngineOptionsOf(const StubServiceOptions& options);
testing::StubWorkerOptions WorkerOptionsOf(const coordinator::SchedulerOptions& options,
                                           int32_t vocab_size);

// Thread-safe. Its engine ends with it.
class StubService {
 public:
  // With the demo model's tokenizer, so it runs in the repository root. Returns when the
  // engine is ready.
  static absl::StatusOr<std::unique_ptr<StubService>> Create(
      const StubServiceOptions& options);
  ~StubService();

  coordinator::ApiService* api() { return api_.get(); }
  const model::Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  StubService() = default;

  std::unique_ptr<model::Tokenizer> tokenizer_;
  std::unique_ptr<model::ChatEncoding> chat_;
  std::unique_ptr<coordinator::GroupProvider> provider_;
  std::unique_ptr<coordinator::Metrics> metrics_;
  std::unique_ptr<coordinator::EngineLoop> engine_;
  std::unique_ptr<coordinator::ApiService> api_;
};

}  // namespace tessera::benchmarks

#endif  // TESSERA_BENCHMARKS_STUB_SERVICE_H_
