#include "model/tensors/tensor_list.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "model/config/model_config.h"

namespace tessera::model {
namespace {

using ::testing::ElementsAre;

ModelConfig Config(int64_t block, bool scales_are_e8m0) {
  ModelConfig config;
  config.hidden_size = 40;
  config.hyper.num_streams = 2;
  config.fp8_linears = true;
  config.weight_block = block;
  config.scales_are_e8m0 = scales_are_e8m0;
  return config;
}

std::vector<std::string> Names(TensorList list) {
  std::vector<std::string> names;
  for (const ExpectedTensor& tensor : list.Take()) {
    names.push_back(tensor.name);
  }
  return names;
}

TEST(TensorList, BlockScalesCoverTheRaggedEdge) {
  for (const bool is_e8m0 : {false, true}) {
    const ModelConfig config = Config(32, is_e8m0);
    TensorList list(config);
    list.AddLinear("x", TensorKind::kAttention, 33, 64);
    const std::vector<ExpectedTensor> tensors = list.Take();
    ASSERT_EQ(tensors.size(), 2u);
    EXPECT_EQ(tensors[1].name, is_e8m0 ? "x.scale" : "x.weight_scale_inv");
    EXPECT_EQ(tensors[1].dtype, is_e8m0 ? DType::kF8E8M0 : DType::kF32);
    EXPECT_THAT(tensors[1].shape, ElementsAre(2, 2));
    EXPECT_EQ(tensors[0].num_parameters, 33 * 64);
    EXPECT_EQ(tensors[1].num_parameters, 0);
    EXPECT_EQ(tensors[1].num_bytes(), is_e8m0 ? 4 : 16);
  }
}

TEST(TensorList, PackedFp4HoldsTwoValuesAByte) {
  const ModelConfig config = Config(128, true);
  TensorList list(config);
  list.AddMatrix("x", TensorKind::kRoutedExpert, DType::kFp4, 3, 64);
  const std::vector<ExpectedTensor> tensors = list.Take();
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].dtype, DType::kI8);
  EXPECT_THAT(tensors[0].shape, ElementsAre(3, 32));
  EXPECT_EQ(tensors[0].num_parameters, 3 * 64);
  EXPECT_THAT(tensors[1].shape, ElementsAre(3, 2));
}

TEST(TensorList, MixesAreThoseOfTheResidual) {
  ModelConfig config = Config(128, true);
  const auto names = [&config] {
    TensorList list(config);
    list.AddSublayerMix("hc_attn", '_');
    list.AddHeadMix("hc_head", '.');
    return Names(std::move(list));
  };
  config.residual = ResidualKind::kPlain;
  EXPECT_TRUE(names().empty());
  config.residual = ResidualKind::kHyperConnections;
  EXPECT_THAT(names(), ElementsAre("hc_attn_fn", "hc_attn_base", "hc_attn_scale",
                                   "hc_head.fn", "hc_head.base", "hc_head.scale"));
  config.residual = ResidualKind::kHyperHandOff;
  EXPECT_THAT(names(), ElementsAre("hc_attn_fn", "hc_attn_base", "hc_attn_scale"));
}

}  // namespace
}  // namespace tessera::model
