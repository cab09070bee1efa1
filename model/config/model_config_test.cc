#include "model/config/model_config.h"

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tessera::model {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kDemo = "models/demo/config.json";
constexpr const char* kV3 = "tests/data/v3/config.json";
constexpr const char* kTrillion = "tests/data/configs/v4_mla_1t_20pct_engram.json";

std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

json Demo() { return json::parse(ReadText(kDemo)); }

TEST(ParseModelConfig, ReadsTheDemoModel) {
  const auto config = ParseModelConfig(ReadText(kDemo));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, "v4_mla");
  EXPECT_EQ(config->model_type, "deepseek_v4_mla");
  EXPECT_EQ(config->vocab_size, 4096);
  EXPECT_EQ(config->hidden_size, 192);
  EXPECT_EQ(config->num_layers, 5);
  EXPECT_EQ(config->num_draft_layers, 1);
  EXPECT_EQ(config->draft, DraftKind::kMtpStreams);
  EXPECT_TRUE(config->is_dense_layer(0));
  EXPECT_FALSE(config->is_dense_layer(1));
  EXPECT_EQ(config->dense_width, 512);
  EXPECT_EQ(config->mla.num_heads, 8);
  EXPECT_EQ(config->mla.q_lora_rank, 96);
  EXPECT_EQ(config->mla.kv_lora_rank, 64);
  EXPECT_EQ(config->mla.qk_rope_head_dim, 16);
  EXPECT_EQ(config->indexer.num_heads, 4);
  EXPECT_EQ(config->indexer.topk, 128);
  EXPECT_FALSE(config->rope.yarn.has_value());
  EXPECT_EQ(config->hyper.num_streams, 4);
  EXPECT_EQ(config->moe.num_experts, 256);
  EXPECT_EQ(config->moe.experts_per_token, 16);
  EXPECT_EQ(config->moe.num_shared_experts, 2);
  EXPECT_EQ(config->moe.scaling_factor, 2.5);
  EXPECT_EQ(config->moe.expert_dtype, DType::kFp4);
  EXPECT_TRUE(config->fp8_linears);
  ASSERT_TRUE(config->engram.has_value());
  EXPECT_EQ(config->engram->contract, EngramContract::kV41);
  EXPECT_EQ(config->engram->num_columns(), 12);
  EXPECT_THAT(config->engram->bucket_bases, ElementsAre(3000, 3000, 3000));
  EXPECT_THAT(config->engram->num_embeddings, ElementsAre(36560, 37956));
  EXPECT_TRUE(config->is_engram_layer(3));
  EXPECT_FALSE(config->is_engram_layer(2));
  EXPECT_THAT(config->eos_token_ids, ElementsAre(1));
  EXPECT_EQ(config->bos_token_id, 0);
  EXPECT_DOUBLE_EQ(config->softmax_scale(), 1 / std::sqrt(48.0));
}

TEST(ParseModelConfig, ReadsTheTrillionParameterConfigs) {
  const auto config = ParseModelConfig(ReadText(kTrillion));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->num_layers, 72);
  EXPECT_THAT(config->engram->num_embeddings, ElementsAre(392278068, 392286520));
  ASSERT_TRUE(config->rope.yarn.has_value());
  EXPECT_EQ(config->rope.yarn->factor, 40);
  EXPECT_NEAR(config->softmax_scale(), 0.13523378, 5e-9);
  const auto other =
      ParseModelConfig(ReadText("tests/data/configs/v4_mla_1t_32b_active.json"));
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_THAT(other->engram->num_embeddings, ElementsAre(1254462504, 1254471842));
}

