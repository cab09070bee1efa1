// ReadAheadExecutor: a StepExecutor in front of another, which says to a slow
// EngramSource what a plan will ask for when the plan comes, while the steps before it
// still run. What it says is a hint: nothing is computed from it, and a row that it does
// not name is asked for by its step as ever.
//
// A plan names the tokens of a prompt's chunk, and then their rows are known; of a token
// that is sampled they are not. So it keeps, by slot, the last tokens before the ones to
// come, as far as plans have named them.
#ifndef TESSERA_WORKER_SERVICE_READ_AHEAD_EXECUTOR_H_
#define TESSERA_WORKER_SERVICE_READ_AHEAD_EXECUTOR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "engram_store/client/engram_source.h"
#include "engram_store/hashing/engram_hash.h"
#include "proto/step_executor.h"
#include "proto/step_plan.h"

namespace tessera::worker {

struct ReadAheadOptions {
  size_t max_slots = 0;  // slots beyond are not looked at
  int64_t max_ngram = 0;
};

// As the executor behind it: one thread submits and waits; Abort may come from any
// thread.
class ReadAheadExecutor final : public proto::StepExecutor {
 public:
  // `hash` and `source` must outlive it.
  ReadAheadExecutor(const ReadAheadOptions& options,
                    std::unique_ptr<proto::StepExecutor> executor,
                    const engram_store::EngramHash* hash,
                    engram_store::EngramSource* source);

  absl::Status Submit(proto::StepPlan plan) override;
  absl::Status SubmitLate(proto::LateInput late) override;
  absl::StatusOr<proto::StepResult> Wait(absl::Time deadline) override;
  void Abort(absl::Status reason) override;

 private:
  // The tokens before a slot's next one, as many as an n-gram looks back, or all of them.
  struct Tail {
    std::vector<int32_t> tokens;
    bool known = false;
    bool from_start = false;
  };

  void Follow(const proto::StepPlan& plan, bool announces);
  void FollowWork(const proto::SlotWork& work, bool announces);
  void Announce(const Tail& tail, int64_t begin);
  void Shorten(Tail* tail) const;
  bool AreTokens(const std::vector<int32_t>& ids) const;

  const ReadAheadOptions options_;
  const std::unique_ptr<proto::StepExecutor> executor_;
  const engram_store::EngramHash* const hash_;
  engram_store::EngramSource* const source_;
  std::vector<Tail> tails_;  // by slot
  std::vector<uint32_t> row_ids_;
  std::atomic<int> in_flight_{0};
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_SERVICE_READ_AHEAD_EXECUTOR_H_
