#include "model/tensors/model_summary.h"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tessera::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ModelSummary SummaryOf(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
  EXPECT_TRUE(config.ok()) << path << ": " << config.status();
  return SummarizeModel(*config, DefaultEngramRowFormat(*config));
}

int64_t Parameters(const ModelSummary& summary, TensorKind kind) {
  return summary.by_kind[static_cast<size_t>(kind)].parameters;
}

struct Counts {
  const char* path;
  int64_t total;
  int64_t active;
  int64_t draft;
  int64_t engram;
  double main_gib;
  double draft_gib;
};

// The counts of the two planner examples were made independently, from the family's
// definition.
TEST(SummarizeModel, CountsTheTrillionParameterModels) {
  constexpr double kGib = 1024.0 * 1024 * 1024;
  for (const Counts& counts :
       {Counts{"tests/data/configs/v4_mla_1t_20pct_engram.json", 999999906869,
               68919133237, 11625518651, 200848534528, 599.72, 6.01},
        Counts{"tests/data/configs/v4_mla_1t_32b_active.json", 1000000086201, 32411867833,
               8302145083, 642287192576, 800.27, 4.27}}) {
    const ModelSummary summary = SummaryOf(counts.path);
    EXPECT_EQ(summary.main.parameters, counts.total) << counts.path;
    EXPECT_EQ(summary.active_parameters, counts.active) << counts.path;
    EXPECT_EQ(summary.draft.parameters, counts.draft) << counts.path;
    EXPECT_EQ(Parameters(summary, TensorKind::kEngramTable), counts.engram);
    EXPECT_NEAR(static_cast<double>(summary.main.bytes) / kGib, counts.main_gib, 0.006);
    EXPECT_NEAR(static_cast<double>(summary.draft.bytes) / kGib, counts.draft_gib, 0.006);
  }
}

// As published: 671 B parameters, 37 B active. The exact counts were made independently.
TEST(SummarizeModel, CountsThePublishedModels) {
  const ModelSummary v3 = SummaryOf("tests/data/configs/deepseek_v3.json");
  EXPECT_EQ(v3.main.parameters, 671026419200);
  EXPECT_EQ(v3.active_parameters, 36625625600);
  // The draft layer, and its copies of embedding and head.
  EXPECT_EQ(v3.draft.parameters, 11610068224 + 2 * int64_t{129280} * 7168);
  const ModelSummary v32 = SummaryOf("tests/data/configs/deepseek_v3.2.json");
  EXPECT_EQ(v32.main.parameters, 671877944064);
  EXPECT_EQ(v32.active_parameters, 37477150464);
  EXPECT_EQ(v32.draft.parameters, 11624027648 + 2 * int64_t{129280} * 7168);
}

TEST(SummarizeModel, EngramRowsAreValuesAndScales) {
  const ModelSummary summary =
      SummaryOf("tests/data/configs/v4_mla_1t_20pct_engram.json");
  ASSERT_EQ(summary.engram_tables.size(), 2u);
  EXPECT_EQ(summary.engram_tables[0].layer, 1);
  EXPECT_EQ(summary.engram_tables[0].rows, 392278068);
  EXPECT_EQ(summary.engram_tables[0].row_bytes, 264);
  EXPECT_EQ(summary.engram_tables[1].layer, 14);
  EXPECT_EQ(summary.engram_tables[1].bytes(), int64_t{392286520} * 264);
}

TEST(SummarizeModel, KindsAndFormatsEachCoverEverything) {
  const ModelSummary summary = SummaryOf("models/demo/config.json");
  const auto sum = [](const auto& groups) {
    TensorTotals total;
    for (const TensorTotals& group : groups) {
      total.num_tensors += group.num_tensors;
      total.parameters += group.parameters;
      total.bytes += group.bytes;
    }
    return total;
  };
  for (const TensorTotals& total : {sum(summary.by_kind), sum(summary.by_format)}) {
    EXPECT_EQ(total.num_tensors, summary.main.num_tensors + summary.draft.num_tensors);
    EXPECT_EQ(total.parameters, summary.main.parameters + summary.draft.parameters);
    EXPECT_EQ(total.bytes, summary.main.bytes + summary.draft.bytes);
  }
}