TEST(ParseModelConfig, DefaultsHoldWhereFieldsAreAbsent) {
  json document = Demo();
  for (const char* name : {"scoring_func",
                           "topk_method",
                           "n_group",
                           "topk_group",
                           "norm_topk_prob",
                           "first_k_dense_replace",
                           "moe_layer_freq",
                           "rms_norm_eps",
                           "rope_theta",
                           "rope_scaling",
                           "hc_mult",
                           "hc_sinkhorn_iters",
                           "hc_eps",
                           "engram_layer_ids",
                           "num_nextn_predict_layers",
                           "expert_dtype",
                           "quantization_config",
                           "attention_bias",
                           "tie_word_embeddings",
                           "architectures",
                           "hidden_act",
                           "num_key_value_heads",
                           "eos_token_id",
                           "bos_token_id"}) {
    document.erase(name);
  }
  const auto config = ParseModelConfig(document.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->moe.num_groups, 1);
  EXPECT_TRUE(config->moe.normalize_weights);
  EXPECT_EQ(config->num_dense_layers, 0);
  EXPECT_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_EQ(config->rope.theta, 10000);
  EXPECT_EQ(config->hyper.num_streams, 4);
  EXPECT_EQ(config->hyper.sinkhorn_iters, 20);
  EXPECT_EQ(config->hyper.eps, 1e-6);
  EXPECT_FALSE(config->engram.has_value());
  EXPECT_EQ(config->draft, DraftKind::kNone);
  EXPECT_FALSE(config->fp8_linears);
  EXPECT_EQ(config->moe.expert_dtype, DType::kBF16);
  EXPECT_TRUE(config->eos_token_ids.empty());
  document["quantization_config"] = Demo()["quantization_config"];
  EXPECT_EQ(ParseModelConfig(document.dump())->moe.expert_dtype, DType::kF8E4M3);
}

TEST(ParseModelConfig, EngramSeedBasesAndContractAreRead) {
  json document = Demo();
  document.erase("engram_num_embeddings");
  document.erase("engram_seed");
  document["engram_contract"] = "demo";
  document["engram_vocab_size"] = {3000, 4000, 5000};
  const auto config = ParseModelConfig(document.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engram->contract, EngramContract::kDemo);
  EXPECT_EQ(config->engram->seed, 0u);
  EXPECT_THAT(config->engram->bucket_bases, ElementsAre(3000, 4000, 5000));
}

TEST(ParseModelConfig, FieldsOfOtherFamiliesMayBeThereAsNothing) {
  for (const json& nothing : {json(nullptr), json(false), json(0)}) {
    json document = Demo();
    document["swiglu_limit"] = nothing;
    document["compress_ratios"] = nothing;
    EXPECT_TRUE(ParseModelConfig(document.dump()).ok());
  }
}

struct Mutation {
  const char* field;
  json value;  // discarded = erase the field
  const char* message;
};

const json kErase = json(json::value_t::discarded);

