#include "model/tensors/dummy_checkpoint.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"
#include "model/tensors/tensor_inventory.h"
#include "tests/testing/config_documents.h"

namespace tessera::model {
namespace {

std::unique_ptr<Checkpoint> Make(const ModelConfig& config, uint64_t seed,
                                 const char* identity = "") {
  return MakeDummyCheckpoint(config, seed, identity).value();
}

TEST(MakeDummyCheckpoint, HoldsWhatTheConfigAsksFor) {
  for (const char* folder : {"v3", "v3_bf16", "v32", "v4", "v4_0731"}) {
    const ModelConfig config =
        LoadModelConfig(std::string("tests/data/") + folder).value();
    const std::unique_ptr<Checkpoint> checkpoint = Make(config, 1);
    EXPECT_TRUE(ValidateCheckpoint(config, *checkpoint).ok())
        << ValidateCheckpoint(config, *checkpoint);
    const std::unique_ptr<Checkpoint> files =
        Checkpoint::Open(std::string("tests/data/") + folder).value();
    EXPECT_EQ(checkpoint->names(), files->names()) << folder;
  }
}

TEST(MakeDummyCheckpoint, BringsItsTokenMap) {
  const ModelConfig config = LoadModelConfig("tests/data/v41").value();
  const std::unique_ptr<Checkpoint> checkpoint = Make(config, 1);
  const TensorRef map = checkpoint->Find("engram.compressed_ids").value();
  std::vector<int32_t> ids(320);
  ASSERT_EQ(map.data.size(), ids.size() * sizeof(int32_t));
  std::copy_n(reinterpret_cast<const int32_t*>(map.data.data()), ids.size(), ids.data());
  EXPECT_EQ(*std::max_element(ids.begin(), ids.end()),
            config.engram->compressed_vocab_size - 1);
  EXPECT_EQ(*std::min_element(ids.begin(), ids.end()), 0);
}

TEST(MakeDummyCheckpoint, SeedAndIdentityMakeTheDigest) {
  const ModelConfig config = LoadModelConfig("tests/data/v4").value();
  const std::string digest = Make(config, 1)->digest();
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(digest, Make(config, 1)->digest());
  EXPECT_NE(digest, Make(config, 2)->digest());
  EXPECT_NE(digest, Make(config, 1, "another rope_theta")->digest());
}

// Reserving the address space of the largest model costs nothing until it is used.
TEST(MakeDummyCheckpoint, MakesWhatIsAskedForAndNoMore) {
  const std::string path = "tests/data/configs/deepseek_v4_pro.json";
  const ModelConfig config = ParseModelConfig(tessera::testing::ReadText(path)).value();
  const std::unique_ptr<Checkpoint> checkpoint = Make(config, 1);
  EXPECT_GT(checkpoint->total_bytes(), uint64_t{800} << 30);
  const TensorRef once = checkpoint->Find("layers.60.attn_norm.weight").value();
  const TensorRef again = checkpoint->Find("layers.60.attn_norm.weight").value();
  EXPECT_EQ(once.data.data(), again.data.data());
  EXPECT_FALSE(checkpoint->Find("layers.61.attn_norm.weight").ok());
}

}  // namespace
}  // namespace tessera::model
