// Between the plain structs of step_plan.h and the wire messages of step.proto. Neither
// side trusts the other's counts: a message over a limit is refused as a whole.
#ifndef TESSERA_PROTO_STEP_CONVERT_H_
#define TESSERA_PROTO_STEP_CONVERT_H_

#include <cstdint>

#include "absl/status/statusor.h"

#include "proto/step.pb.h"
#include "proto/step_plan.h"

namespace tessera::proto {

// Upper bounds of what one message may hold. The defaults fit every model and
// configuration that is served; the receiver may narrow them to its own.
struct StepLimits {
  int64_t max_slots = 4096;       // releases, admissions, appends, work
  int64_t max_history = 4 << 20;  // tokens of one admission
  int64_t max_blocks = 1 << 20;   // entries of one block table
  int64_t max_tokens = 1 << 20;   // tokens of all work of a plan, drafts included
  int64_t max_disk_copies = kMaxDiskCopies;  // of a plan, and under way
  int64_t max_copies = 1 << 21;  // offloads, restores, sends, receives of a plan
  int64_t max_stop_tokens = 1024;
  int64_t max_logit_bias = 1024;
  int64_t max_top_logprobs = 64;
  int64_t max_bad_words = 256;
  int64_t max_bad_word_tokens = 64;  // of one
  int64_t max_allowed_tokens = 4096;
  int64_t max_mask_words = 1 << 15;     // of one mask: vocabularies of a million ids
  int64_t max_expert_counts = 1 << 17;  // 128 layers of 1024 experts
};

::tessera::worker::v1::StepPlan ToWire(const StepPlan& plan);
::tessera::worker::v1::LateInput ToWire(const LateInput& late);
::tessera::worker::v1::StepResult ToWire(const StepResult& result);

::tessera::worker::v1::StepReply ReplyToWire(const absl::StatusOr<StepResult>& outcome);

// kInvalidArgument with the field and its limit if a count is too large, a slot or token
// id is out of range, a sampling number is not finite, or fields contradict each other.
absl::StatusOr<StepPlan> FromWire(const ::tessera::worker::v1::StepPlan& message,
                                  const StepLimits& limits = {});
absl::StatusOr<LateInput> FromWire(const ::tessera::worker::v1::LateInput& message,
                                   const StepLimits& limits = {});
absl::StatusOr<StepResult> FromWire(const ::tessera::worker::v1::StepResult& message,
                                    const StepLimits& limits = {});

// The result, or the error with which the step failed on the rank.
absl::StatusOr<StepResult> ReplyFromWire(const ::tessera::worker::v1::StepReply& message,
                                         const StepLimits& limits = {});

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_STEP_CONVERT_H_
