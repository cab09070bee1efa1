// RankView: one rank as its plans describe it, independent of the scheduler's own books:
// which slots hold which blocks, what plans in flight read, whose content lies where. It
// checks what every plan promises about blocks, tenants and tokens.
#ifndef TESSERA_TESTS_SIMULATION_RANK_VIEW_H_
#define TESSERA_TESTS_SIMULATION_RANK_VIEW_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "coordinator/scheduler/scheduler.h"
#include "proto/step_plan.h"

namespace tessera::testing {

// External synchronisation.
class RankView {
 public:
  struct SlotView {
    coordinator::SequenceId sequence = 0;
    std::string tenant;
    std::vector<uint32_t> blocks;
    size_t tail_begin = 0;
    std::vector<uint32_t> tail_blocks;  // from index tail_begin on
    size_t num_hits = 0;                // of `blocks`, that it was admitted with
    size_t num_tail_hits = 0;           // of `tail_blocks`, likewise
    bool worked = false;
    size_t length = 0;  // tokens planned that are no drafts, and drafts that stood
  };

  // The tenant of a sequence that may be admitted; null for any other.
  using TenantOf = absl::FunctionRef<const std::string*(coordinator::SequenceId)>;

  // `options` must outlive it.
  explicit RankView(const coordinator::SchedulerOptions* options) : options_(options) {}

  // Whose content a step's transfers carry, by their ids.
  using Transfers = std::map<uint64_t, std::string>;

  // Adds what the next plan sends; kInternal: more than it may, or from or to a rank of
  // the wrong role. This is `dp_rank`.
  absl::Status TakeSends(const proto::StepPlan& plan, int64_t dp_rank,
                         Transfers* transfers) const;

  // Takes the next plan, where `transfers` has the sends of all ranks. kInternal: the
  // first promise that it breaks.
  absl::Status TakePlan(const proto::StepPlan& plan, TenantOf tenant_of,
                        const Transfers& transfers);

  // Takes what the result of the plan taken last says of disk copies.
  void TakeDiskReport(const proto::StepResult& result);

  // Takes the answer to the oldest plan: the drafts that stood lengthen their slots.
  void TakeResult(const proto::StepResult& result);

  const std::map<uint32_t, SlotView>& slots() const { return slots_; }

  // What was met since construction.
  int64_t tail_hits() const { return tail_hits_; }
  int64_t tail_chunks() const { return tail_chunks_; }
  int64_t accepted_drafts() const { return accepted_drafts_; }

 private:
  absl::Status TakeAdmission(const proto::SlotAdmission& admission, TenantOf tenant_of);
  absl::Status TakeCopies(const proto::StepPlan& plan, const Transfers& transfers);
  // No copy of the plan uses a host block that the disk is to fill.
  absl::Status TakeDiskCopies(const proto::StepPlan& plan);
  // What a restore writes is held by nobody, or by slots that wait for it.
  absl::Status CheckRestored(const proto::BlockCopy& copy) const;
  // What a slot was admitted with is its tenant's when it first works.
  absl::Status CheckHits(const SlotView& slot);
  absl::Status CheckNewBlocks(std::span<const uint32_t> blocks) const;
  absl::Status CheckNewTails(std::span<const uint32_t> blocks) const;
  // The slot's tokens from `begin` up to `end` are in its blocks.
  void Write(const SlotView& slot, size_t begin, size_t end);
  // The tail blocks that tokens from `position` on can see.
  std::span<const uint32_t> VisibleTail(const SlotView& slot, size_t position) const;

  const coordinator::SchedulerOptions* options_;
  std::map<uint32_t, SlotView> slots_;
  std::map<uint32_t, std::string> tenant_of_block_;  // of its last writer
  std::map<uint32_t, std::string> tenant_of_tail_;
  std::map<uint32_t, std::string> tenant_of_host_block_;  // of the content
  std::map<uint32_t, std::string> tenant_of_host_tail_;
  std::map<uint32_t, std::string> tenant_of_slot_;
  std::map<uint32_t, std::string> tenant_of_tail_slot_;
  // Disk copies under way, with the tenant whose content they move.
  std::deque<std::pair<proto::DiskCopy, std::string>> disk_copies_;
  uint64_t num_disk_done_ = 0;
  std::deque<proto::DiskCopy> untold_;  // not done by an answer that was taken
  uint64_t num_disk_told_ = 0;
  // Host blocks that are being filled from the disk, by kind.
  std::set<std::pair<bool, uint32_t>> fetching_;
  std::deque<std::set<uint32_t>> blocks_of_plans_in_flight_;
  // By slot, as each plan found them; lengths grow with drafts of the plan before.
  std::deque<std::map<uint32_t, SlotView>> slots_of_plans_in_flight_;
  int64_t tail_hits_ = 0;
  int64_t tail_chunks_ = 0;
  int64_t accepted_drafts_ = 0;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_SIMULATION_RANK_VIEW_H_
