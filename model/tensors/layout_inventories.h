// The inventories of the two layouts in which checkpoints are published. Which one a
// model has is ModelConfig::names; TensorInventory picks it.
#ifndef TESSERA_MODEL_TENSORS_LAYOUT_INVENTORIES_H_
#define TESSERA_MODEL_TENSORS_LAYOUT_INVENTORIES_H_

#include <string_view>
#include <vector>

#include "model/config/model_config.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::model {

// "model.layers.i.self_attn…": V3, V3.2 and V4-MLA.
std::vector<ExpectedTensor> HuggingFaceInventory(const ModelConfig& config,
                                                 EngramRowFormat engram_rows);
bool IsSkippedHuggingFaceTensor(const ModelConfig& config, std::string_view name);

// "layers.i.attn…": V4 and V4.1.
std::vector<ExpectedTensor> NativeInventory(const ModelConfig& config,
                                            EngramRowFormat engram_rows);
bool IsSkippedNativeTensor(const ModelConfig& config, std::string_view name);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TENSORS_LAYOUT_INVENTORIES_H_
