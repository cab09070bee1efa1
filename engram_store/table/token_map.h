// The token map of a checkpoint: raw token id -> compressed id, the first step of
// Engram's hash. Three places, of which the first that is there holds: the tensor
// `engram.compressed_ids` of the checkpoint (V4-MLA), the file
// DIR/compressed_ids.safetensors with that one tensor (docs/formats/checkpoint.md), and
// the tokenizer, from which it can be made (published checkpoints of V4.1).
#ifndef TESSERA_ENGRAM_STORE_TABLE_TOKEN_MAP_H_
#define TESSERA_ENGRAM_STORE_TABLE_TOKEN_MAP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"

namespace tessera::engram_store {

// kNotFound: none of the three. kDataLoss: a tensor that is no I32 vector of at most
// vocab_size ids, or a file with other tensors. Errors of Tokenizer::Load. Whether the
// ids fit the config is checked by EngramHash::Create.
absl::StatusOr<std::vector<int32_t>> LoadTokenMap(const model::ModelConfig& config,
                                                  const model::Checkpoint& checkpoint,
                                                  const std::string& directory);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_TOKEN_MAP_H_