void ExpectRefused(const std::vector<Mutation>& mutations) {
  for (const Mutation& mutation : mutations) {
    json document = Demo();
    if (mutation.value.is_discarded()) {
      document.erase(mutation.field);
    } else {
      document[json::json_pointer(std::string("/") + mutation.field)] = mutation.value;
    }
    const absl::Status status = ParseModelConfig(document.dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
        << mutation.field << " " << mutation.value;
    EXPECT_THAT(std::string(status.message()), HasSubstr(mutation.message))
        << mutation.field << " " << mutation.value;
  }
}

TEST(ParseModelConfig, EveryRequiredFieldIsMissedByName) {
  for (const char* name : {"vocab_size",
                           "hidden_size",
                           "num_hidden_layers",
                           "intermediate_size",
                           "moe_intermediate_size",
                           "n_routed_experts",
                           "n_shared_experts",
                           "num_experts_per_tok",
                           "routed_scaling_factor",
                           "num_attention_heads",
                           "q_lora_rank",
                           "kv_lora_rank",
                           "qk_nope_head_dim",
                           "qk_rope_head_dim",
                           "v_head_dim",
                           "index_n_heads",
                           "index_head_dim",
                           "index_topk",
                           "max_position_embeddings",
                           "engram_contract",
                           "engram_max_ngram_size",
                           "engram_n_heads",
                           "engram_head_dim",
                           "engram_vocab_size",
                           "engram_compressed_vocab_size",
                           "engram_pad_token_id"}) {
    json document = Demo();
    document.erase(name);
    const absl::Status status = ParseModelConfig(document.dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(status.message(), std::string(name) + " is missing");
  }
}

TEST(ParseModelConfig, EveryIntegerIsBounded) {
  for (const char* name : {"vocab_size",
                           "hidden_size",
                           "num_hidden_layers",
                           "intermediate_size",
                           "moe_intermediate_size",
                           "n_routed_experts",
                           "n_shared_experts",
                           "num_experts_per_tok",
                           "first_k_dense_replace",
                           "num_attention_heads",
                           "q_lora_rank",
                           "kv_lora_rank",
                           "qk_nope_head_dim",
                           "qk_rope_head_dim",
                           "v_head_dim",
                           "index_n_heads",
                           "index_head_dim",
                           "index_topk",
                           "max_position_embeddings",
                           "hc_mult",
                           "hc_sinkhorn_iters",
                           "n_group",
                           "topk_group",
                           "num_nextn_predict_layers",
                           "engram_max_ngram_size",
                           "engram_n_heads",
                           "engram_head_dim",
                           "engram_vocab_size",
                           "engram_compressed_vocab_size",
                           "engram_pad_token_id",
                           "engram_seed",
                           "eos_token_id",
                           "bos_token_id",
                           "moe_layer_freq",
                           "num_key_value_heads"}) {
    ExpectRefused({{name, -1, name},
                   {name, int64_t{1} << 62 | 1, name},
                   {name, UINT64_MAX, name},
                   {name, 1e300, name},
                   {name, 2.5, name},
                   {name, "8", name},
                   {name, true, name}});
  }
}

TEST(ParseModelConfig, SizesThatDoNotFitEachOtherAreRefused) {
  ExpectRefused({
      {"qk_rope_head_dim", 15, "qk_rope_head_dim is 15, expected an even number"},
      {"index_head_dim", 48, "index_head_dim is 48, expected a power of two"},
      {"index_head_dim", 8, "of at least 16, the rope dims"},
      {"hc_mult", 1, "hc_mult is 1, expected an integer from 2 to 8"},
      {"hc_mult", 9, "from 2 to 8"},
      {"num_experts_per_tok", 257, "num_experts_per_tok is 257"},
      {"first_k_dense_replace", 6, "first_k_dense_replace is 6"},
      {"num_nextn_predict_layers", 2, "from 0 to 1"},
      {"moe_layer_freq", 2, "moe_layer_freq is 2"},
      {"num_key_value_heads", 1, "num_key_value_heads is 1"},
      {"n_group", 7, "n_group is 7, expected a divisor of the 256 experts"},
      {"n_group", 256, "n_group is 256, expected groups of 2 experts"},
      {"topk_group", 2, "topk_group is 2"},
      {"n_group", 32, "topk_group is 1, expected groups that hold 16 experts"},
      {"moe_intermediate_size", 33, "multiples of 32"},
      {"num_hidden_layers", 0, "num_hidden_layers is 0"},
      {"rms_norm_eps", 0, "rms_norm_eps is 0"},
      {"routed_scaling_factor", 0, "routed_scaling_factor"},
      {"rope_theta", 1, "rope_theta is 1"},
      {"eos_token_id", 4096, "eos_token_id is 4096"},
      {"eos_token_id", json::array({1, 5000}), "eos_token_id is 5000"},
  });
}

TEST(ParseModelConfig, ChoicesOfOtherFamiliesAreRefused) {
  ExpectRefused({
      {"scoring_func", "sqrtsoftplus", "scoring_func is \"sqrtsoftplus\""},
      {"topk_method", "greedy", "topk_method"},
      {"hidden_act", "gelu", "hidden_act"},
      {"architectures", json::array({"DeepseekV3ForCausalLM"}), "architectures"},
      {"swiglu_limit", 10.0, "swiglu_limit is 10.0, expected it to be absent"},
      {"attention_bias", true, "attention_bias"},
      {"tie_word_embeddings", true, "tie_word_embeddings"},
      {"num_hash_layers", 3, "num_hash_layers"},
      {"sliding_window", 128, "sliding_window"},
      {"compress_ratios", json::array(), "compress_ratios"},
      {"o_groups", 8, "o_groups"},
      {"dspark_block_size", 5, "dspark_block_size"},
      {"expert_dtype", "int4", "expert_dtype is \"int4\""},
      {"quantization_config", nullptr, "needs a quantization_config"},
      {"quantization_config", 1, "quantization_config: found 1, expected an object"},
      {"quantization_config/scale_fmt", "float", "quantization_config.scale_fmt"},
      {"quantization_config/fmt", "e5m2", "quantization_config.fmt"},
      {"quantization_config/quant_method", "gptq", "quantization_config.quant_method"},
      {"quantization_config/weight_block_size", json::array({128, 64}),
       "weight_block_size is 64"},
      {"quantization_config/weight_block_size", json::array({128}), "has not 2 entries"},
      {"quantization_config/modules_to_not_convert", json::array({"x"}),
       "modules_to_not_convert is not a known field"},
  });
}

TEST(ParseModelConfig, EngramFieldsMustAgree) {
  ExpectRefused({
      {"engram_layer_ids", json::array({3, 1}), "engram_layer_ids is [3, 1]"},
      {"engram_layer_ids", json::array({1, 1}), "engram_layer_ids is [1, 1]"},
      {"engram_layer_ids", json::array({1, 5}), "engram_layer_ids is 5"},
      {"engram_layer_ids", 1, "engram_layer_ids is 1, expected a list"},
      {"engram_contract", "v42", "engram_contract"},
      {"engram_vocab_size", json::array({3000, 3000}), "has 2 entries"},
      {"engram_vocab_size", json::array({3000, 3000, 3000, 3000}), "at most 3"},
      {"engram_vocab_size", 2000000000, "expected under 2^32"},
      {"engram_num_embeddings", json::array({36560, 37957}),
       "expected the sums of the primes"},
      {"engram_num_embeddings", json::array({36560}), "expected the sums of the primes"},
      {"engram_compressed_vocab_size", 4097, "engram_compressed_vocab_size is 4097"},
      {"engram_pad_token_id", 4096, "engram_pad_token_id is 4096"},
  });
}

TEST(ParseModelConfig, RopeScalingIsYarnInFullOrRefused) {
  const json yarn = json::parse(ReadText(kTrillion))["rope_scaling"];
  const auto parse = [&yarn](const std::function<void(json&)>& change) {
    json document = Demo();
    document["rope_scaling"] = yarn;
    change(document["rope_scaling"]);
    return ParseModelConfig(document.dump());
  };
  EXPECT_TRUE(parse([](json&) {}).ok());
  EXPECT_TRUE(parse([](json& scaling) {
                scaling["rope_type"] = scaling["type"];
                scaling.erase("type");
              }).ok());
  struct Case {
    std::function<void(json&)> change;
    absl::StatusCode code;
    const char* message;
  };
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  const std::vector<Case> cases = {
      {[](json& s) { s["type"] = "linear"; }, kInvalid,
       "rope_scaling.type is \"linear\""},
      {[](json& s) { s.erase("type"); }, kInvalid, "rope_scaling.type is missing"},
      {[](json& s) { s.erase("factor"); }, kInvalid, "rope_scaling.factor is missing"},
      {[](json& s) { s["factor"] = 0.5; }, kInvalid, "rope_scaling.factor is 0.5"},
      {[](json& s) { s["original_max_position_embeddings"] = 0; }, kInvalid,
       "rope_scaling.original_max_position_embeddings is 0"},
      {[](json& s) { s["attention_factor"] = 2; }, kInvalid,
       "rope_scaling.attention_factor is not a known field"},
      {[](json& s) { s["mscale"] = 0.7; }, absl::StatusCode::kUnimplemented,
       "rope_scaling.mscale is 0.7"},
      {[](json& s) { s = 4; }, kInvalid, "rope_scaling: found 4, expected an object"},
  };
  for (const Case& test : cases) {
    const absl::Status status = parse(test.change).status();
    EXPECT_EQ(status.code(), test.code) << test.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message));
  }
}

