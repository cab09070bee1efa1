// TensorList: the tensors that a checkpoint must hold, as an inventory writes them down:
// a matrix becomes its values and, where its format has them, its scales, under the names
// of the model's layout. Used by the inventories alone.
#ifndef TESSERA_MODEL_TENSORS_TENSOR_LIST_H_
#define TESSERA_MODEL_TENSORS_TENSOR_LIST_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::model {

inline constexpr int64_t kScaleGroup = 32;  // columns that share an E8M0 scale

// Borrows the config. Not thread-safe.
class TensorList {
 public:
  explicit TensorList(const ModelConfig& config) : config_(config) {}

  // Of the tensors that follow; -1: outside layers.
  void set_layer(int64_t layer) { layer_ = layer; }

  // One tensor under its full name.
  ExpectedTensor& Add(std::string name, TensorKind kind, StorageFormat format,
                      std::vector<int64_t> shape);

  // NAME.weight [out, in] with its scales: F8_E4M3 by blocks, packed FP4, or BF16.
  void AddMatrix(const std::string& name, TensorKind kind, DType dtype, int64_t out,
                 int64_t in);
  // The same in the format of the model's linears.
  void AddLinear(const std::string& name, TensorKind kind, int64_t out, int64_t in) {
    AddMatrix(name, kind, linear_dtype(), out, in);
  }
  // NAME.weight [size], BF16.
  void AddNorm(const std::string& name, TensorKind kind, int64_t size);

  // PREFIX.embed.{weight,scale}: hashed rows.
  void AddEngramRows(const std::string& prefix, EngramRowFormat format, int64_t rows);

  // The tensors of a mix: PREFIX + separator + "fn", "base", "scale". Of a sublayer, or
  // of a head; neither where the residual has none.
  void AddSublayerMix(const std::string& prefix, char separator);
  void AddHeadMix(const std::string& prefix, char separator);

  DType linear_dtype() const {
    return config_.fp8_linears ? DType::kF8E4M3 : DType::kBF16;
  }

  std::vector<ExpectedTensor> Take() { return std::move(tensors_); }

 private:
  void AddScale(std::string name, TensorKind kind, StorageFormat format,
                std::vector<int64_t> shape);
  void AddMix(const std::string& prefix, int64_t rows, int64_t num_scales);

  const ModelConfig& config_;
  int64_t layer_ = -1;
  std::vector<ExpectedTensor> tensors_;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TENSORS_TENSOR_LIST_H_
