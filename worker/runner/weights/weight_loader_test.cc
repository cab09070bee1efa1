#include "worker/runner/weights/weight_loader.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"
#include "model/tensors/tensor_inventory.h"
#include "tests/testing/patched_checkpoint.h"
#include "tests/testing/status_matchers.h"

namespace tessera::worker {
namespace {

using ::tessera::testing::PatchedCheckpoint;
using ::tessera::testing::StatusIs;
using ::testing::HasSubstr;

struct Model {
  model::ModelConfig config;
  std::unique_ptr<model::Checkpoint> checkpoint;
};

Model Open(const std::string& folder) {
  return {model::LoadModelConfig(folder).value(),
          model::Checkpoint::Open(folder).value()};
}

// The experts of rank `rank` of `ranks`, in stretches.
std::vector<int> Experts(int64_t num_experts, int rank, int ranks) {
  std::vector<int> experts;
  for (int64_t expert = num_experts * rank / ranks;
       expert < num_experts * (rank + 1) / ranks; ++expert) {
    experts.push_back(static_cast<int>(expert));
  }
  return experts;
}

// Weights of all ranks of one TP group, whose ranks share the experts.
std::vector<LoadedWeights> LoadGroup(const model::ModelConfig& config,
                                     const model::Checkpoint& checkpoint, int ranks) {
  std::vector<LoadedWeights> group;
  for (int rank = 0; rank < ranks; ++rank) {
    const std::vector<int> experts = Experts(config.moe.num_experts, rank, ranks);
    const std::vector<int> drafts = Experts(config.draft_moe.num_experts, rank, ranks);
    auto loaded = LoadWeights(checkpoint, config,
                              {.tp_rank = rank,
                               .tp_size = ranks,
                               .local_experts = experts,
                               .draft_experts = drafts});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    group.push_back(*std::move(loaded));
  }
  return group;
}

LoadedWeights LoadWhole(const model::ModelConfig& config,
                        const model::Checkpoint& checkpoint) {
  return std::move(LoadGroup(config, checkpoint, 1).front());
}

// How many ranks hold each byte of each tensor.
class Coverage {
 public:
  explicit Coverage(const model::Checkpoint& checkpoint) {
    for (const std::string& name : checkpoint.names()) {
      const model::TensorRef tensor = checkpoint.Find(name).value();
      tensors_[tensor.data.data()] = {name, std::vector<int>(tensor.data.size())};
    }
  }

  void Add(const LoadedWeights& loaded) {
    for (const ByteRegion& region : loaded.regions) {
      for (int64_t row = 0; row < region.rows; ++row) {
        AddRange(region.data + row * region.stride, region.bytes);
      }
    }
  }

  // Smallest and largest number of ranks over the bytes of a tensor.
  std::array<int, 2> Ranks(const model::Checkpoint& checkpoint,
                           const std::string& name) const {
    const Tensor& tensor = tensors_.at(checkpoint.Find(name).value().data.data());
    const auto [low, high] =
        std::minmax_element(tensor.count.begin(), tensor.count.end());
    return {*low, *high};
  }

 private:
  struct Tensor {
    std::string name;
    std::vector<int> count;
  };

  void AddRange(const std::byte* begin, int64_t bytes) {
    auto at = tensors_.upper_bound(begin);
    ASSERT_NE(at, tensors_.begin());
    --at;
    const auto offset = static_cast<size_t>(begin - at->first);
    ASSERT_LE(offset + static_cast<size_t>(bytes), at->second.count.size())
        << at->second.name;
    for (size_t i = 0; i < static_cast<size_t>(bytes); ++i) {
      ++at->second.count[offset + i];
    }
  }