TEST(ParseModelConfig, V3IsPlainMlaWithGroupsAndItsOwnDraft) {
  const auto config = ParseModelConfig(ReadText(kV3));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, "v3");
  EXPECT_EQ(config->attention, AttentionKind::kMla);
  EXPECT_EQ(config->residual, ResidualKind::kPlain);
  EXPECT_EQ(config->num_streams(), 1);
  EXPECT_EQ(config->draft, DraftKind::kMtpNormed);
  EXPECT_TRUE(config->draft_has_copies);
  EXPECT_EQ(config->moe.num_groups, 4);
  EXPECT_EQ(config->moe.top_groups, 2);
  EXPECT_EQ(config->moe.expert_dtype, DType::kF8E4M3);
  EXPECT_FALSE(config->engram.has_value());
  const auto plain = ParseModelConfig(ReadText("tests/data/v3_bf16/config.json"));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FALSE(plain->fp8_linears);
  EXPECT_EQ(plain->moe.expert_dtype, DType::kBF16);
}

TEST(ParseModelConfig, V31NamesItsScaleFormatAndV3NeedNot) {
  json document = json::parse(ReadText(kV3));
  document["quantization_config"]["scale_fmt"] = "ue8m0";
  EXPECT_TRUE(ParseModelConfig(document.dump()).ok());
  document["quantization_config"]["scale_fmt"] = "e5m2";
  EXPECT_THAT(std::string(ParseModelConfig(document.dump()).status().message()),
              HasSubstr("quantization_config.scale_fmt"));
}

