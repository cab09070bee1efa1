// TraceProgram: one prompt through the same StepPlans and ModelRunner as serving, for
// `tessera trace` and the golden tests: prefill in chunks, the draft layer over the whole
// prompt and one position further, greedy continuation. Every rank of the group runs it;
// rank 0 records.
#ifndef TESSERA_WORKER_RUNNER_TRACE_PROGRAM_H_
#define TESSERA_WORKER_RUNNER_TRACE_PROGRAM_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "model/config/model_config.h"
#include "worker/runner/model_runner.h"
#include "worker/runner/trace_recorder.h"

namespace tessera::worker {

struct TraceRequest {
  std::vector<int32_t> ids;   // at least one
  int64_t chunk = 0;          // tokens per step; 0: as many as the runner takes
  bool drafts = true;         // run the draft layer, where the model has one
  int64_t greedy_tokens = 0;  // continue by so many tokens; 0: none
  int64_t block_size = 16;    // of the runner
  uint64_t epoch = 1;         // higher for every run on the same runner
  uint64_t placement_version = 0;
  // The rank's data-parallel group computes the prompt; the others take part with empty
  // plans.
  bool idle = false;
};

// Collective: all ranks call it with the same request apart from `idle`. `recorder` is
// null on ranks that do not record. Returns the greedy continuation (argmax of the
// prompt's last logits first).
absl::StatusOr<std::vector<int32_t>> RunTrace(const model::ModelConfig& config,
                                              const TraceRequest& request,
                                              int64_t max_tokens, ModelRunner& runner,
                                              TraceRecorder* recorder);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_TRACE_PROGRAM_H_
