#include "cli/loaded_model.h"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::tessera::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// config.json of a published model and nothing else.
class ConfigAloneTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "loaded_model_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Take(const char* config) const {
    std::filesystem::copy_file(config, folder_ + "/config.json",
                               std::filesystem::copy_options::overwrite_existing);
  }
  std::string folder_;
};

TEST_F(ConfigAloneTest, DummyWeightsNeedNoFiles) {
  Take("tests/data/configs/deepseek_v4_flash.json");
  EXPECT_THAT(LoadModel(folder_).status(), StatusIs(absl::StatusCode::kNotFound));
  const auto model =
      LoadModel(folder_, {.format = "dummy", .overrides = {"num_hidden_layers=4"}});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->config.num_layers, 4);
  EXPECT_TRUE((*model)->checkpoint->Find("layers.3.attn_norm.weight").ok());
  EXPECT_TRUE((*model)->checkpoint->files().empty());
}

TEST_F(ConfigAloneTest, DummyEngramNeedsNoTokenizer) {
  Take("tests/data/configs/deepseek_v4.1_flash.json");
  const auto model =
      LoadModel(folder_, {.format = "dummy", .overrides = {"engram_vocab_size=1000"}});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE((*model)->hash.has_value());
}

TEST_F(ConfigAloneTest, SeedAndOverridesAreInTheDigest) {
  Take("tests/data/v4/config.json");
  const auto digest = [&](uint64_t seed, const std::vector<std::string>& overrides) {
    return LoadModel(folder_, {.format = "dummy", .seed = seed, .overrides = overrides})
        .value()
        ->checkpoint->digest();
  };
  EXPECT_EQ(digest(1, {}), digest(1, {}));
  EXPECT_NE(digest(1, {}), digest(2, {}));
  EXPECT_NE(digest(1, {}), digest(1, {"rope_theta=20000"}));
}

// Files must fit what the overrides make of the config.
TEST(LoadModel, OverridesThatTheFilesDoNotFitAreRefusedByTensor) {
  EXPECT_TRUE(LoadModel("tests/data/v4").ok());
  EXPECT_THAT(
      LoadModel("tests/data/v4", {.overrides = {"num_hidden_layers=4"}}).status(),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tensor layers.4.")));
}

TEST(LoadModel, OverridesAreInTheDigestOfFiles) {
  const auto digest = [](const std::vector<std::string>& overrides) {
    return LoadModel("tests/data/v4", {.overrides = overrides})
        .value()
        ->checkpoint->digest();
  };
  EXPECT_EQ(digest({}), model::Checkpoint::Open("tests/data/v4").value()->digest());
  EXPECT_EQ(digest({"rope_theta=20000"}), digest({"rope_theta=20000"}));
  EXPECT_NE(digest({"rope_theta=20000"}), digest({}));
  EXPECT_NE(digest({"rope_theta=20000"}), digest({"rope_theta=30000"}));
}

TEST(LoadArguments, AreWhatAChildNeedsToLoadTheSame) {
  EXPECT_THAT(
      LoadArguments({.format = "dummy", .seed = 7, .overrides = {"a=1", "b=x y"}}),
      ElementsAre("--load-format=dummy", "--load-seed=7", "--override=a=1",
                  "--override=b=x y"));
}

}  // namespace
}  // namespace tessera::cli
