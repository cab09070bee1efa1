#include "tests/testing/tiny_checkpoint.h"

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <ostream>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"

#include "common/status.h"
#include "common/status_macros.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "model/formats/number_formats.h"
#include "model/tensors/safetensors_writer.h"

namespace tessera::testing {
namespace {

using model::DType;
using model::ExpectedTensor;
using model::StorageFormat;
using nlohmann::json;

// Ids at the end of the vocabulary that no tokenizer would give.
constexpr int64_t kUnusedIds = 3;

json PlainConfig() {
  return json::parse(R"({
    "architectures": ["DeepseekV4MlaForCausalLM"], "model_type": "deepseek_v4_mla",
    "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 3,
    "first_k_dense_replace": 1, "intermediate_size": 96, "moe_intermediate_size": 32,
    "n_routed_experts": 16, "num_experts_per_tok": 4, "n_shared_experts": 1,
    "routed_scaling_factor": 1.5, "num_attention_heads": 8, "q_lora_rank": 32,
    "kv_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "index_n_heads": 2, "index_head_dim": 8, "index_topk": 256,
    "max_position_embeddings": 512, "hc_mult": 4, "num_nextn_predict_layers": 1,
    "eos_token_id": 1})");
}

json Engram(const std::string& contract, std::vector<int64_t> layers) {
  return {{"engram_contract", contract}, {"engram_layer_ids", std::move(layers)},
          {"engram_max_ngram_size", 4},  {"engram_n_heads", 2},
          {"engram_head_dim", 8},        {"engram_vocab_size", 60},
          {"engram_pad_token_id", 2},    {"engram_compressed_vocab_size", 71}};
}

json Fp8() {
  return {{"quantization_config",
           {{"quant_method", "fp8"},
            {"fmt", "e4m3"},
            {"activation_scheme", "dynamic"},
            {"weight_block_size", {128, 128}},
            {"scale_fmt", "ue8m0"}}}};
}

TinyModel MakeTiny(std::string name, const std::vector<json>& changes,
                   model::EngramRowFormat rows = model::EngramRowFormat::kBf16) {
  json config = PlainConfig();
  for (const json& change : changes) {
    config.update(change);
  }
  return {.name = std::move(name),
          .config_json = config.dump(1),
          .num_token_ids = config["vocab_size"].get<int64_t>() - kUnusedIds,
          .engram_rows = rows};
}

// Middle and standard deviation of a tensor's values.
struct Spread {
  float mean = 0;
  float deviation = 1;
};

Spread SpreadOf(const ExpectedTensor& tensor) {
  const std::string_view name = tensor.name;
  if (name.ends_with("norm.weight") || name.ends_with("q_weight") ||
      name.ends_with("k_weight")) {
    return {1, 0.2F};
  }
  static constexpr std::pair<std::string_view, Spread> kSpreads[] = {
      {".scale", {0.7F, 0.2F}},         {".base", {0, 0.5F}},
      {"correction_bias", {0, 0.1F}},   {"k_norm.bias", {0, 0.2F}},
      {"embed_tokens.weight", {0, 1}},  {"engram.embed.weight", {0, 1}},
      {"engram.conv.weight", {0, 0.4F}}};
  for (const auto& [suffix, spread] : kSpreads) {
    if (name.ends_with(suffix)) {
      return spread;
    }
  }
  const int64_t inputs =
      tensor.shape.back() * (tensor.format == StorageFormat::kMxfp4 ? 2 : 1);
  return {0, 1 / std::sqrt(static_cast<float>(inputs))};
}

bool IsScale(const ExpectedTensor& tensor) {
  return tensor.dtype == DType::kF8E8M0 ||
         (tensor.format == StorageFormat::kFp8Blocks && tensor.dtype == DType::kF32);
}

// Makes values and adds them, with their scales, to a writer.
class RandomTensors {
 public:
  RandomTensors(uint64_t seed, model::SafetensorsWriter* writer)
      : random_(seed), writer_(writer) {}

  absl::Status Add(const ExpectedTensor& tensor) {
    const std::vector<float> values = Draw(tensor);
    switch (tensor.format) {
      case StorageFormat::kF32:
        return writer_->AddValues(tensor.name, tensor.shape,
                                  std::span<const float>(values));
      case StorageFormat::kBf16: {
        std::vector<std::byte> bytes(2 * values.size());
        model::EncodeBf16(values, bytes);
        return writer_->Add(tensor.name, DType::kBF16, tensor.shape, bytes);
      }
      case StorageFormat::kFp8Blocks:
        return AddFp8Blocks(tensor, values);
      case StorageFormat::kMxfp4:
        return AddMxfp4(tensor, values);
      case StorageFormat::kFp8Rows:
        return AddFp8Rows(tensor, values);
      case StorageFormat::kI32:
      case StorageFormat::kI64:
        break;
    }
    return InvalidArgumentF("tensor {}: no random values for this format", tensor.name);
  }

