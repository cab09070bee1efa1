#include "proto/decode_rows.h"

#include <algorithm>

#include "common/status.h"

namespace tessera::proto {

bool IsDecodeWork(const SlotWork& work) {
  return work.tokens.size() + (work.from_sample ? 1 : 0) == 1 && work.sample &&
         work.num_drafts == 0;
}

uint32_t DecodeRowsOf(std::span<const StepPlan> plans) {
  size_t rows = 0;
  for (const StepPlan& plan : plans) {
    if (!std::all_of(plan.work.begin(), plan.work.end(), IsDecodeWork)) {
      return 0;
    }
    rows = std::max(rows, plan.work.size());
  }
  return static_cast<uint32_t>(rows);
}

absl::Status CheckDecodeRows(const StepPlan& plan, int64_t max_rows) {
  if (plan.decode_rows == 0) {
    return absl::OkStatus();
  }
  if (plan.decode_rows > max_rows) {
    return InvalidArgumentF("decode_rows {}, expected at most {}", plan.decode_rows,
                            max_rows);
  }
  if (plan.work.size() > plan.decode_rows) {
    return InvalidArgumentF("{} work items in a decode step of {} rows", plan.work.size(),
                            plan.decode_rows);
  }
  for (const SlotWork& work : plan.work) {
    if (!IsDecodeWork(work)) {
      return InvalidArgumentF("slot {}: not one token to sample after, in a decode step",
                              work.slot);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::proto
