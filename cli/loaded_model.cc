#include "cli/loaded_model.h"

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "common/status_macros.h"
#include "engram_store/table/checkpoint_tables.h"
#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::cli {

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const std::string& directory) {
  auto loaded = std::make_unique<LoadedModel>();
  TESSERA_ASSIGN_OR_RETURN(loaded->config, model::LoadModelConfig(directory));
  TESSERA_ASSIGN_OR_RETURN(loaded->checkpoint, model::Checkpoint::Open(directory));
  TESSERA_RETURN_IF_ERROR(model::ValidateCheckpoint(loaded->config, *loaded->checkpoint));
  if (loaded->config.engram.has_value()) {
    TESSERA_ASSIGN_OR_RETURN(
        loaded->hash,
        engram_store::LoadEngramHash(loaded->config, *loaded->checkpoint, directory));
  }
  return loaded;
}

}  // namespace tessera::cli
