// Decode steps: those in which every rank of a group does nothing but the next token of
// sequences. Whoever plans a step knows all ranks and says so in each plan; a rank then
// needs no other to know that it may run one of the shapes that all have prepared.
#ifndef TESSERA_PROTO_DECODE_ROWS_H_
#define TESSERA_PROTO_DECODE_ROWS_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"

#include "proto/step_plan.h"

namespace tessera::proto {

// One token whose logits are wanted, and nothing else. (Chunks inside a prompt want none,
// others and drafts have more tokens.)
bool IsDecodeWork(const SlotWork& work);

// StepPlan::decode_rows of a step with these plans, one for each DP rank: the most work
// of any of them, or 0 where one has other work, or none has any.
uint32_t DecodeRowsOf(std::span<const StepPlan> plans);

// kInvalidArgument: decode_rows is above `max_rows`, or the plan's own work contradicts
// it.
absl::Status CheckDecodeRows(const StepPlan& plan, int64_t max_rows);

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_DECODE_ROWS_H_
