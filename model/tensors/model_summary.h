// ModelSummary: what a model is and weighs, for `tessera inspect`, for logs at start-up
// and for the planner's arithmetic. From the config alone, or from a checkpoint that was
// checked against it.
#ifndef TESSERA_MODEL_TENSORS_MODEL_SUMMARY_H_
#define TESSERA_MODEL_TENSORS_MODEL_SUMMARY_H_

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::model {

// Of a set of tensors.
struct TensorTotals {
  int64_t num_tensors = 0;
  int64_t parameters = 0;  // scales and the Engram map are none
  int64_t bytes = 0;
};

struct EngramTableSummary {
  int64_t layer = 0;
  int64_t rows = 0;
  int64_t row_bytes = 0;  // values and scales
  int64_t bytes() const { return rows * row_bytes; }
};

struct ModelSummary {
  ModelConfig config;
  EngramRowFormat engram_rows = EngramRowFormat::kBf16;

  // The draft layers are counted apart: the names of models leave them out.
  TensorTotals main;
  TensorTotals draft;
  // Main and draft together, by TensorKind and by StorageFormat.
  std::array<TensorTotals, kNumTensorKinds> by_kind;
  std::array<TensorTotals, kNumStorageFormats> by_format;
  std::map<DType, int64_t> tensors_by_dtype;  // how many; those that occur
  // What one text token reads in the main model: every tensor in full, except k of E
  // experts, one row of the embedding and one row per column of each Engram table.
  int64_t active_parameters = 0;
  std::vector<EngramTableSummary> engram_tables;

  // Of a checkpoint; empty from a config alone.
  std::string digest;
  // What the folder holds and Tessera neither reads nor runs, sorted: files (code,
  // templates, other weights), and members of its configs that name code or templates, as
  // "config.json: auto_map".
  std::vector<std::string> ignored;
};

// What a checkpoint of this config holds. `config` must come from ParseModelConfig.
ModelSummary SummarizeModel(const ModelConfig& config, EngramRowFormat engram_rows);

// Reads DIR/config.json and, where there are safetensors, their headers; without them the
// summary is that of the config with its default row format. Errors as of
// LoadModelConfig, Checkpoint::Open and ValidateCheckpoint.
// With overrides (config_overrides.h) the weights are not looked at.
absl::StatusOr<ModelSummary> SummarizeDirectory(
    const std::string& directory, std::span<const std::string> overrides = {});

// For people, a screenful.
std::string FormatSummary(const ModelSummary& summary);
// For programs: one JSON object.
std::string FormatSummaryJson(const ModelSummary& summary);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TENSORS_MODEL_SUMMARY_H_