TEST(ParseModelConfig, V32AddsTheIndexerThatQuantizes) {
  const auto config = ParseModelConfig(ReadText("tests/data/v32/config.json"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, "v3.2");
  EXPECT_EQ(config->attention, AttentionKind::kMlaDsa);
  EXPECT_EQ(config->residual, ResidualKind::kPlain);
  EXPECT_EQ(config->indexer.topk, 48);
  EXPECT_TRUE(config->indexer.quantizes_vectors);
  EXPECT_FALSE(ParseModelConfig(ReadText(kDemo))->indexer.quantizes_vectors);
}

TEST(ParseModelConfig, FieldsOfAnotherFamilyAreRefusedInV3) {
  for (const char* name :
       {"index_topk", "index_n_heads", "index_head_dim", "hc_mult", "hc_eps",
        "engram_layer_ids", "expert_dtype", "swiglu_limit"}) {
    json document = json::parse(ReadText(kV3));
    document[name] = 2;
    const absl::Status status = ParseModelConfig(document.dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

TEST(ParseModelConfig, NamesTheFamilyItDoesNotRun) {
  for (const auto& [type, family] :
       {std::pair{"deepseek_v4", "V4,"}, {"deepseek_v41", "V4.1,"}}) {
    const absl::Status status =
        ParseModelConfig(json{{"model_type", type}}.dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << type;
    EXPECT_THAT(std::string(status.message()), HasSubstr(family));
  }
  EXPECT_EQ(ParseModelConfig(R"({"model_type":"llama"})").status().message(),
            "model_type is \"llama\", expected deepseek_v3, deepseek_v32 or "
            "deepseek_v4_mla");
}

TEST(ParseModelConfig, TextThatIsNoConfigIsRefused) {
  for (const char* text :
       {"", "[]", "7", "{}", R"({"model_type":7})", R"({"model_type":null})",
        R"({"model_type":"a","model_type":"b"})", "{\"a\":"}) {
    EXPECT_EQ(ParseModelConfig(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
  std::string deep = R"({"model_type":"deepseek_v4_mla","x":)" + std::string(5000, '[');
  EXPECT_EQ(ParseModelConfig(deep).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ParseModelConfig, TooManyExpertsInAllAreRefused) {
  json document = Demo();
  document["num_hidden_layers"] = 1024;
  document["n_routed_experts"] = 4096;
  EXPECT_THAT(std::string(ParseModelConfig(document.dump()).status().message()),
              HasSubstr("n_routed_experts is 4096 in 1024 layers"));
}

class LoadModelConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "model_config_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, std::string_view text) const {
    std::ofstream(folder_ + "/" + name) << text;
  }
  std::string folder_;
};

TEST_F(LoadModelConfigTest, GenerationConfigNamesTheStopTokens) {
  EXPECT_EQ(LoadModelConfig(folder_).status().code(), absl::StatusCode::kNotFound);
  Write("config.json", ReadText(kDemo));
  EXPECT_THAT(LoadModelConfig(folder_)->eos_token_ids, ElementsAre(1));
  Write("generation_config.json", R"({"eos_token_id":[1,7],"bos_token_id":3})");
  EXPECT_THAT(LoadModelConfig(folder_)->eos_token_ids, ElementsAre(1, 7));
  EXPECT_EQ(LoadModelConfig(folder_)->bos_token_id, 3);
  Write("generation_config.json", R"({"temperature":1.0})");
  EXPECT_THAT(LoadModelConfig(folder_)->eos_token_ids, ElementsAre(1));
}

TEST_F(LoadModelConfigTest, FaultsNameTheFile) {
  Write("config.json", "{}");
  EXPECT_THAT(std::string(LoadModelConfig(folder_).status().message()),
              HasSubstr("config.json: model_type"));
  Write("config.json", ReadText(kDemo));
  for (const char* text : {"[", "[]", R"({"eos_token_id":4096})"}) {
    Write("generation_config.json", text);
    const absl::Status status = LoadModelConfig(folder_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("generation_config.json: "));
  }
}

TEST(RopeInverseFrequencies, PlainRopeIsPowersOfTheta) {
  const std::vector<float> frequencies = RopeInverseFrequencies(RopeConfig{}, 16);
  ASSERT_EQ(frequencies.size(), 8u);
  EXPECT_EQ(frequencies[0], 1.0F);
  EXPECT_EQ(frequencies[4], 0.01F);
  EXPECT_FLOAT_EQ(frequencies[7], 3.1622776e-4F);
}

TEST(RopeInverseFrequencies, YarnHasTheBitsOfThePublishedCode) {
  const auto config = ParseModelConfig(ReadText(kV3));
  ASSERT_TRUE(config.ok()) << config.status();
  // Half of them differ in the last bit when they are evaluated in double.
  EXPECT_THAT(RopeInverseFrequencies(config->rope, config->mla.qk_rope_head_dim),
              ElementsAre(1.0F, 0.31622776389F, 0.1F, 0.023914724588F, 0.0051249996759F,
                          0.00084986217553F, 2.5000001187e-05F, 7.9056944742e-06F));
}

TEST(RopeInverseFrequencies, YarnKeepsFastAndDividesSlowDimensions) {
  RopeConfig rope;
  rope.yarn = YarnConfig{.factor = 40, .original_max_positions = 4096};
  const std::vector<float> plain = RopeInverseFrequencies(RopeConfig{}, 64);
  const std::vector<float> yarn = RopeInverseFrequencies(rope, 64);
  ASSERT_EQ(yarn.size(), 32u);
  // The blend runs from dimension 10 to dimension 23.
  for (size_t i = 0; i <= 10; ++i) {
    EXPECT_EQ(yarn[i], plain[i]) << i;
  }
  for (size_t i = 11; i < 23; ++i) {
    const float ramp = static_cast<float>(i - 10) / 13.0F;
    EXPECT_NEAR(yarn[i] / plain[i], ramp / 40.0F + (1 - ramp), 1e-6) << i;
  }
  for (size_t i = 23; i < 32; ++i) {
    EXPECT_FLOAT_EQ(yarn[i], plain[i] / 40.0F) << i;
  }
}

}  // namespace
}  // namespace tessera::model
