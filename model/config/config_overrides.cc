#include "model/config/config_overrides.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

#include "common/status.h"
#include "common/status_macros.h"
#include "model/config/json_fields.h"
#include "model/config/strict_json.h"

namespace tessera::model {
namespace {

using nlohmann::json;

constexpr size_t kMaxOverrides = 100;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxDraftLayers = 8;

// The object with the text model's fields.
json& TextOf(json& document) {
  const auto text = document.find("text_config");
  return text != document.end() && text->is_object() ? *text : document;
}

absl::StatusOr<int64_t> IntOf(const json& object, std::string_view name, IntRange range) {
  JsonFields fields(object);
  const int64_t value = fields.Int(name, range);
  TESSERA_RETURN_IF_ERROR(fields.status());
  return value;
}

// Removes the layers from `num_layers` on out of a list of layers, and the entries that
// stand beside them in `beside`.
void CutLayerList(json& text, const char* name, int64_t num_layers,
                  const char* beside = nullptr) {
  const auto list = text.find(name);
  if (list == text.end() || !list->is_array()) {
    return;
  }
  json kept = json::array();
  for (const json& layer : *list) {
    if (layer.is_number_integer() && layer.get<int64_t>() < num_layers) {
      kept.push_back(layer);
    }
  }
  if (beside != nullptr && text.contains(beside) && text[beside].is_array()) {
    json& values = text[beside];
    while (values.size() > kept.size()) {
      values.erase(values.size() - 1);
    }
  }
  *list = std::move(kept);
}

// The drafter taps as many layers as before, as near to the end as before.
void MoveTargets(json& text, int64_t before, int64_t num_layers) {
  const auto list = text.find("dspark_target_layer_ids");
  if (list == text.end() || !list->is_array()) {
    return;
  }
  json moved = json::array();
  for (const json& layer : *list) {
    const int64_t target =
        (layer.is_number_integer() ? layer.get<int64_t>() : 0) - before + num_layers;
    if (target >= 0) {
      moved.push_back(target);
    }
  }
  *list = std::move(moved);
}

void CapAt(json& text, const char* name, int64_t limit) {
  const auto value = text.find(name);
  if (value != text.end() && value->is_number_integer() &&
      value->get<int64_t>() > limit) {
    *value = limit;
  }
}

absl::Status CutLayers(json& text, int64_t num_layers) {
  TESSERA_ASSIGN_OR_RETURN(const int64_t before,
                           IntOf(text, "num_hidden_layers", {1, kMaxLayers}));
  if (num_layers > before) {
    return InvalidArgumentF(
        "num_hidden_layers is {}, expected at most {}, as many as "
        "there are",
        num_layers, before);
  }
  text["num_hidden_layers"] = num_layers;
  const auto ratios = text.find("compress_ratios");
  if (ratios != text.end() && ratios->is_array() &&
      static_cast<int64_t>(ratios->size()) >= before) {
    ratios->erase(ratios->begin() + num_layers, ratios->begin() + before);
  }
  CutLayerList(text, "kv_source_layer_ids", num_layers);
  CutLayerList(text, "index_source_layer_ids", num_layers);
  CutLayerList(text, "engram_layer_ids", num_layers, "engram_num_embeddings");
  MoveTargets(text, before, num_layers);
  CapAt(text, "num_hash_layers", num_layers);
  CapAt(text, "first_k_dense_replace", num_layers);
  const auto candidates = text.find("candidate_source_layer_id");
  if (candidates != text.end() && candidates->is_number_integer() &&
      candidates->get<int64_t>() >= num_layers) {
    *candidates = -1;
  }
  return absl::OkStatus();
}

absl::Status SetDraftLayers(json& text, int64_t num_drafts) {
  TESSERA_ASSIGN_OR_RETURN(const int64_t num_layers,
                           IntOf(text, "num_hidden_layers", {1, kMaxLayers}));
  text["num_nextn_predict_layers"] = num_drafts;
  const auto ratios = text.find("compress_ratios");
  if (ratios != text.end() && ratios->is_array()) {
    const auto size = static_cast<size_t>(num_layers + num_drafts);
    while (ratios->size() > size) {
      ratios->erase(ratios->size() - 1);
    }
    while (ratios->size() < size) {
      ratios->push_back(0);
    }
  }
  if (num_drafts == 0) {
    for (const char* name : {"dspark_block_size", "dspark_noise_token_id",
                             "dspark_target_layer_ids", "dspark_markov_rank",
                             "dspark_n_routed_experts", "dspark_num_experts_per_tok"}) {
      text.erase(name);
    }
  }
  return absl::OkStatus();
}

absl::Status SetMember(json& document, std::string_view key, json value) {
  json* object = &TextOf(document);
  if (const size_t dot = key.find('.'); dot != std::string_view::npos) {
    const std::string parent(key.substr(0, dot));
    if (!object->contains(parent)) {
      object = &document;
    }
    if (!object->contains(parent) || !(*object)[parent].is_object()) {
      return InvalidArgumentF("override {}: config.json has no object {}", key, parent);
    }
    object = &(*object)[parent];
    key.remove_prefix(dot + 1);
  } else if (!object->contains(std::string(key)) && document.contains(std::string(key))) {
    object = &document;
  }
  const auto member = object->find(std::string(key));
  if (member == object->end()) {  // a misspelt key would change nothing, in silence
    return InvalidArgumentF("override {}: config.json has no field {}", key, key);
  }
  *member = std::move(value);
  return absl::OkStatus();
}

absl::Status Apply(json& document, std::string_view key, json value,
                   std::span<const std::string> all) {
  json& text = TextOf(document);
  if (key == "num_hidden_layers") {
    TESSERA_ASSIGN_OR_RETURN(const int64_t layers, IntOf(json{{std::string(key), value}},
                                                         key, {1, kMaxLayers}));
    return CutLayers(text, layers);
  }
  if (key == "num_nextn_predict_layers") {
    TESSERA_ASSIGN_OR_RETURN(const int64_t drafts, IntOf(json{{std::string(key), value}},
                                                         key, {0, kMaxDraftLayers}));
    return SetDraftLayers(text, drafts);
  }
  const bool rows_are_given = std::any_of(all.begin(), all.end(), [](const auto& other) {
    return other.starts_with("engram_num_embeddings=");
  });
  if (key == "engram_vocab_size" && !rows_are_given) {
    text.erase("engram_num_embeddings");
  }
  return SetMember(document, key, std::move(value));
}

}  // namespace

absl::Status ApplyConfigOverrides(std::span<const std::string> overrides,
                                  json& document) {
  if (overrides.empty()) {
    return absl::OkStatus();
  }
  if (!document.is_object() || overrides.size() > kMaxOverrides) {
    return InvalidArgumentF("{} overrides of {}, expected at most {} of an object",
                            overrides.size(), document.type_name(), kMaxOverrides);
  }
  for (const std::string& override : overrides) {
    const size_t equals = override.find('=');
    if (equals == std::string::npos || equals == 0) {
      return InvalidArgumentF("override \"{}\", expected KEY=VALUE",
                              override.substr(0, 100));
    }
    const std::string_view text = std::string_view(override).substr(equals + 1);
    absl::StatusOr<json> value = ParseStrictJson(text);
    TESSERA_RETURN_IF_ERROR(
        Apply(document, std::string_view(override).substr(0, equals),
              value.ok() ? *std::move(value) : json(std::string(text)), overrides));
  }
  return absl::OkStatus();
}

}  // namespace tessera::model
