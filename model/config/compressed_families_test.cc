#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "model/config/model_config.h"
#include "tests/testing/config_documents.h"

namespace tessera::model {
namespace {

using nlohmann::json;
using tessera::testing::Demo;
using tessera::testing::Erased;
using tessera::testing::ExpectRefused;
using tessera::testing::ReadDocument;
using tessera::testing::ReadText;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json Flash() { return ReadDocument("tests/data/configs/deepseek_v4_flash.json"); }
json Flash0731() {
  return ReadDocument("tests/data/configs/deepseek_v4_flash_0731.json");
}
json V41() { return ReadDocument("tests/data/configs/deepseek_v4.1_flash.json"); }

TEST(CompressedFamilies, ReadsV4Flash) {
  const auto config = ParseModelConfig(Flash().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, "v4");
  EXPECT_EQ(config->attention, AttentionKind::kCompressed);
  EXPECT_EQ(config->residual, ResidualKind::kHyperConnections);
  EXPECT_EQ(config->router, RouterKind::kSqrtSoftplus);
  EXPECT_EQ(config->draft, DraftKind::kMtpStreamsSplit);
  EXPECT_EQ(config->names, TensorNames::kNative);
  EXPECT_EQ(config->num_layers, 43);
  EXPECT_EQ(config->num_draft_layers, 1);
  EXPECT_FALSE(config->draft_has_copies);
  EXPECT_EQ(config->num_heads(), 64);
  const CompressedAttentionConfig& attention = config->compressed;
  EXPECT_EQ(attention.head_dim, 512);
  EXPECT_EQ(attention.rope_dim, 64);
  EXPECT_EQ(attention.q_lora_rank, 1024);
  EXPECT_EQ(attention.num_output_groups, 8);
  EXPECT_EQ(attention.output_rank, 1024);
  EXPECT_EQ(attention.window, 128);
  EXPECT_TRUE(attention.normalizes_heads);
  EXPECT_TRUE(attention.has_position_bias);
  EXPECT_EQ(attention.window_quant_group, 64);
  EXPECT_FALSE(attention.entry_quant_is_fp4);
  EXPECT_EQ(attention.candidate_source, -1);
  EXPECT_EQ(config->indexer.topk, 512);
  EXPECT_TRUE(config->indexer.rotates_tail);
  EXPECT_TRUE(config->indexer.applies_hadamard);
  EXPECT_EQ(config->indexer.quant_group, 32);
  EXPECT_EQ(config->num_hash_layers, 3);
  EXPECT_TRUE(config->is_hash_layer(2));
  EXPECT_FALSE(config->is_hash_layer(3));
  EXPECT_FALSE(config->is_hash_layer(43));
  EXPECT_EQ(config->swiglu_limit, 10);
  EXPECT_TRUE(config->moe.weights_before_down);
  EXPECT_FALSE(config->moe.has_image_bias);
  EXPECT_EQ(config->moe.expert_dtype, DType::kFp4);
  EXPECT_EQ(config->draft_moe.num_experts, 256);
  EXPECT_TRUE(config->fp8_linears);
  EXPECT_EQ(config->weight_block, 128);
  EXPECT_TRUE(config->scales_are_e8m0);
  EXPECT_DOUBLE_EQ(config->softmax_scale(), 1 / std::sqrt(512.0));
}

// Layers without entries rotate with the plain base, the others with YaRN on their own.
TEST(CompressedFamilies, HasARopeForLayersWithEntriesAndOneForTheRest) {
  const auto config = ParseModelConfig(Flash().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.theta, 10000);
  EXPECT_FALSE(config->rope.yarn.has_value());
  EXPECT_EQ(config->compressed_rope.theta, 160000);
  ASSERT_TRUE(config->compressed_rope.yarn.has_value());
  EXPECT_EQ(config->compressed_rope.yarn->factor, 16);
  EXPECT_EQ(config->compressed_rope.yarn->original_max_positions, 65536);
}

TEST(CompressedFamilies, V4LayersSelectAmongTheirOwnEntries) {
  const auto config = ParseModelConfig(ReadText("tests/data/v4/config.json"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->compressed.ratios, ElementsAre(0, 4, 128, 4, 0, 0));
  EXPECT_THAT(config->compressed.kv_sources, ElementsAre(-1, 1, 2, 3, -1));
  EXPECT_THAT(config->compressed.index_sources, ElementsAre(-1, 1, -1, 3, -1));
}

TEST(CompressedFamilies, V4ProHasNoLayerWithoutEntries) {
  const auto config =
      ParseModelConfig(ReadText("tests/data/configs/deepseek_v4_pro.json"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->num_layers, 61);
  EXPECT_EQ(config->indexer.topk, 1024);
  EXPECT_EQ(config->compressed.num_output_groups, 16);
  EXPECT_THAT(config->compressed.kv_sources, Each(::testing::Ge(0)));
}

TEST(CompressedFamilies, PagesHoldWholeEntriesAndTailsAWindow) {
  const auto flash = ParseModelConfig(Flash().dump());
  EXPECT_EQ(flash->tail_tokens(), 127);
  EXPECT_EQ(flash->block_multiple(), 128);
  EXPECT_THAT(flash->distinct_ratios(), ::testing::ElementsAre(4, 128));
  EXPECT_EQ(flash->default_block_size(), 128);
  const auto v41 = ParseModelConfig(V41().dump());
  // A DSpark block sees a whole window before its first token.
  EXPECT_EQ(v41->tail_tokens(), 128);
  EXPECT_EQ(v41->block_multiple(), 2);
  EXPECT_EQ(v41->default_block_size(), 128);
  const auto mla = ParseModelConfig(Demo().dump());
  EXPECT_EQ(mla->tail_tokens(), 0);
  EXPECT_EQ(mla->block_multiple(), 1);
  EXPECT_TRUE(mla->distinct_ratios().empty());
  EXPECT_EQ(mla->default_block_size(), 16);
}

// A window shorter than what the compressors look back at.
TEST(CompressedFamilies, TailsHoldWhatCompressorsLookBackAt) {
  json document = ReadDocument("tests/data/v4/config.json");
  document["sliding_window"] = 3;
  EXPECT_EQ(ParseModelConfig(document.dump())->tail_tokens(), 127);
  document["compress_ratios"] = {0, 4, 4, 4, 0, 0};
  EXPECT_EQ(ParseModelConfig(document.dump())->tail_tokens(), 7);
}

TEST(CompressedFamilies, Reads0731WithItsBlockDrafter) {
  const auto config = ParseModelConfig(Flash0731().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, "v4");
  EXPECT_EQ(config->draft, DraftKind::kDspark);
  EXPECT_EQ(config->num_draft_layers, 3);
  ASSERT_TRUE(config->dspark.has_value());
  EXPECT_EQ(config->dspark->block_size, 5);
  EXPECT_EQ(config->dspark->noise_token_id, 128799);
  EXPECT_EQ(config->dspark->markov_rank, 256);
  EXPECT_THAT(config->dspark->targets, ElementsAre(40, 41, 42));
  EXPECT_FALSE(config->dspark->taps_inputs);
  EXPECT_EQ(config->draft_moe.num_experts, 256);
}

TEST(CompressedFamilies, ReadsV41Flash) {
  const auto config = ParseModelConfig(V41().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, "v4.1");
  EXPECT_EQ(config->residual, ResidualKind::kHyperHandOff);
  EXPECT_EQ(config->draft, DraftKind::kDspark);
  EXPECT_EQ(config->num_draft_layers, 3);
  EXPECT_EQ(config->rms_norm_eps, 1e-20);
  EXPECT_EQ(config->weight_block, 32);
  EXPECT_TRUE(config->fp8_linears);
  EXPECT_EQ(config->moe.expert_dtype, DType::kFp4);
  EXPECT_TRUE(config->moe.has_image_bias);
  EXPECT_EQ(config->draft_moe.num_experts, 128);
  EXPECT_EQ(config->draft_moe.experts_per_token, 3);
  EXPECT_EQ(config->draft_moe.expert_dtype, DType::kFp4);
  EXPECT_FALSE(config->indexer.applies_hadamard);
  const CompressedAttentionConfig& attention = config->compressed;
  EXPECT_FALSE(attention.normalizes_heads);
  EXPECT_TRUE(attention.window_quant_covers_rope);
  EXPECT_EQ(attention.window_quant_group, 32);
  EXPECT_TRUE(attention.entry_quant_is_fp4);
  EXPECT_EQ(attention.entry_quant_group, 16);
  EXPECT_EQ(attention.candidate_source, 20);
  EXPECT_EQ(attention.candidate_blocks, 2048);
  EXPECT_EQ(attention.candidate_block_size, 8);
  EXPECT_TRUE(config->dspark->taps_inputs);
  ASSERT_TRUE(config->engram.has_value());
  EXPECT_EQ(config->engram->contract, EngramContract::kV41);
  EXPECT_THAT(config->engram->num_embeddings, ElementsAre(384006168, 384016682));
  ASSERT_TRUE(config->vision.has_value());
  EXPECT_EQ(config->vision->num_layers, 32);
  EXPECT_EQ(config->vision->mlp_width, 2816);
  EXPECT_EQ(config->image_token_id, 129264);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(1));
}

TEST(CompressedFamilies, V41LayersShareEntriesAndSelections) {
  const auto config = ParseModelConfig(V41().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  const CompressedAttentionConfig& attention = config->compressed;
  ASSERT_EQ(attention.kv_sources.size(), 40u);
  EXPECT_EQ(attention.kv_sources[1], -1);
  EXPECT_EQ(attention.index_sources[1], -1);
  EXPECT_EQ(attention.kv_sources[7], 2);
  EXPECT_EQ(attention.kv_sources[19], 14);
  EXPECT_EQ(attention.kv_sources[26], 20);
  EXPECT_EQ(attention.index_sources[26], 24);
  EXPECT_EQ(attention.index_sources[39], 36);
}

TEST(CompressedFamilies, ATowerAndImagesAreOptional) {
  const auto config = ParseModelConfig(ReadText("tests/data/v41/config.json"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->vision.has_value());
  EXPECT_FALSE(config->image_token_id.has_value());
}

TEST(CompressedFamilies, CheckpointsInBf16HaveBf16Experts) {
  json document = Flash();
  document.erase("quantization_config");
  document.erase("expert_dtype");
  const auto config = ParseModelConfig(document.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->fp8_linears);
  EXPECT_EQ(config->moe.expert_dtype, DType::kBF16);
  document["quantization_config"] = Flash()["quantization_config"];
  EXPECT_EQ(ParseModelConfig(document.dump())->moe.expert_dtype, DType::kF8E4M3);
}

TEST(CompressedFamilies, EveryRequiredFieldOfV4IsMissedByName) {
  for (const char* name : {"vocab_size",
                           "hidden_size",
                           "num_hidden_layers",
                           "num_attention_heads",
                           "head_dim",
                           "qk_rope_head_dim",
                           "q_lora_rank",
                           "o_groups",
                           "o_lora_rank",
                           "sliding_window",
                           "compress_rope_theta",
                           "moe_intermediate_size",
                           "n_routed_experts",
                           "n_shared_experts",
                           "num_experts_per_tok",
                           "routed_scaling_factor",
                           "max_position_embeddings",
                           "index_n_heads",
                           "index_head_dim",
                           "index_topk"}) {
    ExpectRefused(Flash(), {{name, Erased(), name}});
  }
  ExpectRefused(Flash(),
                {{"compress_ratios", Erased(), "compress_ratios has 0 entries"}});
}

TEST(CompressedFamilies, SizesOfV4ThatDoNotFitEachOtherAreRefused) {
  ExpectRefused(
      Flash(),
      {{"num_key_value_heads", 64, "num_key_value_heads is 64"},
       {"o_groups", 7, "o_groups is 7, expected a divisor of the 64 heads"},
       {"o_groups", 65, "o_groups is 65"},
       {"qk_rope_head_dim", 63, "qk_rope_head_dim is 63"},
       {"qk_rope_head_dim", 514, "at most 512"},
       {"head_dim", 500, "head_dim is 500 with 64 rotary values"},
       {"index_head_dim", 96, "index_head_dim is 96, expected a power of two"},
       {"index_head_dim", 32, "of at least 64, the rope dims"},
       {"num_hash_layers", 44, "num_hash_layers is 44"},
       {"compress_ratios", json::array({0, 4}), "compress_ratios has 2 entries"},
       {"compress_ratios/2", 3, "compress_ratios has 3, expected 0 or a power of two"},
       {"compress_ratios/2", 2, "compress_ratios has 2, expected 0 or a power of two"},
       {"compress_ratios/2", 256, "compress_ratios is 256"},
       {"compress_ratios/43", 4, "compress_ratios is 4 for draft layer 0, expected 0"},
       {"num_nextn_predict_layers", 0, "compress_ratios has 44 entries, expected 43 "},
       {"num_nextn_predict_layers", 2, "num_nextn_predict_layers is 2"},
       {"sliding_window", 0, "sliding_window is 0"},
       {"swiglu_limit", -1, "swiglu_limit is -1"},
       {"expert_dtype", "bf8", "expert_dtype is \"bf8\""},
       {"quantization_config", nullptr, "expert_dtype is not \"bf16\""},
       {"moe_intermediate_size", 2056, "multiples of 32"}});
}

TEST(CompressedFamilies, ChoicesThatV4HasNotAreRefused) {
  ExpectRefused(
      Flash(),
      {{"scoring_func", "sigmoid", "scoring_func is \"sigmoid\""},
       {"gate_temp", 0.5, "gate_temp is 0.5"},
       {"n_group", 8, "n_group is 8"},
       {"kv_lora_rank", 512, "kv_lora_rank is 512, expected it to be absent"},
       {"v_head_dim", 128, "v_head_dim"},
       {"first_k_dense_replace", 3, "first_k_dense_replace"},
       {"attention_bias", true, "attention_bias"},
       {"tie_word_embeddings", true, "tie_word_embeddings"},
       {"engram_layer_ids", json::array({1}), "engram_layer_ids"},
       {"kv_source_layer_ids", json::array({2}), "kv_source_layer_ids"},
       {"text_config", json::object(), "text_config"},
       {"dspark_markov_rank", 256, "dspark_markov_rank"},
       {"architectures", json::array({"DeepseekV3ForCausalLM"}), "architectures"},
       {"rope_scaling/mscale", 1.0, "rope_scaling.mscale is 1.0, expected it to be"},
       {"rope_scaling/type", "linear", "rope_scaling.type"},
       {"quantization_config/expert_dtype", "fp4", "quantization_config.expert_dtype"},
       {"quantization_config/fmt", Erased(), "quantization_config.fmt is missing"},
       {"quantization_config/weight_block_size", json::array({32, 32}),
        "weight_block_size is 32"}});
}

TEST(CompressedFamilies, TheBlockDrafterOf0731MustFitTheModel) {
  ExpectRefused(
      Flash0731(),
      {{"dspark_block_size", 0, "dspark_block_size is 0"},
       {"dspark_noise_token_id", 129280, "dspark_noise_token_id is 129280"},
       {"dspark_noise_token_id", Erased(), "dspark_noise_token_id is missing"},
       {"dspark_markov_rank", Erased(), "dspark_markov_rank is missing"},
       {"dspark_target_layer_ids", Erased(), "dspark_target_layer_ids is []"},
       {"dspark_target_layer_ids", json::array({41, 40}), "is [41, 40]"},
       {"dspark_target_layer_ids", json::array({43}), "dspark_target_layer_ids is 43"},
       {"num_nextn_predict_layers", 2, "num_nextn_predict_layers is 2, expected 1 or"},
       {"num_nextn_predict_layers", 4, "compress_ratios has 46 entries"},
       {"dspark_n_routed_experts", 128, "dspark_n_routed_experts"}});
  json document = Flash0731();
  document["num_nextn_predict_layers"] = 3;
  EXPECT_TRUE(ParseModelConfig(document.dump()).ok());
}

TEST(CompressedFamilies, SourcesOfV41MustFitTheRatios) {
  ExpectRefused(
      V41(),
      {{"text_config/kv_source_layer_ids", json::array({8, 2}), "is [8, 2]"},
       {"text_config/kv_source_layer_ids", json::array({1, 8, 14, 20}),
        "text_config.kv_source_layer_ids has 1, whose compress_ratios is 0"},
       {"text_config/kv_source_layer_ids", json::array({8, 14, 20}),
        "expected a source at or before layer 2"},
       {"text_config/kv_source_layer_ids", json::array({2, 8, 14}),
        "gives layer 20 of ratio 1 the entries of layer 14 of ratio 2"},
       {"text_config/kv_source_layer_ids", Erased(), "kv_source_layer_ids is []"},
       {"text_config/index_source_layer_ids", json::array({2, 14, 20, 24}),
        "gives layer 8 the selection of layer 2"},
       {"text_config/candidate_source_layer_id", 21,
        "candidate_source_layer_id is 21, expected one of index_source_layer_ids"},
       {"text_config/candidate_source_layer_id", 14, "index source 20 does not read"},
       {"text_config/candidate_topk_blocks", Erased(),
        "candidate_topk_blocks is missing"},
       {"text_config/candidate_block_size", 0, "candidate_block_size is 0"},
       {"text_config/compress_ratios/2", 4, "compress_ratios is 4"}});
}

TEST(CompressedFamilies, FieldsOfV41AreRefusedByName) {
  ExpectRefused(
      V41(),
      {{"text_config", Erased(), "text_config is missing"},
       {"text_config", 7, "text_config: found 7, expected an object"},
       {"text_config/model_type", "deepseek_v4", "text_config.model_type"},
       {"text_config/hidden_size", Erased(), "text_config.hidden_size is missing"},
       {"text_config/num_hash_layers", 3, "text_config.num_hash_layers"},
       {"text_config/head_dim", 500, "text_config.head_dim is 500"},
       {"text_config/index_head_dim", 100, "expected a multiple of 32"},
       {"text_config/engram_contract", "demo", "engram_contract is \"demo\""},
       {"text_config/engram_num_embeddings", json::array({384006168, 384016681}),
        "expected the sums of the primes"},
       {"text_config/dspark_num_experts_per_tok", 129, "dspark_num_experts_per_tok"},
       {"text_config/num_nextn_predict_layers", 2, "num_nextn_predict_layers is 2"},
       {"image_token_id", 129280, "image_token_id is 129280"},
       {"architectures", json::array({"DeepseekV4ForCausalLM"}), "architectures"},
       {"vision_config", 3, "vision_config: found 3, expected an object"},
       {"vision_config/num_hidden_layers", 0, "vision_config.num_hidden_layers is 0"},
       {"quantization_config/expert_dtype", "fp2", "quantization_config.expert_dtype"},
       {"quantization_config/weight_block_size", json::array({128, 128}),
        "weight_block_size is 128, expected an integer from 32 to 32"}});
}

TEST(CompressedFamilies, InverseFrequenciesBlendBetweenFastAndSlow) {
  const auto config = ParseModelConfig(Flash().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  const std::vector<float> yarn = RopeInverseFrequencies(config->compressed_rope, 64);
  RopeConfig plain = config->compressed_rope;
  plain.yarn.reset();
  const std::vector<float> unscaled = RopeInverseFrequencies(plain, 64);
  // Dimensions up to 15 are fast and stay, from 25 on they are divided by the factor.
  EXPECT_EQ(yarn[15], unscaled[15]);
  EXPECT_LT(yarn[16], unscaled[16]);
  EXPECT_GT(yarn[24], unscaled[24] / 16);
  EXPECT_FLOAT_EQ(yarn[25], unscaled[25] / 16);
}

// As the tiny models' oracle recorded them.
TEST(CompressedFamilies, InverseFrequenciesHaveTheBitsOfTheGoldens) {
  const auto config = ParseModelConfig(ReadText("tests/data/v4/config.json"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(
      RopeInverseFrequencies(config->compressed_rope, 32),
      ElementsAre(1.0F, 0.472870797F, 0.223606795F, 0.10573712F, 0.0500000007F,
                  0.0236435402F, 0.0111803403F, 0.00528685655F, 0.00210937485F,
                  0.000812746643F, 0.000296977785F, 9.9128556e-05F, 2.73437545e-05F,
                  3.69430336e-06F, 1.74692821e-06F, 8.260713e-07F));
}

}  // namespace
}  // namespace tessera::model
