// EngineLoop: the Engine behind every door: one thread that runs an EngineCore, one that
// forms groups, and a bounded inbox between them and the doors.
//
// Ordering: events of a request reach its sink from the engine's thread, one call at a
// time; a Submit that returned OK happens-before the sink's first call, and exactly one
// last call follows, also at shutdown.
#ifndef TESSERA_COORDINATOR_SERVICE_ENGINE_LOOP_H_
#define TESSERA_COORDINATOR_SERVICE_ENGINE_LOOP_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/bounded_queue.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/requests/engine.h"
#include "coordinator/requests/engine_operations.h"
#include "coordinator/service/engine_core.h"

namespace tessera::coordinator {

// Thread-safe. What it borrows must outlive it.
class EngineLoop final : public Engine, public EngineOperations {
 public:
  // Starts the threads; the group is formed in the background, and status() says when it
  // is ready. Errors as EngineCore::Create. `clock` must run in real time: the threads
  // wait by it.
  static absl::StatusOr<std::unique_ptr<EngineLoop>> Create(
      const EngineOptions& options, GroupProvider* provider,
      const model::Tokenizer* tokenizer, Clock* clock, EngineObserver* observer);
  ~EngineLoop() override;

  // As Engine says; kInvalidArgument if the request's id is in use.
  absl::Status Submit(ValidatedRequest request,
                      std::shared_ptr<RequestSink> sink) override;
  void Cancel(const std::string& request_id) override;
  EngineStatus status() const override;
  absl::Duration retry_after() const override;
  EngineReport Report() override;
  void SetCordoned(bool cordoned) override;

  // The tenants' grants from now on, as Scheduler::SetTenants, on the engine's thread.
  // kInvalidArgument as there; kResourceExhausted: the inbox is full.
  absl::Status SetTenants(std::vector<TenantPolicy> tenants, TenantPolicy others);

  // Blocks until the engine is ready or `deadline` passed; whether it is ready.
  bool WaitReady(absl::Time deadline) const;

  // Refuses new requests from now on; what is not finished after `timeout` ends with
  // kUnavailable. A later call with a shorter timeout takes its place.
  void StartDrain(absl::Duration timeout);

  // Blocks until no request is left.
  void WaitDrained();

  // Ends everything with kUnavailable, aborts the group and joins the threads.
  // Idempotent.
  void Shutdown();

 private:
  struct SubmitCommand {
    ValidatedRequest request;
    std::shared_ptr<RequestSink> sink;
  };
  struct CancelCommand {
    std::string request_id;
  };
  struct FormedCommand {
    uint64_t epoch = 0;
    absl::Status status;
    RankExecutors executors;
  };
  struct DrainCommand {
    absl::Time deadline;
  };
  struct TenantsCommand {
    std::vector<TenantPolicy> tenants;
    TenantPolicy others;
  };
  using Command = std::variant<SubmitCommand, CancelCommand, FormedCommand, DrainCommand,
                               TenantsCommand>;

  // A request that was accepted and has not ended.
  struct Known {
    bool cancelled = false;
  };

  EngineLoop(const EngineOptions& options, std::unique_ptr<EngineCore> core,
             GroupProvider* provider, Clock* clock, EngineObserver* observer);

  void Run();
  void RunForming();
  void Apply(Command command);
  void Publish();
  // Renews the list of requests if somebody asks for it and it is due.
  void PublishRequests();
  absl::Status Admit(const ValidatedRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsReady() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const EngineOptions options_;
  GroupProvider* const provider_;
  Clock* const clock_;
  EngineObserver no_observer_;
  EngineObserver* const observer_;
  BoundedQueue<Command> inbox_;
  BoundedQueue<uint64_t> form_requests_;

  // The engine thread's own.
  const std::unique_ptr<EngineCore> core_;
  int64_t applied_sequences_ = 0;  // taken from the inbox since the last Publish

  mutable Mutex mutex_;
  EngineSnapshot snapshot_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, Known> known_ ABSL_GUARDED_BY(mutex_);
  int64_t inbox_sequences_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_rejected_full_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_rejected_unready_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool cordoned_ ABSL_GUARDED_BY(mutex_) = false;
  // The list of requests, which is made only while somebody looks at it.
  std::vector<RequestReport> requests_ ABSL_GUARDED_BY(mutex_);
  absl::Time requests_wanted_until_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time next_request_list_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread forming_;
  std::thread thread_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_ENGINE_LOOP_H_
