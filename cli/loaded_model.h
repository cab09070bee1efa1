// LoadedModel: a checkpoint folder opened and checked: description, mapped tensors,
// Engram constants. Every subcommand that touches a model starts here.
#ifndef TESSERA_CLI_LOADED_MODEL_H_
#define TESSERA_CLI_LOADED_MODEL_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engram_store/hashing/engram_hash.h"
#include "engram_store/table/engram_table.h"
#include "engram_store/table/table_info.h"
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

// Layouts of the model's Engram tables, one per Engram layer; empty without Engram.
std::vector<engram_store::TableLayout> TableLayouts(const LoadedModel& model);

// Packs this shard's share of every Engram table. Errors as EngramTable::Pack.
absl::StatusOr<std::vector<std::shared_ptr<const engram_store::EngramTable>>> PackTables(
    const LoadedModel& model, const engram_store::PackOptions& options);

// The tensors of Engram layer `index` in the checkpoint.
absl::StatusOr<engram_store::TableTensors> TensorsOfTable(const LoadedModel& model,
                                                          size_t index);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_LOADED_MODEL_H_
