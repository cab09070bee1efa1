// Overrides of config.json: "key=value" from a command line, so that a model can be tried
// at another size, above all cut to its first layers. What depends on the changed field
// follows it, so that the result is a config of the same family:
//
//   num_hidden_layers=N         only down; lists per layer lose the layers from N on
//                               (compress_ratios keeps the entries of draft layers),
//                               lists of layers and single layers lose those that are
//                               gone, dspark_target_layer_ids move to the last layers,
//                               num_hash_layers and first_k_dense_replace are at most N
//   num_nextn_predict_layers=N  compress_ratios gets N entries for draft layers; 0 also
//                               takes the dspark_… fields away
//   engram_vocab_size=…         engram_num_embeddings goes, unless it is given too
//
// Everything else is replaced and nothing more. Made for dummy weights; with weights from
// files the tensors must fit the result.
#ifndef TESSERA_MODEL_CONFIG_CONFIG_OVERRIDES_H_
#define TESSERA_MODEL_CONFIG_CONFIG_OVERRIDES_H_

#include <span>
#include <string>

#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"

namespace tessera::model {

// Applies them in order. A key names a member of the document, of its text_config where
// it has one, or "a.b" a member of the object a; a value is JSON, or else text.
// kInvalidArgument: an override without "=", a key that the document does not have
// where it has to be cut, more layers than there are.
absl::Status ApplyConfigOverrides(std::span<const std::string> overrides,
                                  nlohmann::json& document);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CONFIG_CONFIG_OVERRIDES_H_