  std::map<const std::byte*, Tensor> tensors_;
};

// Split between the ranks of a TP group or of an expert group; all else is replicated.
bool IsSplit(std::string_view name) {
  for (const std::string_view part :
       {"lm_head.", ".q_b_proj.", ".kv_b_proj.", ".o_proj.", ".experts.",
        "mlp.gate_proj.", "mlp.up_proj.", "mlp.down_proj.", "shared_experts.",
        "attn.wq_b.", "attn.wo_a.", "attn.wo_b.", "attn_sink", "markov_head.markov_w2.",
        "markov_head.head."}) {
    if (name.find(part) != std::string_view::npos) {
      return name.find("shared_head") == std::string_view::npos;
    }
  }
  return name == "head.weight";
}

bool IsScale(std::string_view name) {
  return name.ends_with(".scale") || name.ends_with("_scale_inv");
}

bool IsExpert(std::string_view name) {
  return name.find(".experts.") != std::string_view::npos;
}

class LoadWeightsOf : public ::testing::TestWithParam<const char*> {};

// Each byte that the model uses is held by one rank, or by every rank where the tensor is
// whole on all of them. A block scale at the edge of two parts belongs to both.
TEST_P(LoadWeightsOf, RanksHoldEveryByteOnceOrAll) {
  const Model model = Open(GetParam());
  for (const int ranks : {1, 2, 4}) {
    Coverage coverage(*model.checkpoint);
    for (const LoadedWeights& loaded :
         LoadGroup(model.config, *model.checkpoint, ranks)) {
      coverage.Add(loaded);
    }
    for (const model::ExpectedTensor& tensor : model::TensorInventory(
             model.config, model::DefaultEngramRowFormat(model.config))) {
      const auto [low, high] = coverage.Ranks(*model.checkpoint, tensor.name);
      const bool is_copy =
          tensor.name.ends_with("shared_head.head.weight") ||
          (tensor.layer >= 0 && tensor.name.ends_with("embed_tokens.weight"));
      if (tensor.kind == model::TensorKind::kEngramTable ||
          tensor.kind == model::TensorKind::kEngramMap || is_copy) {
        EXPECT_EQ(high, 0) << tensor.name;
      } else if (!IsSplit(tensor.name)) {
        EXPECT_EQ(low, ranks) << tensor.name;
        EXPECT_EQ(high, ranks) << tensor.name;
      } else {
        const bool may_share = IsScale(tensor.name) && !IsExpert(tensor.name);
        EXPECT_GE(low, 1) << tensor.name << " on " << ranks;
        EXPECT_LE(high, may_share ? ranks : 1) << tensor.name << " on " << ranks;
      }
    }
  }
}

TEST_P(LoadWeightsOf, OneRankReadsTheInventoryAndCountsIt) {
  const Model model = Open(GetParam());
  uint64_t expected = 0;
  for (const model::ExpectedTensor& tensor : model::TensorInventory(
           model.config, model::DefaultEngramRowFormat(model.config))) {
    const bool is_copy =
        tensor.name.ends_with("shared_head.head.weight") ||
        (tensor.layer >= 0 && tensor.name.ends_with("embed_tokens.weight"));
    if (tensor.kind != model::TensorKind::kEngramTable &&
        tensor.kind != model::TensorKind::kEngramMap && !is_copy) {
      expected += model.checkpoint->Find(tensor.name).value().data.size();
    }
  }
  EXPECT_EQ(LoadWhole(model.config, *model.checkpoint).bytes, expected);
}

INSTANTIATE_TEST_SUITE_P(Families, LoadWeightsOf,
                         ::testing::Values("models/demo", "tests/data/v3",
                                           "tests/data/v3_bf16", "tests/data/v32",
                                           "tests/data/v4", "tests/data/v4_0731",
                                           "tests/data/v41"));

const CompressedAttentionWeights& Attention(const LayerWeights& layer) {
  return std::get<CompressedAttentionWeights>(layer.attention);
}

TEST(LoadWeights, AttentionOfV4IsCutByHeadsAndByOutputRows) {
  const Model model = Open("tests/data/v4");
  const std::vector<LoadedWeights> group = LoadGroup(model.config, *model.checkpoint, 4);
  const CompressedAttentionWeights& attention = Attention(group[3].weights.layers[1]);
  const auto find = [&](const char* name) {
    return model.checkpoint->Find(std::string("layers.1.attn.") + name)
        .value()
        .data.data();
  };
  // H = 4, D_h = 160, G = 2, R = 48, q = 96, d = 160.
  EXPECT_EQ(attention.q_b.rows, 160);
  EXPECT_EQ(attention.q_b.data, find("wq_b.weight") + 480 * 96);
  EXPECT_EQ(attention.q_b.scale_dtype, model::DType::kF8E8M0);
  EXPECT_EQ(attention.q_b.row_offset, 480);
  EXPECT_EQ(attention.sinks, reinterpret_cast<const float*>(find("attn_sink")) + 3);
  EXPECT_EQ(attention.o_a.rows, 24);
  EXPECT_EQ(attention.o_a.cols, 320);
  EXPECT_EQ(attention.o_a.row_offset, 72);
  EXPECT_EQ(attention.o_b.weight.cols, 24);
  EXPECT_EQ(attention.o_b.weight.col_offset, 72);
  EXPECT_EQ(attention.o_b.split.first_leaf, 6);
  EXPECT_EQ(attention.o_b.split.num_leaves, 2);
  ASSERT_TRUE(attention.compressor.has_value());
  EXPECT_EQ(attention.compressor->kv.rows, 320);
  EXPECT_EQ(attention.compressor->position->rows, 4);
  ASSERT_TRUE(attention.indexer.has_value());
  EXPECT_EQ(attention.indexer->compressor->kv.rows, 128);
  EXPECT_FALSE(attention.indexer->k.has_value());
  // Ratio 128: entries without an indexer; ratio 0: neither.
  const CompressedAttentionWeights& heavy = Attention(group[0].weights.layers[2]);
  EXPECT_EQ(heavy.compressor->position->rows, 128);
  EXPECT_FALSE(heavy.indexer.has_value());
  EXPECT_FALSE(Attention(group[0].weights.layers[0]).compressor.has_value());
}

TEST(LoadWeights, HashLayersHaveATableAndNoBias) {
  const Model model = Open("tests/data/v4");
  const LoadedWeights loaded = LoadWhole(model.config, *model.checkpoint);
  const MoeWeights& hashed = *loaded.weights.layers[0].moe;
  ASSERT_NE(hashed.fixed_experts, nullptr);
  EXPECT_EQ(hashed.router_bias, nullptr);
  const model::TensorRef table =
      model.checkpoint->Find("layers.0.ffn.gate.tid2eid").value();
  EXPECT_EQ(std::memcmp(hashed.fixed_experts, table.data.data(), table.data.size()), 0);
  const MoeWeights& scored = *loaded.weights.layers[1].moe;
  EXPECT_EQ(scored.fixed_experts, nullptr);
  EXPECT_NE(scored.router_bias, nullptr);
  EXPECT_EQ(scored.router_bias_vl, nullptr);
  ASSERT_EQ(loaded.weights.drafts.size(), 1u);
  EXPECT_EQ(loaded.weights.drafts[0].e_proj.rows, 160);
  EXPECT_EQ(loaded.weights.drafts[0].join.data, nullptr);
  EXPECT_FALSE(loaded.weights.dspark.has_value());
}

TEST(LoadWeights, TheBlockDrafterHasItsStagesAndHeads) {
  const Model model = Open("tests/data/v4_0731");
  const std::vector<LoadedWeights> group = LoadGroup(model.config, *model.checkpoint, 2);
  ASSERT_TRUE(group[1].weights.dspark.has_value());
  const DsparkWeights& dspark = *group[1].weights.dspark;
  EXPECT_EQ(dspark.main_proj.cols, 480);
  EXPECT_EQ(dspark.stages.size(), 3u);
  EXPECT_EQ(dspark.markov_embedding.rows, 320);
  EXPECT_EQ(dspark.markov_head.rows, 160);
  EXPECT_EQ(dspark.markov_head.row_offset, 160);
  EXPECT_EQ(dspark.confidence.cols, 160 + 24);
  EXPECT_EQ(dspark.head_hyper.fn.rows, 4);
  EXPECT_TRUE(group[1].weights.drafts.empty());
}

TEST(LoadWeights, V41SharesEntriesAndHandsTheMixOn) {
  const Model model = Open("tests/data/v41");
  const LoadedWeights loaded = LoadWhole(model.config, *model.checkpoint);
  const std::vector<LayerWeights>& layers = loaded.weights.layers;
  EXPECT_EQ(loaded.weights.head_hyper.base, nullptr);
  // Layer 2 makes entries of two tokens, 4 of one, 6 only selects, 3 only reads.
  EXPECT_TRUE(Attention(layers[2]).compressor->gate.has_value());
  EXPECT_FALSE(Attention(layers[2]).compressor->position.has_value());
  EXPECT_TRUE(Attention(layers[2]).indexer->k.has_value());
  EXPECT_FALSE(Attention(layers[4]).compressor->gate.has_value());
  EXPECT_FALSE(Attention(layers[6]).compressor.has_value());
  ASSERT_TRUE(Attention(layers[6]).indexer.has_value());
  EXPECT_FALSE(Attention(layers[6]).indexer->k.has_value());
  EXPECT_FALSE(Attention(layers[3]).indexer.has_value());
  EXPECT_NE(layers[0].moe->router_bias_vl, nullptr);
  EXPECT_TRUE(layers[1].engram.has_value());
  EXPECT_EQ(layers[1].engram->wkv.block_rows, 32);
  ASSERT_TRUE(loaded.weights.dspark.has_value());
  EXPECT_EQ(loaded.weights.dspark->stages[0].moe->experts.size(), 4u);
  EXPECT_EQ(loaded.weights.dspark->head_hyper.base, nullptr);
}

absl::Status LoadPatched(const Model& model, const PatchedCheckpoint& checkpoint) {
  const std::vector<int> experts = Experts(model.config.moe.num_experts, 0, 1);
  const std::vector<int> drafts = Experts(model.config.draft_moe.num_experts, 0, 1);
  return LoadWeights(checkpoint, model.config,
                     {.local_experts = experts, .draft_experts = drafts})
      .status();
}

TEST(LoadWeights, TablesOfExpertsAreCheckedRowByRow) {
  const Model model = Open("tests/data/v4");
  const std::string name = "layers.0.ffn.gate.tid2eid";
  for (const int64_t wrong : {int64_t{8}, int64_t{-1}, int64_t{1} << 40}) {
    PatchedCheckpoint checkpoint(model.checkpoint.get());
    std::memcpy(checkpoint.Patch(name) + 8 * (3 * 17 + 2), &wrong, sizeof(wrong));
    EXPECT_THAT(LoadPatched(model, checkpoint),
                StatusIs(absl::StatusCode::kDataLoss,
                         HasSubstr(name + ": row 17 names expert " +
                                   std::to_string(wrong) + ", expected 0 to 7")));
  }
  PatchedCheckpoint checkpoint(model.checkpoint.get());
  std::byte* const table = checkpoint.Patch(name);
  std::memcpy(table + 8 * (3 * 319), table + 8 * (3 * 319 + 2), 8);
  EXPECT_THAT(LoadPatched(model, checkpoint),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("row 319 names expert")));
}

TEST(LoadWeights, ScalesThatAreNoNumbersAreRefusedByName) {
  const Model v4 = Open("tests/data/v4");
  for (const char* name :
       {"layers.1.attn.wq_b", "layers.3.ffn.experts.5.w2", "layers.2.attn.wo_b",
        "layers.4.ffn.shared_experts.w1", "mtp.0.h_proj"}) {
    PatchedCheckpoint checkpoint(v4.checkpoint.get());
    *checkpoint.Patch(std::string(name) + ".scale") = std::byte{255};
    EXPECT_THAT(LoadPatched(v4, checkpoint),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(name)));
  }
  const Model v3 = Open("tests/data/v3");
  for (const float wrong : {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity()}) {
    PatchedCheckpoint checkpoint(v3.checkpoint.get());
    const std::string name = "model.layers.1.self_attn.kv_b_proj";
    std::memcpy(checkpoint.Patch(name + ".weight_scale_inv"), &wrong, sizeof(wrong));
    EXPECT_THAT(LoadPatched(v3, checkpoint),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(name)));
  }
}

