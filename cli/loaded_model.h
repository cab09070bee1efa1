// LoadedModel: a checkpoint folder opened and checked: description, mapped tensors,
// Engram constants. Every subcommand that touches a model starts here.
#ifndef TESSERA_CLI_LOADED_MODEL_H_
#define TESSERA_CLI_LOADED_MODEL_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "engram_store/hashing/engram_hash.h"
#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"

namespace tessera::cli {

// Immutable after Load; thread-safe. Outlives everything that was built from it.
struct LoadedModel {
  model::ModelConfig config;
  std::unique_ptr<model::Checkpoint> checkpoint;
  std::optional<engram_store::EngramHash> hash;  // of a model with Engram

  const engram_store::EngramHash* hash_or_null() const {
    return hash.has_value() ? &*hash : nullptr;
  }
};

// kNotFound, kInvalidArgument, kDataLoss: what is wrong with the folder, naming the file,
// field or tensor; config.json and tensors must agree entirely.
absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const std::string& directory);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_LOADED_MODEL_H_
