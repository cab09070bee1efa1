// CountingWorker: a rank without a model for long simulations: it takes a plan in time
// proportional to the plan, not to the contexts (StubWorker, which checks every row of
// every step, does not). It refuses plans that a worker could not execute. Every KV block
// carries a hash of its tenant and of all tokens up to its end: checked when a sequence
// that was admitted with it first works, and, for a few blocks of each sequence in every
// step, that nobody else has written them. The token at a position is a function of the
// sampling seed and the position alone. Copies to host blocks and back move the hashes.
#ifndef TESSERA_TESTS_SIMULATION_COUNTING_WORKER_H_
#define TESSERA_TESTS_SIMULATION_COUNTING_WORKER_H_

#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "coordinator/scheduler/scheduler.h"
#include "proto/step_plan.h"
#include "tests/testing/stub_disk.h"

namespace tessera::testing {

// The token that every CountingWorker samples at `position` of the sequence with `seed`.
int32_t CountedToken(uint64_t seed, size_t position);

// What one step asked of a rank, for a step-time model.
struct RankWork {
  int64_t num_tokens = 0;    // drafts included
  double context_sum = 0;    // of the contexts of these tokens
  int64_t num_drafts = 0;    // of them
  int64_t num_accepted = 0;  // drafts that stood
  int64_t num_copies = 0;    // of blocks between device and host, or ranks
};

// External synchronisation.
class CountingWorker {
 public:
  // Of `options` the sizes of one rank count. `tenant_of` gives a number for the tenant
  // of the sequence with a sampling seed.
  CountingWorker(const coordinator::SchedulerOptions& options,
                 std::function<uint64_t(uint64_t seed)> tenant_of);

  // Hashes of the blocks that a step sends between the ranks of a group, by their ids.
  using Transfers = std::unordered_map<uint64_t, uint64_t>;

  // Adds what the plan, which is executed next, sends.
  void Send(const proto::StepPlan& plan, Transfers* transfers) const;

  // kFailedPrecondition: the plan cannot be executed. kDataLoss: a block does not hold
  // what the plan says. Fills `work`. `transfers`: what all ranks send.
  absl::StatusOr<proto::StepResult> Execute(const proto::StepPlan& plan,
                                            const Transfers& transfers, RankWork* work);

  // The sampling seeds of the sequences that hold slots.
  std::vector<uint64_t> LiveSeeds() const;

 private:
  struct Slot {
    bool live = false;
    bool worked = false;
    uint64_t seed = 0;
    size_t length = 0;             // tokens computed
    uint64_t hash = 0;             // of the tenant and of all of them
    std::vector<uint64_t> hashes;  // at the end of each full block
    std::vector<uint32_t> blocks;
    int32_t sample = -1;
  };

  absl::Status Copy(const proto::StepPlan& plan, const Transfers& transfers);
  absl::Status CopyDisk(const proto::StepPlan& plan, proto::StepResult* result);
  absl::Status Admit(const proto::SlotAdmission& admission);
  absl::Status Work(const proto::SlotWork& work, proto::StepResult* result,
                    RankWork* totals);
  // Takes in tokens; the blocks that they fill get their hashes.
  void Compute(Slot* slot, std::span<const int32_t> tokens);
  // Every block that the slot was admitted with holds its history.
  absl::Status CheckHistory(const Slot& slot) const;
  absl::Status CheckSomeBlocks(const Slot& slot, uint64_t step) const;

  const coordinator::SchedulerOptions options_;
  const std::function<uint64_t(uint64_t)> tenant_of_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> memory_;  // hash of each full block
  std::unordered_map<uint32_t, uint64_t> host_memory_;
  StubDisk<uint64_t> disk_;
  uint64_t step_ = 0;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_SIMULATION_COUNTING_WORKER_H_
