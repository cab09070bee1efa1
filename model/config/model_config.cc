#include "model/config/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/config/config_overrides.h"
#include "model/config/families.h"
#include "model/config/json_fields.h"
#include "model/config/shared_fields.h"
#include "model/config/strict_json.h"

namespace tessera::model {
namespace {

struct Family {
  std::string_view model_type;
  absl::StatusOr<ModelConfig> (*read)(const nlohmann::json& document);
};
constexpr std::array<Family, 5> kFamilies = {{{"deepseek_v3", ReadV3},
                                              {"deepseek_v32", ReadV32},
                                              {"deepseek_v4_mla", ReadV4Mla},
                                              {"deepseek_v4", ReadV4},
                                              {"deepseek_v41", ReadV41}}};
constexpr std::string_view kModelTypes =
    "deepseek_v3, deepseek_v32, deepseek_v4_mla, deepseek_v4 or deepseek_v41";

}  // namespace

bool ModelConfig::is_engram_layer(int64_t layer) const {
  return engram.has_value() &&
         std::binary_search(engram->layer_ids.begin(), engram->layer_ids.end(), layer);
}

int64_t ModelConfig::tail_tokens() const {
  if (!has_window()) {
    return 0;
  }
  // The first token of a DSpark block sees a whole window before it, every other token
  // is part of its own.
  int64_t tokens = dspark.has_value() ? compressed.window : compressed.window - 1;
  for (const int64_t ratio : compressed.ratios) {
    const bool overlaps = ratio > 0 && ratio == compressed.overlapping_ratio;
    tokens = std::max(tokens, (overlaps ? 2 : 1) * ratio - 1);
  }
  return tokens;
}

int64_t ModelConfig::block_multiple() const {
  int64_t multiple = 1;
  for (const int64_t ratio : compressed.ratios) {
    multiple = ratio > 0 ? std::lcm(multiple, ratio) : multiple;
  }
  return multiple;
}

std::vector<int64_t> ModelConfig::distinct_ratios() const {
  std::set<int64_t> ratios(compressed.ratios.begin(), compressed.ratios.end());
  ratios.erase(0);
  return {ratios.begin(), ratios.end()};
}

double ModelConfig::softmax_scale() const {
  if (has_window()) {
    return 1.0 / std::sqrt(static_cast<double>(compressed.head_dim));
  }
  const double width = static_cast<double>(mla.qk_nope_head_dim + mla.qk_rope_head_dim);
  double scale = 1.0 / std::sqrt(width);
  if (rope.yarn.has_value() && rope.yarn->mscale_all_dim != 0) {
    const double mscale =
        0.1 * rope.yarn->mscale_all_dim * std::log(rope.yarn->factor) + 1.0;
    scale *= mscale * mscale;
  }
  return scale;
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json) {
  return ParseModelConfig(json, {});
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json,
                                             std::span<const std::string> overrides) {
  TESSERA_ASSIGN_OR_RETURN(nlohmann::json document, ParseStrictJson(json));
  TESSERA_RETURN_IF_ERROR(ApplyConfigOverrides(overrides, document));
  JsonFields fields(document);
  TESSERA_RETURN_IF_ERROR(fields.status());
  const nlohmann::json* type = fields.Find("model_type");
  if (type == nullptr || !type->is_string()) {
    return InvalidArgumentF("model_type is missing or no text, expected {}", kModelTypes);
  }
  const std::string& model_type = type->get_ref<const std::string&>();
  for (const Family& family : kFamilies) {
    if (model_type == family.model_type) {
      return family.read(document);
    }
  }
  return InvalidArgumentF("model_type is \"{}\", expected {}", model_type.substr(0, 60),
                          kModelTypes);
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory,
                                            std::span<const std::string> overrides) {
  constexpr size_t kMaxBytes = StrictJsonLimits{}.bytes;
  const std::string path = directory + "/config.json";
  TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxBytes));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(text, overrides);
  if (!config.ok()) {
    return WithContext(config.status(), path);
  }
  const std::string generation_path = directory + "/generation_config.json";
  const absl::StatusOr<std::string> generation =
      ReadSmallFile(generation_path, kMaxBytes);
  if (generation.status().code() == absl::StatusCode::kNotFound) {
    return config;
  }
  TESSERA_RETURN_IF_ERROR(generation.status());
  const absl::StatusOr<nlohmann::json> document = ParseStrictJson(*generation);
  if (!document.ok()) {
    return WithContext(document.status(), generation_path);
  }
  JsonFields fields(*document);
  ReadStopTokens(fields, *config);
  if (!fields.status().ok()) {
    return WithContext(fields.status(), generation_path);
  }
  return config;
}

std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t rope_dim) {
  TESSERA_CHECK(rope_dim > 0 && rope_dim % 2 == 0);
  const double dims = static_cast<double>(rope_dim);
  double low = 0;
  double high = 0;
  if (rope.yarn.has_value()) {
    // The dimension whose wave turns `turns` times over the original context.
    const auto dim_of = [&](double turns) {
      const double length = static_cast<double>(rope.yarn->original_max_positions);
      return dims * std::log(length / (2 * std::numbers::pi * turns)) /
             (2 * std::log(rope.theta));
    };
    low = std::max(std::floor(dim_of(rope.yarn->beta_fast)), 0.0);
    high = std::min(std::ceil(dim_of(rope.yarn->beta_slow)), dims - 1);
  }
  std::vector<float> frequencies;
  for (int64_t i = 0; i < rope_dim / 2; ++i) {
    const double index = static_cast<double>(i);
    const auto exponent = static_cast<float>(2 * index / dims);
    const auto wavelength =
        static_cast<float>(std::pow(static_cast<double>(static_cast<float>(rope.theta)),
                                    static_cast<double>(exponent)));
    float frequency = 1.0F / wavelength;
    if (rope.yarn.has_value()) {
      const auto ramp = static_cast<float>(
          std::clamp((index - low) / std::max(high - low, 0.001), 0.0, 1.0));
      const float divided = frequency / static_cast<float>(rope.yarn->factor);
      frequency = divided * ramp + frequency * (1 - ramp);
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace tessera::model
