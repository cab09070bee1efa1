#include "model/tensors/tensor_list.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::model {
namespace {

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

DType DTypeOf(StorageFormat format) {
  constexpr std::array<DType, kNumStorageFormats> kDTypes = {
      DType::kF32,    DType::kBF16, DType::kF8E4M3, DType::kI8,
      DType::kF8E4M3, DType::kI32,  DType::kI64};
  return kDTypes[static_cast<size_t>(format)];
}

}  // namespace

ExpectedTensor& TensorList::Add(std::string name, TensorKind kind, StorageFormat format,
                                std::vector<int64_t> shape) {
  int64_t elements = 1;
  for (const int64_t dimension : shape) {
    elements *= dimension;
  }
  return tensors_.emplace_back(ExpectedTensor{
      .name = std::move(name),
      .kind = kind,
      .format = format,
      .layer = layer_,
      .dtype = DTypeOf(format),
      .shape = std::move(shape),
      .num_parameters = format == StorageFormat::kMxfp4 ? 2 * elements : elements});
}

void TensorList::AddScale(std::string name, TensorKind kind, StorageFormat format,
                          std::vector<int64_t> shape) {
  ExpectedTensor& scale = Add(std::move(name), kind, format, std::move(shape));
  scale.num_parameters = 0;
  const bool is_e8m0 = format != StorageFormat::kFp8Blocks || config_.scales_are_e8m0;
  scale.dtype = is_e8m0 ? DType::kF8E8M0 : DType::kF32;
}

void TensorList::AddMatrix(const std::string& name, TensorKind kind, DType dtype,
                           int64_t out, int64_t in) {
  const std::string weight = name + ".weight";
  if (dtype == DType::kF8E4M3) {
    const int64_t block = config_.weight_block;
    Add(weight, kind, StorageFormat::kFp8Blocks, {out, in});
    AddScale(config_.scales_are_e8m0 ? name + ".scale" : weight + "_scale_inv", kind,
             StorageFormat::kFp8Blocks, {CeilDivide(out, block), CeilDivide(in, block)});
  } else if (dtype == DType::kFp4) {
    Add(weight, kind, StorageFormat::kMxfp4, {out, in / 2});
    AddScale(name + ".scale", kind, StorageFormat::kMxfp4, {out, in / kScaleGroup});
  } else {
    Add(weight, kind, StorageFormat::kBf16, {out, in});
  }
}

void TensorList::AddNorm(const std::string& name, TensorKind kind, int64_t size) {
  Add(name + ".weight", kind, StorageFormat::kBf16, {size});
}

void TensorList::AddEngramRows(const std::string& prefix, EngramRowFormat format,
                               int64_t rows) {
  constexpr TensorKind kKind = TensorKind::kEngramTable;
  const int64_t width = config_.engram->head_dim;
  if (format == EngramRowFormat::kBf16) {
    Add(prefix + ".embed.weight", kKind, StorageFormat::kBf16, {rows, width});
    return;
  }
  Add(prefix + ".embed.weight", kKind, StorageFormat::kFp8Rows, {rows, width});
  AddScale(prefix + ".embed.scale", kKind, StorageFormat::kFp8Rows,
           {rows, CeilDivide(width, kScaleGroup)});
}

void TensorList::AddMix(const std::string& prefix, int64_t rows, int64_t num_scales) {
  constexpr TensorKind kKind = TensorKind::kHyperConnection;
  const int64_t width = config_.num_streams() * config_.hidden_size;
  Add(prefix + "fn", kKind, StorageFormat::kF32, {rows, width});
  Add(prefix + "base", kKind, StorageFormat::kF32, {rows});
  Add(prefix + "scale", kKind, StorageFormat::kF32, {num_scales});
}

void TensorList::AddSublayerMix(const std::string& prefix, char separator) {
  if (config_.residual != ResidualKind::kPlain) {
    const int64_t streams = config_.num_streams();
    AddMix(prefix + separator, streams * (streams + 2), 3);
  }
}

void TensorList::AddHeadMix(const std::string& prefix, char separator) {
  // Where `pre` is handed on, the head takes that of the last sublayer.
  if (config_.residual == ResidualKind::kHyperConnections) {
    AddMix(prefix + separator, config_.num_streams(), 1);
  }
}

}  // namespace tessera::model
