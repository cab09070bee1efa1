#include "coordinator/scheduler/planned_work.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "proto/step_plan.h"

namespace tessera::coordinator {
namespace {

// Whether `samples` answer `work`: one token after another, no more than were asked for,
// and, of a sequence that still takes them, from the end of its tokens on.
absl::Status CheckWorkSamples(const PlannedWork& work, Samples samples) {
  if (samples.empty() || std::ssize(samples) > 1 + work.num_drafts) {
    return InternalF("{} tokens sampled for slot {}, expected 1 to {}", samples.size(),
                     work.slot, 1 + work.num_drafts);
  }
  const Sequence* sequence = work.sequence;
  int64_t position = samples.front().position;
  const bool exact = sequence == nullptr || sequence->takes_tokens();
  const int64_t expected = sequence == nullptr ? work.last_sample_position
                           : exact             ? sequence->num_tokens()
                                               : position;
  if (position != expected ||
      position + std::ssize(samples) - 1 > work.last_sample_position) {
    return InternalF("{} tokens sampled at position {} of slot {}, expected {} to {}",
                     samples.size(), position, work.slot, expected,
                     work.last_sample_position);
  }
  for (const proto::SampledToken& sampled : samples) {
    if (sampled.position != position || sampled.token < 0) {
      return InternalF("token {} sampled at position {} of slot {}, expected position {}",
                       sampled.token, sampled.position, work.slot, position);
    }
    ++position;
  }
  return absl::OkStatus();
}

// Scores are of planned slots and of the tokens that their prompts have.
absl::Status CheckPromptScores(const PlannedRankStep& planned,
                               const proto::StepResult& result) {
  for (const proto::SampledToken& scored : result.prompt) {
    const auto work = std::find_if(
        planned.work.begin(), planned.work.end(),
        [&](const PlannedWork& candidate) { return candidate.slot == scored.slot; });
    const Sequence* sequence = work == planned.work.end() ? nullptr : work->sequence;
    if (sequence == nullptr || scored.position == 0 ||
        scored.position >= static_cast<uint64_t>(sequence->prompt_length) ||
        sequence->tokens[scored.position] != scored.token) {
      return InternalF(
          "step {} scored token {} at position {} of slot {}, which no "
          "prompt has there",
          result.step, scored.token, scored.position, scored.slot);
    }
  }
  return absl::OkStatus();
}

}  // namespace

void TakePromptScores(const proto::StepResult& result, const PlannedWork& work) {
  if (work.sequence->num_tokens() > work.sequence->prompt_length) {
    return;
  }
  std::vector<proto::SampledToken>& scores = work.sequence->prompt_scores;
  for (const proto::SampledToken& scored : result.prompt) {
    if (scored.slot == work.slot && scored.position == scores.size() + 1) {
      scores.push_back(scored);
    }
  }
}

Samples FindSamples(const proto::StepResult& result, uint32_t slot, size_t hint) {
  const auto is_of_slot = [&](const proto::SampledToken& sampled) {
    return sampled.slot == slot;
  };
  auto begin = result.sampled.begin();
  if (hint < result.sampled.size() && is_of_slot(result.sampled[hint])) {
    begin += static_cast<std::ptrdiff_t>(hint);
  } else {
    begin = std::find_if(begin, result.sampled.end(), is_of_slot);
  }
  return {begin, std::find_if_not(begin, result.sampled.end(), is_of_slot)};
}

absl::Status CheckSamples(const PlannedRankStep& planned,
                          const proto::StepResult& result) {
  size_t num_samples = 0;
  for (const PlannedWork& work : planned.work) {
    if (work.sample) {
      const Samples samples = FindSamples(result, work.slot, num_samples);
      TESSERA_RETURN_IF_ERROR(WithContext(CheckWorkSamples(work, samples),
                                          fmt::format("step {}", result.step)));
      num_samples += samples.size();
    }
  }
  if (num_samples != result.sampled.size()) {
    return InternalF("step {} sampled {} tokens, expected {}", result.step,
                     result.sampled.size(), num_samples);
  }
  return CheckPromptScores(planned, result);
}

}  // namespace tessera::coordinator