 private:
  std::vector<float> Draw(const ExpectedTensor& tensor) {
    const Spread spread = SpreadOf(tensor);
    std::normal_distribution<float> normal(spread.mean, spread.deviation);
    std::vector<float> values(static_cast<size_t>(tensor.num_parameters));
    for (float& value : values) {
      value = normal(random_);
    }
    return values;
  }

  absl::Status AddFp8Blocks(const ExpectedTensor& tensor, std::span<const float> values) {
    const model::BlockLayout layout{.rows = tensor.shape[0], .cols = tensor.shape[1]};
    std::vector<std::byte> codes(values.size());
    std::vector<float> scales(static_cast<size_t>(layout.num_blocks()));
    model::QuantizeFp8(values, layout, model::kWeightAmaxFloor, codes, scales);
    TESSERA_RETURN_IF_ERROR(
        writer_->Add(tensor.name, DType::kF8E4M3, tensor.shape, codes));
    return writer_->AddValues(tensor.name + "_scale_inv",
                              {layout.num_block_rows(), layout.num_block_cols()},
                              std::span<const float>(scales));
  }

  absl::Status AddMxfp4(const ExpectedTensor& tensor, std::span<const float> values) {
    std::vector<std::byte> packed(values.size() / 2);
    std::vector<std::byte> scales(values.size() / model::kMicroscaleGroup);
    TESSERA_RETURN_IF_ERROR(model::QuantizeMxfp4(values, packed, scales));
    TESSERA_RETURN_IF_ERROR(writer_->Add(tensor.name, DType::kI8, tensor.shape, packed));
    return writer_->Add(ScaleName(tensor.name), DType::kF8E8M0,
                        {tensor.shape[0], 2 * tensor.shape[1] / model::kMicroscaleGroup},
                        scales);
  }

  absl::Status AddFp8Rows(const ExpectedTensor& tensor, std::span<const float> values) {
    const model::BlockLayout layout{.rows = tensor.shape[0],
                                    .cols = tensor.shape[1],
                                    .block_rows = 1,
                                    .block_cols = model::kMicroscaleGroup};
    std::vector<std::byte> codes(values.size());
    std::vector<float> scales(static_cast<size_t>(layout.num_blocks()));
    model::QuantizeFp8(values, layout, model::kEngramRowAmaxFloor, codes, scales);
    std::vector<std::byte> scale_codes;
    for (const float scale : scales) {
      scale_codes.push_back(std::byte{model::FloatToE8M0(scale)});
    }
    TESSERA_RETURN_IF_ERROR(
        writer_->Add(tensor.name, DType::kF8E4M3, tensor.shape, codes));
    return writer_->Add(ScaleName(tensor.name), DType::kF8E8M0,
                        {layout.rows, layout.num_block_cols()}, scale_codes);
  }

  // "x.weight" to "x.scale".
  static std::string ScaleName(const std::string& weight) {
    return weight.substr(0, weight.size() - std::string_view("weight").size()) + "scale";
  }

  std::mt19937_64 random_;
  model::SafetensorsWriter* const writer_;
};

// Every compressed id occurs; several raw ids share some.
std::vector<int32_t> CompressedIds(int64_t num_ids, int64_t compressed_size) {
  std::vector<int32_t> ids;
  for (int64_t id = 0; id < num_ids; ++id) {
    ids.push_back(static_cast<int32_t>((id * 5 + 3) % compressed_size));
  }
  return ids;
}

// Nothing is a multiple of a block, a lane count or a number of ranks.
json OddSizes() {
  return {{"vocab_size", 83},
          {"hidden_size", 50},
          {"hc_mult", 2},
          {"intermediate_size", 37},
          {"n_routed_experts", 13},
          {"num_experts_per_tok", 3},
          {"moe_intermediate_size", 19},
          {"q_lora_rank", 21},
          {"kv_lora_rank", 19},
          {"qk_nope_head_dim", 7},
          {"qk_rope_head_dim", 2},
          {"v_head_dim", 5},
          {"index_n_heads", 3},
          {"index_head_dim", 4},
          {"index_topk", 6},
          {"expert_dtype", "fp8"}};
}

json OddEngram() {
  return {{"engram_n_heads", 3},
          {"engram_head_dim", 5},
          {"engram_compressed_vocab_size", 67}};
}

json Yarn() {
  return {{"rope_scaling",
           {{"type", "yarn"},
            {"factor", 4},
            {"original_max_position_embeddings", 16},
            {"beta_fast", 4},
            {"beta_slow", 1},
            {"mscale", 0.8},
            {"mscale_all_dim", 0.8}}},
          {"qk_rope_head_dim", 8},
          {"index_topk", 20}};
}

}  // namespace

void PrintTo(const TinyModel& tiny, std::ostream* os) { *os << tiny.name; }

