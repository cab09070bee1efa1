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

TEST(MlaFamilies, ReadsTheDemoModel) {
  const auto config = ParseModelConfig(ReadText("models/demo/config.json"));
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

TEST(MlaFamilies, ReadsTheTrillionParameterConfigs) {
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

TEST(MlaFamilies, V3IsPlainMlaWithGroupsAndItsOwnDraft) {
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

TEST(MlaFamilies, V32AddsTheIndexerThatQuantizes) {
  const auto config = ParseModelConfig(ReadText("tests/data/v32/config.json"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, "v3.2");
  EXPECT_EQ(config->attention, AttentionKind::kMlaDsa);
  EXPECT_EQ(config->residual, ResidualKind::kPlain);
  EXPECT_EQ(config->indexer.topk, 48);
  EXPECT_TRUE(config->indexer.quantizes_vectors);
  EXPECT_FALSE(ParseModelConfig(Demo().dump())->indexer.quantizes_vectors);
}

TEST(MlaFamilies, ChoicesOfOtherFamiliesAreRefused) {
  ExpectRefused(
      Demo(),
      {
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
          {"quantization_config/quant_method", "gptq",
           "quantization_config.quant_method"},
          {"quantization_config/weight_block_size", json::array({128, 64}),
           "weight_block_size is 64"},
          {"quantization_config/weight_block_size", json::array({128}),
           "has not 2 entries"},
          {"quantization_config/modules_to_not_convert", json::array({"x"}),
           "modules_to_not_convert is not a known field"},
      });
}

TEST(MlaFamilies, FieldsOfAnotherFamilyAreRefusedInV3) {
  for (const char* name :
       {"index_topk", "index_n_heads", "index_head_dim", "hc_mult", "hc_eps",
        "engram_layer_ids", "expert_dtype", "swiglu_limit"}) {
    json document = ReadDocument(kV3);
    document[name] = 2;
    const absl::Status status = ParseModelConfig(document.dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

TEST(MlaFamilies, FieldsOfOtherFamiliesMayBeThereAsNothing) {
  for (const json& nothing : {json(nullptr), json(false), json(0)}) {
    json document = Demo();
    document["swiglu_limit"] = nothing;
    document["compress_ratios"] = nothing;
    EXPECT_TRUE(ParseModelConfig(document.dump()).ok());
  }
}

TEST(MlaFamilies, DefaultsHoldWhereFieldsAreAbsent) {
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

TEST(MlaFamilies, EveryRequiredFieldIsMissedByName) {
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

}  // namespace
}  // namespace tessera::model
