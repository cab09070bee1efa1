// LoadedModel: a checkpoint folder opened and checked: description, mapped tensors,
// Engram constants. Every subcommand that touches a model starts here.
#ifndef TESSERA_CLI_LOADED_MODEL_H_
#define TESSERA_CLI_LOADED_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/option_table.h"
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

// Where weights come from, and what of the config is not as the folder says it.
struct LoadOptions {
  std::string format = "auto";  // auto and safetensors: files; dummy: made from a seed
  uint64_t seed = 0;            // of dummy weights
  std::vector<std::string> overrides;  // KEY=VALUE, config_overrides.h

  bool is_dummy() const { return format == "dummy"; }
};

// --load-format, --load-seed and --override; `options` must outlive the table.
void AddLoadOptions(OptionTable* table, LoadOptions* options);

// The same as words of a command line, for a child process.
std::vector<std::string> LoadArguments(const LoadOptions& options);

// kNotFound, kInvalidArgument, kDataLoss: what is wrong with the folder, naming the file,
// field or tensor; config.json and tensors must agree entirely.
absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const std::string& directory,
                                                       const LoadOptions& options = {});

}  // namespace tessera::cli

#endif  // TESSERA_CLI_LOADED_MODEL_H_
