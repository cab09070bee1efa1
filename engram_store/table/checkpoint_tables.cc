#include "engram_store/table/checkpoint_tables.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/token_map.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::engram_store {
absl::StatusOr<EngramHash> LoadEngramHash(const model::ModelConfig& config,
                                          const model::Checkpoint& checkpoint,
                                          const std::string& directory) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int32_t> map,
                           LoadTokenMap(config, checkpoint, directory));
  return EngramHash::Create(*config.engram, map);
}

absl::StatusOr<EngramManifest> LoadExpectedManifest(const model::ModelConfig& config,
                                                    const EngramHash& hash,
                                                    const model::Checkpoint& checkpoint) {
  model::DType format = model::DType::kF8E4M3;
  for (size_t i = 0; i < config.engram->layer_ids.size(); ++i) {
    const std::string name = model::EngramTableName(config, config.engram->layer_ids[i]);
    TESSERA_ASSIGN_OR_RETURN(const model::TensorRef weights, checkpoint.Find(name));
    if (i > 0 && weights.dtype != format) {
      return DataLossF("{} is {}, the table before it {}", name,
                       model::DTypeName(weights.dtype), model::DTypeName(format));
    }
    format = weights.dtype;
  }
  return MakeManifest(*config.engram, hash, format, {});
}

absl::StatusOr<TableTensors> FindTableTensors(const model::ModelConfig& config,
                                              const TableLayout& layout,
                                              const model::Checkpoint& checkpoint) {
  const int64_t rows = static_cast<int64_t>(layout.num_rows());
  const std::vector<int64_t> shape = {rows, layout.width};
  const std::string name = model::EngramTableName(config, layout.layer_id);
  TESSERA_ASSIGN_OR_RETURN(const model::TensorRef weights,
                           checkpoint.Require(name, layout.format, shape));
  TableTensors tensors{.weights = weights.data, .scales = {}};
  if (layout.format == model::DType::kF8E4M3) {
    const std::vector<int64_t> scale_shape = {rows, layout.width / kScaleBlock};
    TESSERA_ASSIGN_OR_RETURN(
        const model::TensorRef scales,
        checkpoint.Require(model::ScaleName(name), model::DType::kF8E8M0, scale_shape));
    tensors.scales = scales.data;
  }
  return tensors;
}

absl::StatusOr<LoadedTables> LoadEngramTables(const model::ModelConfig& config,
                                              const EngramHash& hash,
                                              const model::Checkpoint& checkpoint,
                                              const PackOptions& options) {
  LoadedTables loaded;
  TESSERA_ASSIGN_OR_RETURN(loaded.manifest,
                           LoadExpectedManifest(config, hash, checkpoint));
  for (ManifestTable& table : loaded.manifest.tables) {
    TESSERA_ASSIGN_OR_RETURN(const TableTensors tensors,
                             FindTableTensors(config, table.layout, checkpoint));
    PackOptions pack = options;
    pack.digest.clear();
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<EngramTable> packed,
                             EngramTable::Pack(table.layout, tensors, pack));
    table.digest = packed->info().digest;
    loaded.tables.push_back(std::move(packed));
  }
  return loaded;
}

}  // namespace tessera::engram_store
