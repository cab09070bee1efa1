// What a model asks of the ops of a backend, from its config alone.
#ifndef TESSERA_WORKER_RUNNER_MODEL_SHAPES_H_
#define TESSERA_WORKER_RUNNER_MODEL_SHAPES_H_

#include "kernels/model_shapes.h"
#include "model/config/model_config.h"

namespace tessera::worker {

// Of the whole model, its draft layers included: for KernelBackend::CheckShapes.
kernels::ModelShapes ShapesOf(const model::ModelConfig& config);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_MODEL_SHAPES_H_
