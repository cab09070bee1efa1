#include "worker/runner/sequence_slots.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "proto/step_plan.h"

namespace tessera::worker {

SequenceSlots::SequenceSlots(const SlotLimits& limits)
    : limits_(limits),
      max_blocks_((limits.max_model_len + limits.block_size - 1) / limits.block_size),
      slots_(static_cast<size_t>(limits.num_slots)) {
  for (SequenceSlot& slot : slots_) {
    slot.tokens.reserve(static_cast<size_t>(limits.max_model_len));
    slot.blocks.reserve(static_cast<size_t>(max_blocks_));
    if (limits.num_tail_blocks > 0) {
      slot.tail.reserve(static_cast<size_t>(max_blocks_));
    }
    slot.drafts.reserve(static_cast<size_t>(limits.max_drafts));
  }
}

void SequenceSlots::Clear() {
  for (SequenceSlot& slot : slots_) {
    slot.active = false;
  }
}

absl::Status SequenceSlots::CheckLive(uint32_t index) const {
  if (index >= slots_.size()) {
    return InvalidArgumentF("slot {}, expected less than {}", index, slots_.size());
  }
  if (!slots_[index].active) {
    return StatusF(absl::StatusCode::kFailedPrecondition, "slot {} holds no sequence",
                   index);
  }
  return absl::OkStatus();
}

absl::Status SequenceSlots::CheckToken(int32_t token) const {
  if (!is_input(token)) {
    return InvalidArgumentF("token {}, expected 0 to {}", token,
                            limits_.num_token_ids - 1);
  }
  return absl::OkStatus();
}

absl::Status SequenceSlots::AppendBlocks(SequenceSlot& slot,
                                         const std::vector<uint32_t>& blocks) const {
  if (static_cast<int64_t>(slot.blocks.size() + blocks.size()) > max_blocks_) {
    return InvalidArgumentF("{} blocks in a block table, at most {}",
                            slot.blocks.size() + blocks.size(), max_blocks_);
  }
  for (const uint32_t block : blocks) {
    if (block >= limits_.num_blocks) {
      return InvalidArgumentF("block {}, expected less than {}", block,
                              limits_.num_blocks);
    }
    slot.blocks.push_back(block);
  }
  return absl::OkStatus();
}

absl::Status SequenceSlots::AppendTail(SequenceSlot& slot,
                                       const std::vector<uint32_t>& blocks) const {
  if (static_cast<int64_t>(slot.tail.size() + blocks.size()) > max_blocks_) {
    return InvalidArgumentF("{} blocks in a tail block table, at most {}",
                            slot.tail.size() + blocks.size(), max_blocks_);
  }
  for (const uint32_t block : blocks) {
    if (block >= limits_.num_tail_blocks) {
      return InvalidArgumentF("tail block {}, expected less than {}", block,
                              limits_.num_tail_blocks);
    }
    slot.tail.push_back(static_cast<int32_t>(block));
  }
  return absl::OkStatus();
}

absl::Status SequenceSlots::BeginTail(SequenceSlot& slot,
                                      const proto::SlotAdmission& admission) const {
  const auto history = static_cast<int64_t>(admission.history.size());
  const int64_t first_seen =
      std::max<int64_t>(0, history - limits_.tail_tokens) / limits_.block_size;
  if (admission.tail_begin > first_seen) {
    return InvalidArgumentF("tail blocks from {} on, the token after {} sees block {}",
                            admission.tail_begin, history, first_seen);
  }
  slot.tail.assign(admission.tail_begin, -1);
  return AppendTail(slot, admission.tail_blocks);
}

int64_t SequenceSlots::Capacity(const SequenceSlot& slot) const {
  const size_t num_blocks = limits_.num_tail_blocks > 0
                                ? std::min(slot.blocks.size(), slot.tail.size())
                                : slot.blocks.size();
  return std::min(static_cast<int64_t>(num_blocks) * limits_.block_size,
                  limits_.max_model_len);
}

absl::Status SequenceSlots::CheckSampling(const proto::SamplingParams& params) const {
  const auto check = [this](std::string_view what, int32_t token) {
    return token >= 0 && token < limits_.vocab_size
               ? absl::OkStatus()
               : InvalidArgumentF("{} {}, vocabulary {}", what, token,
                                  limits_.vocab_size);
  };
  // Written so that a NaN is refused.
  if (!(params.temperature >= 0) || !(params.repetition_penalty > 0) ||
      !(params.top_p > 0 && params.top_p <= 1) ||
      !(params.min_p >= 0 && params.min_p <= 1)) {
    return InvalidArgumentF(
        "temperature {}, repetition penalty {}, top_p {}, min_p {}: one of them cannot "
        "be",
        params.temperature, params.repetition_penalty, params.top_p, params.min_p);
  }
  for (const auto& [token, bias] : params.logit_bias) {
    TESSERA_RETURN_IF_ERROR(check("logit bias of token", token));
  }
  for (const int32_t token : params.stop_token_ids) {
    TESSERA_RETURN_IF_ERROR(check("stop token", token));
  }
  for (const int32_t token : params.allowed_token_ids) {
    TESSERA_RETURN_IF_ERROR(check("allowed token", token));
  }
  for (const std::vector<int32_t>& word : params.bad_words) {
    if (word.empty()) {
      return InvalidArgumentF("a bad word without tokens");
    }
    for (const int32_t token : word) {
      TESSERA_RETURN_IF_ERROR(check("token of a bad word", token));
    }
  }
  return absl::OkStatus();
}

absl::Status SequenceSlots::Admit(const proto::SlotAdmission& admission) {
  if (admission.slot >= slots_.size()) {
    return InvalidArgumentF("slot {}, expected less than {}", admission.slot,
                            slots_.size());
  }
  SequenceSlot& slot = slots_[admission.slot];
  if (slot.active) {
    return StatusF(absl::StatusCode::kFailedPrecondition, "slot {} is in use",
                   admission.slot);
  }
  if (static_cast<int64_t>(admission.history.size()) > limits_.max_model_len) {
    return InvalidArgumentF("history of {} tokens, at most {}", admission.history.size(),
                            limits_.max_model_len);
  }
  for (const int32_t token : admission.history) {
    TESSERA_RETURN_IF_ERROR(CheckToken(token));
  }
  TESSERA_RETURN_IF_ERROR(CheckSampling(admission.sampling));
  slot.blocks.clear();
  TESSERA_RETURN_IF_ERROR(AppendBlocks(slot, admission.blocks));
  TESSERA_RETURN_IF_ERROR(BeginTail(slot, admission));
  slot.tokens.assign(admission.history.begin(), admission.history.end());
  slot.prompt_length = admission.prompt_length;
  slot.sampled.reset();
  slot.drafts.clear();
  slot.sampling = admission.sampling;
  slot.mask = {};
  slot.active = true;
  return absl::OkStatus();
}

absl::Status SequenceSlots::Apply(const proto::StepPlan& plan) {
  for (const uint32_t index : plan.releases) {
    TESSERA_RETURN_IF_ERROR(CheckLive(index));
    slots_[index].active = false;
  }
  for (const proto::SlotAdmission& admission : plan.admissions) {
    TESSERA_RETURN_IF_ERROR(Admit(admission));
  }
  for (const proto::BlockAppend& append : plan.appends) {
    TESSERA_RETURN_IF_ERROR(CheckLive(append.slot));
    TESSERA_RETURN_IF_ERROR(AppendBlocks(slots_[append.slot], append.blocks));
    TESSERA_RETURN_IF_ERROR(AppendTail(slots_[append.slot], append.tail_blocks));
  }
  return absl::OkStatus();
}

absl::Status SequenceSlots::TakeMasks(const proto::StepPlan& plan,
                                      const proto::LateInput& late) {
  const auto num_words = static_cast<size_t>((limits_.vocab_size + 31) / 32);
  size_t next = 0;
  for (const proto::SlotWork& work : plan.work) {
    if (!work.masked) {
      continue;
    }
    if (next == late.masks.size() || late.masks[next].slot != work.slot) {
      return InvalidArgumentF("no mask for slot {} in its place among {}", work.slot,
                              late.masks.size());
    }
    const std::vector<uint32_t>& words = late.masks[next++].words;
    if (!words.empty() && words.size() != num_words) {
      return InvalidArgumentF("slot {}: a mask of {} words, expected {}", work.slot,
                              words.size(), num_words);
    }
    slots_[work.slot].mask = words;
  }
  if (next != late.masks.size()) {
    return InvalidArgumentF("{} masks, expected {}", late.masks.size(), next);
  }
  return absl::OkStatus();
}

void SequenceSlots::DropMasks(const proto::StepPlan& plan) {
  for (const proto::SlotWork& work : plan.work) {
    slots_[work.slot].mask = {};
  }
}

absl::Status SequenceSlots::CheckWork(const proto::SlotWork& work) const {
  TESSERA_RETURN_IF_ERROR(CheckLive(work.slot));
  const SequenceSlot& slot = slots_[work.slot];
  const size_t count = work.from_sample ? 1 : work.tokens.size();
  if (count == 0 || (work.from_sample && !work.tokens.empty())) {
    return InvalidArgumentF("slot {}: {} tokens{}", work.slot, work.tokens.size(),
                            work.from_sample ? " beside the sampled one" : "");
  }
  const auto length = static_cast<int64_t>(slot.tokens.size() + count) + work.num_drafts;
  if (length > Capacity(slot)) {
    return InvalidArgumentF("slot {}: {} tokens, room for {}", work.slot, length,
                            Capacity(slot));
  }
  // A sampler counts what was generated from the end of the prompt on.
  if (work.sample &&
      static_cast<int64_t>(slot.tokens.size() + count) < slot.prompt_length) {
    return InvalidArgumentF("slot {}: to sample after {} tokens, the prompt has {}",
                            work.slot, slot.tokens.size() + count, slot.prompt_length);
  }
  if (work.from_sample) {
    if (!slot.sampled.has_value()) {
      return StatusF(absl::StatusCode::kFailedPrecondition,
                     "slot {} has no sampled token", work.slot);
    }
    TESSERA_RETURN_IF_ERROR(CheckToken(*slot.sampled));
  }
  for (const int32_t token : work.tokens) {
    TESSERA_RETURN_IF_ERROR(CheckToken(token));
  }
  if (work.next_token != -1) {
    TESSERA_RETURN_IF_ERROR(CheckToken(work.next_token));
  }
  return CheckDrafts(work);
}

absl::Status SequenceSlots::CheckDrafts(const proto::SlotWork& work) const {
  if (work.masked && (!work.sample || work.num_drafts > 0)) {
    return InvalidArgumentF("slot {}: masked with {} drafts, sample {}", work.slot,
                            work.num_drafts, work.sample);
  }
  if (work.num_drafts == 0) {
    return absl::OkStatus();
  }
  if (work.num_drafts > limits_.max_drafts || !work.sample) {
    return InvalidArgumentF("slot {}: {} drafts, sample {}: at most {}, to be sampled",
                            work.slot, work.num_drafts, work.sample, limits_.max_drafts);
  }
  const SequenceSlot& slot = slots_[work.slot];
  const bool follows = work.from_sample ||
                       (work.tokens.size() == 1 && slot.sampled == work.tokens.front());
  if (!follows) {
    return InvalidArgumentF("slot {}: drafts after other tokens than the sampled one",
                            work.slot);
  }
  return absl::OkStatus();
}

absl::StatusOr<StepRun> SequenceSlots::Advance(const proto::SlotWork& work) {
  TESSERA_RETURN_IF_ERROR(CheckWork(work));
  SequenceSlot& slot = slots_[work.slot];
  StepRun run;
  run.slot = work.slot;
  run.begin = static_cast<int64_t>(slot.tokens.size());
  run.sample = work.sample;
  run.next_token = work.next_token;
  if (work.from_sample) {
    slot.tokens.push_back(*slot.sampled);
  }
  slot.tokens.insert(slot.tokens.end(), work.tokens.begin(), work.tokens.end());
  const size_t num_drafts = std::min<size_t>(work.num_drafts, slot.drafts.size());
  slot.tokens.insert(slot.tokens.end(), slot.drafts.begin(),
                     slot.drafts.begin() + static_cast<std::ptrdiff_t>(num_drafts));
  run.num_drafts = static_cast<int64_t>(num_drafts);
  run.count = static_cast<int64_t>(slot.tokens.size()) - run.begin;
  slot.sampled.reset();
  slot.drafts.clear();
  return run;
}

}  // namespace tessera::worker
