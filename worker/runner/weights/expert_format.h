// In which format the routed experts of a checkpoint are: from its config alone, so that
// every rank says the same, also one that holds none.
#ifndef TESSERA_WORKER_RUNNER_WEIGHTS_EXPERT_FORMAT_H_
#define TESSERA_WORKER_RUNNER_WEIGHTS_EXPERT_FORMAT_H_

#include "model/config/model_config.h"

namespace tessera::worker {

// Whether numerics fp8-g128 round the rows that the experts of `moe` take: what
// kernels::IsFp8Expert says of each of them as it is loaded.
bool AreFp8Experts(const model::ModelConfig& config, const model::MoeConfig& moe);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_WEIGHTS_EXPERT_FORMAT_H_