TEST(SummarizeDirectory, DescribesTheDemoModel) {
  const auto summary = SummarizeDirectory("models/demo");
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->main.parameters, 25261875);
  EXPECT_EQ(summary->active_parameters, 4397171);
  EXPECT_EQ(summary->draft.parameters, 5091547);
  EXPECT_EQ(summary->engram_rows, EngramRowFormat::kFp8);
  EXPECT_THAT(summary->digest, testing::MatchesRegex("[0-9a-f]{64}"));
  EXPECT_THAT(summary->ignored, testing::Contains("README.md"));
  EXPECT_THAT(summary->ignored,
              testing::Not(testing::Contains("model-00001-of-00002.safetensors")));
  const auto checkpoint = Checkpoint::Open("models/demo");
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_EQ(summary->main.bytes + summary->draft.bytes,
            static_cast<int64_t>((*checkpoint)->total_bytes()));
  EXPECT_EQ(summary->main.num_tensors + summary->draft.num_tensors,
            static_cast<int64_t>((*checkpoint)->names().size()));
}

class FolderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "model_summary_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    std::filesystem::copy("models/demo/config.json", folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(FolderTest, ConfigAloneIsEnough) {
  const auto summary = SummarizeDirectory(folder_);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->main.parameters, 25261875);
  EXPECT_TRUE(summary->digest.empty());
}

TEST_F(FolderTest, CodeAndTemplatesAreListedAsIgnored) {
  std::ofstream(folder_ + "/modeling.py") << "raise SystemExit";
  std::ofstream(folder_ + "/tokenizer_config.json") << R"({"chat_template":"{{ x }}"})";
  std::ifstream in(folder_ + "/config.json");
  nlohmann::json config = nlohmann::json::parse(in);
  config["auto_map"] = {{"AutoModel", "modeling.Model"}};
  std::ofstream(folder_ + "/config.json") << config;
  const auto summary = SummarizeDirectory(folder_);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_THAT(summary->ignored, ElementsAre("config.json: auto_map", "modeling.py",
                                            "tokenizer_config.json: chat_template"));
}

TEST_F(FolderTest, BrokenCheckpointIsAnErrorNotASummary) {
  std::ofstream(folder_ + "/model.safetensors") << "short";
  EXPECT_EQ(SummarizeDirectory(folder_).status().code(), absl::StatusCode::kDataLoss);
  std::ofstream(folder_ + "/model.safetensors") << std::string("\2\0\0\0\0\0\0\0{}", 10);
  const absl::Status missing = SummarizeDirectory(folder_).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("is missing"));
}

TEST(FormatSummary, ShowsChoicesCountsAndTables) {
  const auto summary = SummarizeDirectory("models/demo");
  ASSERT_TRUE(summary.ok()) << summary.status();
  const std::string text = FormatSummary(*summary);
  for (const char* part :
       {"v4_mla (deepseek_v4_mla)", "5 layers (1 dense)", "top 16 of 256",
        "contract v41, orders 2..4", "36560 rows x 33 B", "25.26 M parameters (25261875)",
        "4.40 M parameters (4397171), 17.41 %", "1 MTP layer", "routed expert", "mxfp4",
        "sha256:"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(FormatSummaryJson, IsOneObjectWithTheSameNumbers) {
  const ModelSummary summary = SummaryOf("models/demo/config.json");
  const nlohmann::json json = nlohmann::json::parse(FormatSummaryJson(summary));
  EXPECT_EQ(json["family"], "v4_mla");
  EXPECT_EQ(json["choices"]["engram"], "v41");
  EXPECT_EQ(json["total_parameters"], 25261875);
  EXPECT_EQ(json["active_parameters"], 4397171);
  EXPECT_EQ(json["engram_tables"][1]["rows"], 37956);
  EXPECT_TRUE(json["digest"].is_null());
  EXPECT_GT(json["formats"]["mxfp4"]["bytes"], 0);
}

}  // namespace
}  // namespace tessera::model
