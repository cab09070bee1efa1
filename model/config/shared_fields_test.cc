#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "model/config/model_config.h"
#include "tests/testing/config_documents.h"

namespace tessera::model {
namespace {

using nlohmann::json;
using tessera::testing::Demo;
using tessera::testing::ExpectRefused;
using tessera::testing::ReadDocument;
using tessera::testing::ReadText;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kV3 = "tests/data/v3/config.json";
constexpr const char* kTrillion = "tests/data/configs/v4_mla_1t_20pct_engram.json";

TEST(SharedFields, EveryIntegerIsBounded) {
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
    ExpectRefused(Demo(), {{name, -1, name},
                           {name, int64_t{1} << 62 | 1, name},
                           {name, UINT64_MAX, name},
                           {name, 1e300, name},
                           {name, 2.5, name},
                           {name, "8", name},
                           {name, true, name}});
  }
}

TEST(SharedFields, SizesThatDoNotFitEachOtherAreRefused) {
  ExpectRefused(
      Demo(),
      {
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

TEST(SharedFields, EngramSeedBasesAndContractAreRead) {
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

TEST(SharedFields, EngramFieldsMustAgree) {
  ExpectRefused(
      Demo(),
      {
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
          {"engram_num_embeddings", json::array({36560}),
           "expected the sums of the primes"},
          {"engram_compressed_vocab_size", 4097, "engram_compressed_vocab_size is 4097"},
          {"engram_pad_token_id", 4096, "engram_pad_token_id is 4096"},
      });
}

TEST(SharedFields, RopeScalingIsYarnInFullOrRefused) {
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

TEST(SharedFields, V31NamesItsScaleFormatAndV3NeedNot) {
  json document = ReadDocument(kV3);
  document["quantization_config"]["scale_fmt"] = "ue8m0";
  EXPECT_TRUE(ParseModelConfig(document.dump()).ok());
  document["quantization_config"]["scale_fmt"] = "e5m2";
  EXPECT_THAT(std::string(ParseModelConfig(document.dump()).status().message()),
              HasSubstr("quantization_config.scale_fmt"));
}

TEST(SharedFields, TooManyExpertsInAllAreRefused) {
  json document = Demo();
  document["num_hidden_layers"] = 1024;
  document["n_routed_experts"] = 4096;
  EXPECT_THAT(std::string(ParseModelConfig(document.dump()).status().message()),
              HasSubstr("n_routed_experts is 4096 in 1024 layers"));
}

}  // namespace
}  // namespace tessera::model
