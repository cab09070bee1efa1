#include "model/tensors/tensor_inventory.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/tensors/layout_inventories.h"
#include "model/tensors/safetensors_header.h"
#include "model/tensors/tensor_list.h"

namespace tessera::model {
namespace {

absl::Status CheckTensor(const ExpectedTensor& expected, const Checkpoint& checkpoint) {
  const absl::StatusOr<TensorRef> found = checkpoint.Find(expected.name);
  const std::string wanted = fmt::format(
      "{}{} {}{}", DTypeName(expected.dtype), expected.allows_bf16 ? " or BF16" : "",
      FormatShape(expected.shape), expected.rows_are_limit ? " or fewer" : "");
  if (!found.ok()) {
    return InvalidArgumentF("tensor {}: is missing, expected {}", expected.name, wanted);
  }
  if (!expected.is_loaded) {
    return absl::OkStatus();
  }
  std::vector<int64_t> shape = found->shape;
  if (expected.rows_are_limit && !shape.empty() && shape.front() > 0 &&
      shape.front() <= expected.shape.front()) {
    shape.front() = expected.shape.front();
  }
  const bool right_type = found->dtype == expected.dtype ||
                          (expected.allows_bf16 && found->dtype == DType::kBF16);
  if (!right_type || shape != expected.shape) {
    return InvalidArgumentF("tensor {}: found {} {}, expected {}", expected.name,
                            DTypeName(found->dtype), FormatShape(found->shape), wanted);
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view TensorKindName(TensorKind kind) {
  constexpr std::array<std::string_view, kNumTensorKinds> kNames = {
      "embedding",     "head",          "norm",          "attention",
      "compressor",    "indexer",       "mhc",           "dense mlp",
      "router",        "shared expert", "routed expert", "engram table",
      "engram fusion", "engram map",    "draft",         "vision"};
  return kNames[static_cast<size_t>(kind)];
}

std::string_view StorageFormatName(StorageFormat format) {
  constexpr std::array<std::string_view, kNumStorageFormats> kNames = {
      "f32", "bf16", "fp8 blocks", "mxfp4", "fp8 rows", "i32", "i64"};
  return kNames[static_cast<size_t>(format)];
}

int64_t ExpectedTensor::num_bytes() const {
  int64_t bytes = static_cast<int64_t>(DTypeBits(dtype) / 8);
  for (const int64_t dimension : shape) {
    bytes *= dimension;
  }
  return bytes;
}

std::string EngramTableName(const ModelConfig& config, int64_t layer) {
  return fmt::format("{}layers.{}.engram.embed.weight",
                     config.names == TensorNames::kNative ? "" : "model.", layer);
}

std::string ScaleName(std::string_view weight_name) {
  constexpr std::string_view kWeight = "weight";
  TESSERA_CHECK(weight_name.ends_with(kWeight));
  weight_name.remove_suffix(kWeight.size());
  return fmt::format("{}scale", weight_name);
}

EngramRowFormat DefaultEngramRowFormat(const ModelConfig& config) {
  const bool fits =
      config.engram.has_value() && config.engram->head_dim % kScaleGroup == 0;
  return config.fp8_linears && fits ? EngramRowFormat::kFp8 : EngramRowFormat::kBf16;
}

EngramRowFormat FindEngramRowFormat(const ModelConfig& config,
                                    const Checkpoint& checkpoint) {
  if (!config.engram.has_value()) {
    return EngramRowFormat::kBf16;
  }
  const absl::StatusOr<TensorRef> table =
      checkpoint.Find(EngramTableName(config, config.engram->layer_ids.front()));
  return table.ok() && table->dtype == DType::kF8E4M3 ? EngramRowFormat::kFp8
                                                      : EngramRowFormat::kBf16;
}

std::vector<ExpectedTensor> TensorInventory(const ModelConfig& config,
                                            EngramRowFormat engram_rows) {
  if (config.engram.has_value()) {
    TESSERA_CHECK_EQ(config.engram->num_embeddings.size(),
                     config.engram->layer_ids.size());
  }
  return config.names == TensorNames::kNative ? NativeInventory(config, engram_rows)
                                              : HuggingFaceInventory(config, engram_rows);
}

bool IsSkippedTensor(const ModelConfig& config, std::string_view name) {
  return config.names == TensorNames::kNative ? IsSkippedNativeTensor(config, name)
                                              : IsSkippedHuggingFaceTensor(config, name);
}

absl::Status ValidateCheckpoint(const ModelConfig& config, const Checkpoint& checkpoint) {
  const EngramRowFormat engram_rows = FindEngramRowFormat(config, checkpoint);
  if (engram_rows == EngramRowFormat::kFp8 &&
      config.engram->head_dim % kScaleGroup != 0) {
    return InvalidArgumentF(
        "engram_head_dim is {}, expected a multiple of {} for fp8 rows",
        config.engram->head_dim, kScaleGroup);
  }
  const std::vector<ExpectedTensor> inventory = TensorInventory(config, engram_rows);
  std::unordered_set<std::string_view> names;
  names.reserve(inventory.size());
  for (const ExpectedTensor& expected : inventory) {
    TESSERA_RETURN_IF_ERROR(CheckTensor(expected, checkpoint));
    names.insert(expected.name);
  }
  for (const std::string& name : checkpoint.names()) {
    if (!names.contains(name) && !IsSkippedTensor(config, name)) {
      return InvalidArgumentF(
          "tensor {}: found in the checkpoint, expected no such tensor "
          "in a {} model of this config",
          name, config.family);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::model
