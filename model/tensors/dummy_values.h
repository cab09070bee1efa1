// The values of dummy weights: what one tensor is filled with, from a seed.
#ifndef TESSERA_MODEL_TENSORS_DUMMY_VALUES_H_
#define TESSERA_MODEL_TENSORS_DUMMY_VALUES_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/config/model_config.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::model {

// Fills `bytes`, which must be as many as the tensor has, at an address that fits any
// type. Matrices [out, in] get values of a standard deviation near in^-1/2, embeddings
// and Engram rows of 1, norms values near 1; FP8 and FP4 codes and their scales are made
// so that both together give that. Tables of experts have no id twice in a row, the token
// map has every compressed id. A pure function of tensor, config and seed; thread-safe.
void FillDummyTensor(const ModelConfig& config, const ExpectedTensor& tensor,
                     uint64_t seed, std::span<std::byte> bytes);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TENSORS_DUMMY_VALUES_H_
