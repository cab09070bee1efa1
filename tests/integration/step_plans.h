// Plans of single steps for tests that drive runners without a scheduler: short prompts
// in slots of their own, then tokens for all of them.
#ifndef TESSERA_TESTS_INTEGRATION_STEP_PLANS_H_
#define TESSERA_TESTS_INTEGRATION_STEP_PLANS_H_

#include <cstdint>

#include "proto/step_plan.h"

namespace tessera::testing {

// Step 1: admits slots 0 to num_sequences - 1 with four blocks each, and as many tail
// blocks if `keeps_tail`, and prefills prompts of five tokens. Greedy, or sampled under
// the slot's number as a seed.
inline proto::StepPlan PrefillPlan(uint32_t num_sequences, bool keeps_tail, bool greedy) {
  proto::StepPlan plan;
  plan.epoch = 1;
  plan.step = 1;
  plan.placement_version = 1;
  for (uint32_t slot = 0; slot < num_sequences; ++slot) {
    proto::SlotAdmission admission;
    admission.slot = slot;
    admission.prompt_length = 5;
    admission.sampling.temperature = greedy ? 0.0f : 1.0f;
    admission.sampling.seed = slot;
    admission.blocks = {slot * 4, slot * 4 + 1, slot * 4 + 2, slot * 4 + 3};
    if (keeps_tail) {
      admission.tail_blocks = admission.blocks;
    }
    plan.admissions.push_back(admission);
    plan.work.push_back({.slot = slot,
                         .from_sample = false,
                         .sample = true,
                         .tokens = {0, 312, static_cast<int32_t>(100 + slot), 7, 8}});
  }
  return plan;
}

// A later step: the next token of each of those slots, with `num_drafts` drafts.
inline proto::StepPlan DecodePlan(uint64_t step, uint32_t num_sequences,
                                  uint32_t num_drafts) {
  proto::StepPlan plan;
  plan.epoch = 1;
  plan.step = step;
  plan.placement_version = 1;
  for (uint32_t slot = 0; slot < num_sequences; ++slot) {
    plan.work.push_back({.slot = slot,
                         .from_sample = true,
                         .sample = true,
                         .tokens = {},
                         .num_drafts = num_drafts});
  }
  plan.decode_rows = num_drafts == 0 ? num_sequences : 0;
  return plan;
}

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_INTEGRATION_STEP_PLANS_H_