std::vector<TinyModel> TinyModels() {
  using model::EngramRowFormat;
  return {
      MakeTiny("demo_contract",
               {Fp8(),
                Engram("demo", {1, 2}),
                {{"engram_max_ngram_size", 3}, {"engram_vocab_size", {50, 61}}}}),
      MakeTiny("v41_bf16", {Engram("v41", {0, 2}), {{"engram_seed", 7}}}),
      MakeTiny("no_engram_all_dense", {{{"first_k_dense_replace", 3},
                                        {"n_shared_experts", 0},
                                        {"num_nextn_predict_layers", 0}}}),
      MakeTiny("no_shared_experts",
               {Fp8(), {{"n_shared_experts", 0}, {"expert_dtype", "bf16"}}}),
      MakeTiny("expert_groups",
               {Engram("v41", {1}),
                {{"n_group", 4}, {"topk_group", 2}, {"norm_topk_prob", false}}}),
      MakeTiny("yarn", {Yarn(), Engram("v41", {1})}),
      MakeTiny("odd_sizes", {Fp8(), Engram("demo", {0}), OddEngram(), OddSizes()}),
      MakeTiny("odd_sizes_bf16", {Engram("v41", {1, 2}),
                                  OddEngram(),
                                  OddSizes(),
                                  {{"expert_dtype", "bf16"}, {"index_topk", 1}}}),
      MakeTiny("three_streams",
               {Fp8(),
                Engram("v41", {1, 2}),
                {{"hc_mult", 3},
                 {"hidden_size", 160},
                 {"expert_dtype", "fp4"},
                 {"intermediate_size", 260},
                 {"kv_lora_rank", 132},
                 {"index_topk", 8},
                 {"rms_norm_eps", 1e-20},
                 {"engram_head_dim", 32},
                 {"engram_max_ngram_size", 2},
                 {"engram_vocab_size", {97}}}},
               EngramRowFormat::kFp8),
      MakeTiny("eight_streams",
               {Fp8(),
                Engram("demo", {0, 1, 2}),
                {{"hc_mult", 8},
                 {"hc_sinkhorn_iters", 3},
                 {"engram_head_dim", 64},
                 {"engram_n_heads", 1},
                 {"index_topk", 11},
                 {"n_shared_experts", 3},
                 {"first_k_dense_replace", 0},
                 {"expert_dtype", "fp4"}}},
               EngramRowFormat::kFp8),
  };
}

TinyModel TinyFp8Experts() {
  return MakeTiny("fp8_experts", {Fp8(),
                                  Engram("v41", {1}),
                                  {{"n_group", 4},
                                   {"topk_group", 2},
                                   {"norm_topk_prob", false},
                                   {"expert_dtype", "fp8"},
                                   {"v_head_dim", 128},
                                   {"hidden_size", 160},
                                   {"intermediate_size", 1024},
                                   {"moe_intermediate_size", 48}}});
}

std::vector<TinyModel> TinyModelOrAll(std::string_view name) {
  std::vector<TinyModel> models = TinyModels();
  if (std::getenv("TESSERA_LONG_TESTS") == nullptr) {
    std::erase_if(models, [&](const TinyModel& tiny) { return tiny.name != name; });
  }
  return models;
}

absl::Status WriteTinyCheckpoint(const TinyModel& tiny, uint64_t seed,
                                 const std::string& directory) {
  TESSERA_ASSIGN_OR_RETURN(const model::ModelConfig config,
                           model::ParseModelConfig(tiny.config_json));
  model::SafetensorsWriter writer;
  RandomTensors tensors(seed, &writer);
  for (const ExpectedTensor& tensor : model::TensorInventory(config, tiny.engram_rows)) {
    if (tensor.kind == model::TensorKind::kEngramMap) {
      const std::vector<int32_t> ids =
          CompressedIds(tiny.num_token_ids, config.engram->compressed_vocab_size);
      TESSERA_RETURN_IF_ERROR(writer.AddValues(tensor.name, {tiny.num_token_ids},
                                               std::span<const int32_t>(ids)));
    } else if (!IsScale(tensor)) {
      TESSERA_RETURN_IF_ERROR(tensors.Add(tensor));
    }
  }
  std::ofstream file(directory + "/config.json");
  file << tiny.config_json << "\n";
  file.close();
  if (!file) {
    return StatusF(absl::StatusCode::kUnavailable, "{}/config.json was not written",
                   directory);
  }
  return writer.Write(directory + "/model.safetensors");
}

std::vector<int32_t> TinyPrompt(const TinyModel& tiny, int64_t length, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids;
  while (static_cast<int64_t>(ids.size()) < length) {
    if (ids.size() > 4 && random() % 4 == 0) {
      // An n-gram that was there already.
      const size_t begin = random() % (ids.size() - 3);
      for (size_t i = 0; i < 3 && static_cast<int64_t>(ids.size()) < length; ++i) {
        ids.push_back(ids[begin + i]);
      }
    } else {
      ids.push_back(
          static_cast<int32_t>(random() % static_cast<uint64_t>(tiny.num_token_ids)));
    }
  }
  return ids;
}

}  // namespace tessera::testing