// A rank looks at what it holds: the others find the fault in their part.
TEST(LoadWeights, ARankReadsNoScalesOfAnother) {
  const Model model = Open("tests/data/v4");
  PatchedCheckpoint checkpoint(model.checkpoint.get());
  // Of the last of five blocks of rows, that is of the last two of four heads.
  checkpoint.Patch("layers.1.attn.wq_b.scale")[4] = std::byte{255};
  const std::vector<int> experts = Experts(8, 0, 1);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(LoadWeights(checkpoint, model.config,
                          {.tp_rank = rank, .tp_size = 4, .local_experts = experts})
                  .ok(),
              rank < 3)
        << rank;
  }
}

// Files may hold values at any address.
TEST(LoadWeights, VectorsAtOddAddressesAreReadAsTheyAre) {
  const Model model = Open("tests/data/v4");
  PatchedCheckpoint checkpoint(model.checkpoint.get());
  for (const char* name : {"layers.1.attn.attn_sink", "layers.1.ffn.gate.bias",
                           "layers.0.ffn.gate.tid2eid"}) {
    checkpoint.Patch(name, 1);
  }
  const LoadedWeights moved = LoadWhole(model.config, checkpoint);
  const LoadedWeights whole = LoadWhole(model.config, *model.checkpoint);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(Attention(moved.weights.layers[1]).sinks[i],
              Attention(whole.weights.layers[1]).sinks[i]);
  }
  EXPECT_EQ(moved.weights.layers[1].moe->router_bias[7],
            whole.weights.layers[1].moe->router_bias[7]);
  EXPECT_EQ(moved.weights.layers[0].moe->fixed_experts[959],
            whole.weights.layers[0].moe->fixed_experts[959]);
}

TEST(CheckTensorParallel, SizesThatDoNotDivideTheHeadsAreRefused) {
  const Model model = Open("tests/data/v4");
  EXPECT_TRUE(CheckTensorParallel(model.config, 4).ok());
  EXPECT_THAT(CheckTensorParallel(model.config, 8),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("8 does not divide 4 attention heads")));
  EXPECT_FALSE(CheckTensorParallel(model.config, 3).ok());
}

}  // namespace
}  // namespace tessera::worker
