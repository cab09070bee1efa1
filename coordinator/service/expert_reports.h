// ExpertReports: which steps bring the coordinator the ranks' counts of routed items per
// expert (StepPlan::reports_expert_counts). The DP ranks take turns, so that no step
// carries more than one report while requests run; each has its turn once per period.
//
// A report is 4 bytes per MoE layer and expert at most: 59 KB of a V3 (58 x 256), every
// 2 s: 30 KB/s of each DP rank.
#ifndef TESSERA_COORDINATOR_SERVICE_EXPERT_REPORTS_H_
#define TESSERA_COORDINATOR_SERVICE_EXPERT_REPORTS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "proto/step_plan.h"

namespace tessera::coordinator {

// External synchronisation.
class ExpertReports {
 public:
  // `num_counts`: MoE layers times experts, the size of a report; 0: none is ever asked
  // for.
  ExpertReports(int64_t num_counts, size_t num_dp_ranks, absl::Duration period);

  // Marks the plans of a step, one per DP rank, and returns the DP ranks that it asks. A
  // probe is not counted, and asks every rank that still has something to tell: an idle
  // group's last tokens are known after its next probe.
  std::vector<size_t> Ask(bool probe, absl::Time now, std::span<proto::StepPlan> plans);

  // kInternal, with both sizes: a result, one per DP rank, has counts that nobody asked
  // for, or not as many as there are. It does not answer its plan then.
  absl::Status Check(std::span<const size_t> asked,
                     std::span<const proto::StepResult> results) const;

 private:
  const size_t num_counts_;
  const absl::Duration period_;
  std::vector<bool> untold_;  // by DP rank: it counted since it was last asked
  size_t turn_ = 0;
  absl::Time next_ = absl::InfinitePast();
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_EXPERT_REPORTS_H_
