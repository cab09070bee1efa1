#include "cli/loaded_model.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/engram_table.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "model/tensors/checkpoint.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::cli {

using model::DType;

namespace {

absl::StatusOr<std::vector<int32_t>> CompressedIds(const model::Checkpoint& checkpoint) {
  TESSERA_ASSIGN_OR_RETURN(const model::TensorRef tensor,
                           checkpoint.Find("engram.compressed_ids"));
  if (tensor.dtype != DType::kI32) {
    return InvalidArgumentF("engram.compressed_ids is {}, expected I32",
                            model::DTypeName(tensor.dtype));
  }
  std::vector<int32_t> ids(tensor.data.size() / sizeof(int32_t));
  std::memcpy(ids.data(), tensor.data.data(), ids.size() * sizeof(int32_t));
  return ids;
}

// F8 tables have a sibling scale tensor, BF16 tables have none.
DType TableFormat(const LoadedModel& model, int64_t layer) {
  const auto scale =
      model.checkpoint->Find(fmt::format("model.layers.{}.engram.embed.scale", layer));
  return scale.ok() ? DType::kF8E4M3 : DType::kBF16;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const std::string& directory) {
  auto loaded = std::make_unique<LoadedModel>();
  TESSERA_ASSIGN_OR_RETURN(loaded->config, model::LoadModelConfig(directory));
  TESSERA_ASSIGN_OR_RETURN(loaded->checkpoint, model::Checkpoint::Open(directory));
  TESSERA_RETURN_IF_ERROR(model::ValidateCheckpoint(loaded->config, *loaded->checkpoint));
  if (loaded->config.engram.has_value()) {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                             CompressedIds(*loaded->checkpoint));
    TESSERA_ASSIGN_OR_RETURN(
        loaded->hash, engram_store::EngramHash::Create(*loaded->config.engram, ids));
  }
  return loaded;
}

std::vector<engram_store::TableLayout> TableLayouts(const LoadedModel& model) {
  std::vector<engram_store::TableLayout> layouts;
  if (!model.hash.has_value()) {
    return layouts;
  }
  const model::EngramConfig& engram = *model.config.engram;
  for (size_t i = 0; i < engram.layer_ids.size(); ++i) {
    const auto primes = model.hash->primes(static_cast<int64_t>(i));
    layouts.push_back({.layer_id = engram.layer_ids[i],
                       .column_rows = {primes.begin(), primes.end()},
                       .width = engram.head_dim,
                       .format = TableFormat(model, engram.layer_ids[i])});
  }
  return layouts;
}

absl::StatusOr<engram_store::TableTensors> TensorsOfTable(const LoadedModel& model,
                                                          size_t index) {
  const int64_t layer = model.config.engram->layer_ids[index];
  const std::string prefix = fmt::format("model.layers.{}.engram.embed.", layer);
  engram_store::TableTensors tensors;
  TESSERA_ASSIGN_OR_RETURN(const model::TensorRef weight,
                           model.checkpoint->Find(prefix + "weight"));
  tensors.weights = weight.data;
  if (TableFormat(model, layer) == DType::kF8E4M3) {
    TESSERA_ASSIGN_OR_RETURN(const model::TensorRef scale,
                             model.checkpoint->Find(prefix + "scale"));
    tensors.scales = scale.data;
  }
  return tensors;
}

absl::StatusOr<std::vector<std::shared_ptr<const engram_store::EngramTable>>> PackTables(
    const LoadedModel& model, const engram_store::PackOptions& options) {
  std::vector<std::shared_ptr<const engram_store::EngramTable>> tables;
  const std::vector<engram_store::TableLayout> layouts = TableLayouts(model);
  for (size_t i = 0; i < layouts.size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(const engram_store::TableTensors tensors,
                             TensorsOfTable(model, i));
    TESSERA_ASSIGN_OR_RETURN(
        std::shared_ptr<const engram_store::EngramTable> table,
        engram_store::EngramTable::Pack(layouts[i], tensors, options));
    tables.push_back(std::move(table));
  }
  return tables;
}

}  // namespace tessera::cli
