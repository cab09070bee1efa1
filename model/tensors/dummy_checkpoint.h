// Dummy checkpoints: seeded weights of any config without files, for sizing, benchmarks
// and tests. Everything that a checkpoint of the config must hold is there, in its own
// formats: values of about the size that keeps activations near 1, valid scales, tables
// of experts, a token map.
#ifndef TESSERA_MODEL_TENSORS_DUMMY_CHECKPOINT_H_
#define TESSERA_MODEL_TENSORS_DUMMY_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"

#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"

namespace tessera::model {

// A tensor's bytes are made when it is first asked for, by the caller's thread, so that a
// rank pays for what it holds; address space is reserved for all. The same config and
// seed give the same bytes, in any order and from any thread. The inventory holds, so
// that the result needs no check; where the layout has no tensor for it, the token map of
// Engram is one more tensor, `engram.compressed_ids`.
//
// `config` must come from ParseModelConfig; `identity` is what the digest covers beyond
// names, shapes and seed: the text that the config was made of. kResourceExhausted: no
// address space.
absl::StatusOr<std::unique_ptr<Checkpoint>> MakeDummyCheckpoint(
    const ModelConfig& config, uint64_t seed, std::string_view identity);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TENSORS_DUMMY_CHECKPOINT_H_
