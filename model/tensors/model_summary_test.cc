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

// As published: 284 B (13 B active), 1.6 T (49 B active), 763 B with tower and drafter,
// 196.6 B of them Engram. The exact counts were made independently.
TEST(SummarizeModel, CountsTheModelsWithEntries) {
  const ModelSummary flash = SummaryOf("tests/data/configs/deepseek_v4_flash.json");
  EXPECT_EQ(flash.main.parameters, 284332240471);
  EXPECT_EQ(flash.active_parameters, 13270105687);
  EXPECT_EQ(flash.draft.parameters, 6610048891);
  EXPECT_EQ(flash.main.num_tensors + flash.draft.num_tensors, 69187);
  EXPECT_EQ(flash.tensors_by_dtype.at(DType::kF8E8M0), 34167);
  const ModelSummary with_drafter =
      SummaryOf("tests/data/configs/deepseek_v4_flash_0731.json");
  EXPECT_EQ(with_drafter.main.parameters, 284332240471);
  EXPECT_EQ(with_drafter.main.num_tensors, 67612);
  EXPECT_EQ(with_drafter.draft.num_tensors, 4705);
  EXPECT_EQ(with_drafter.draft.parameters, 19845850983);
  const ModelSummary pro = SummaryOf("tests/data/configs/deepseek_v4_pro.json");
  EXPECT_EQ(pro.main.parameters, 1572997201763);
  EXPECT_EQ(pro.active_parameters, 48852409187);
  EXPECT_EQ(pro.draft.parameters, 25840145979);
  const ModelSummary v41 = SummaryOf("tests/data/configs/deepseek_v4.1_flash.json");
  EXPECT_EQ(v41.main.parameters, 748494684784 + 485268480);
  EXPECT_EQ(Parameters(v41, TensorKind::kVision), 485268480);
  EXPECT_EQ(Parameters(v41, TensorKind::kEngramTable), 196613849600);
  EXPECT_EQ(v41.active_parameters, 16130606192);
  EXPECT_EQ(v41.draft.parameters, 14225362530);
  EXPECT_EQ(v41.main.num_tensors + v41.draft.num_tensors, 96085);
  EXPECT_THAT(v41.engram_tables, testing::SizeIs(2));
  EXPECT_EQ(v41.engram_tables.front().row_bytes, 264);
}

TEST(FormatSummary, ShowsTheChoicesOfModelsWithEntries) {
  const std::string flash =
      FormatSummary(SummaryOf("tests/data/configs/deepseek_v4_flash.json"));
  for (const char* part :
       {"v4 (deepseek_v4)", "2 of the window alone, 21 of ratio 4, 20 of ratio 128",
        "indexer 64 heads of 128, top 512", "theta 160000, yarn x16 from 65536",
        "sqrt-softplus, top 6 of 256", "the first 3 layers by token id",
        "linears     fp8 128x128", "experts 2048 wide, mxfp4", "1 MTP layer",
        "tensors     69187: 417 F32, 433 BF16, 375 F8_E4M3, 34167 F8_E8M0, 33792 I8, 3 "
        "I64"}) {
    EXPECT_THAT(flash, HasSubstr(part));
  }
  const std::string v41 =
      FormatSummary(SummaryOf("tests/data/configs/deepseek_v4.1_flash.json"));
  for (const char* part :
       {"mHC in one pass", "2 of the window alone, 20 of ratio 1, 18 of ratio 2",
        "DSpark, 3 layers, 5 tokens at once", "linears     fp8 32x32",
        "vision      32 layers", "384006168 rows x 264 B", "tensors     96085:"}) {
    EXPECT_THAT(v41, HasSubstr(part));
  }
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
