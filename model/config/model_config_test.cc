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

#include "tests/testing/config_documents.h"

namespace tessera::model {
namespace {

using nlohmann::json;
using tessera::testing::ReadText;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kDemo = "models/demo/config.json";
constexpr const char* kV3 = "tests/data/v3/config.json";

TEST(ParseModelConfig, NamesTheModelTypesThatItKnows) {
  EXPECT_EQ(ParseModelConfig(R"({"model_type":"llama"})").status().message(),
            "model_type is \"llama\", expected deepseek_v3, deepseek_v32, "
            "deepseek_v4_mla, deepseek_v4 or deepseek_v41");
}

// A prefix of a model type is another model.
TEST(ParseModelConfig, ModelTypesAreComparedWhole) {
  for (const char* type :
       {"deepseek_v", "deepseek_v4_", "deepseek_v411", "deepseek_v41_text"}) {
    EXPECT_THAT(
        std::string(
            ParseModelConfig(json{{"model_type", type}}.dump()).status().message()),
        HasSubstr("model_type is"));
  }
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

class LoadModelConfigTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "model_config_XXXXXX";
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
