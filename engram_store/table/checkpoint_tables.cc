#include "engram_store/table/checkpoint_tables.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::engram_store {
namespace {

std::string EmbedName(int64_t layer_id, std::string_view suffix) {
  return fmt::format("model.layers.{}.engram.embed.{}", layer_id, suffix);
}

absl::StatusOr<TableTensors> FindTensors(const ManifestTable& table,
                                         const model::Checkpoint& checkpoint) {
  const TableLayout& layout = table.layout;
  const int64_t rows = static_cast<int64_t>(layout.num_rows());
  const std::vector<int64_t> shape = {rows, layout.width};
  TESSERA_ASSIGN_OR_RETURN(
      const model::TensorRef weights,
      checkpoint.Require(EmbedName(layout.layer_id, "weight"), layout.format, shape));
  TableTensors tensors{.weights = weights.data, .scales = {}};
  if (layout.format == model::DType::kF8E4M3) {
    const std::vector<int64_t> scale_shape = {rows, layout.width / kScaleBlock};
    TESSERA_ASSIGN_OR_RETURN(const model::TensorRef scales,
                             checkpoint.Require(EmbedName(layout.layer_id, "scale"),
                                                model::DType::kF8E8M0, scale_shape));
    tensors.scales = scales.data;
  }
  return tensors;
}

}  // namespace

absl::StatusOr<EngramHash> LoadEngramHash(const model::EngramConfig& config,
                                          const model::Checkpoint& checkpoint) {
  TESSERA_ASSIGN_OR_RETURN(const model::TensorRef map,
                           checkpoint.Find("engram.compressed_ids"));
  if (map.dtype != model::DType::kI32 || map.shape.size() != 1) {
    return DataLossF(
        "engram.compressed_ids is {} with {} dimensions, expected I32 with 1",
        model::DTypeName(map.dtype), map.shape.size());
  }
  // Tensors of a file need not be aligned.
  std::vector<int32_t> ids(map.data.size() / sizeof(int32_t));
  if (!ids.empty()) {
    std::memcpy(ids.data(), map.data.data(), ids.size() * sizeof(int32_t));
  }
  return EngramHash::Create(config, ids);
}

absl::StatusOr<EngramManifest> LoadExpectedManifest(const model::EngramConfig& config,
                                                    const EngramHash& hash,
                                                    const model::Checkpoint& checkpoint) {
  model::DType format = model::DType::kF8E4M3;
  for (size_t i = 0; i < config.layer_ids.size(); ++i) {
    const std::string name = EmbedName(config.layer_ids[i], "weight");
    TESSERA_ASSIGN_OR_RETURN(const model::TensorRef weights, checkpoint.Find(name));
    if (i > 0 && weights.dtype != format) {
      return DataLossF("{} is {}, the table before it {}", name,
                       model::DTypeName(weights.dtype), model::DTypeName(format));
    }
    format = weights.dtype;
  }
  return MakeManifest(config, hash, format, {});
}

absl::StatusOr<LoadedTables> LoadEngramTables(const model::EngramConfig& config,
                                              const EngramHash& hash,
                                              const model::Checkpoint& checkpoint,
                                              const PackOptions& options) {
  LoadedTables loaded;
  TESSERA_ASSIGN_OR_RETURN(loaded.manifest,
                           LoadExpectedManifest(config, hash, checkpoint));
  for (ManifestTable& table : loaded.manifest.tables) {
    TESSERA_ASSIGN_OR_RETURN(const TableTensors tensors, FindTensors(table, checkpoint));
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
