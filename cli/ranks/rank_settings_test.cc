#include "cli/ranks/rank_settings.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::cli {
namespace {

using proto::MemberSetting;

// The names of the settings that differ.
std::vector<std::string> Differences(const std::vector<MemberSetting>& a,
                                     const std::vector<MemberSetting>& b) {
  std::vector<std::string> names;
  EXPECT_EQ(a.size(), b.size());
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    EXPECT_EQ(a[i].name, b[i].name);
    if (a[i].value != b[i].value) {
      names.push_back(a[i].name);
    }
  }
  return names;
}

class RankSettings : public ::testing::Test {
 protected:
  RankSettings() {
    std::string pattern = ::testing::TempDir() + "rank_settings_XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    std::filesystem::copy("tests/data/v41", folder_,
                          std::filesystem::copy_options::recursive);
    model_ = Load();
  }
  ~RankSettings() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<LoadedModel> Load() const {
    auto model = LoadModel(folder_);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : nullptr;
  }

  // Changes the bytes of a safetensors file behind its header.
  void Patch(const std::string& name, const std::function<void(std::string*)>& change) {
    const std::string path = folder_ + "/" + name;
    std::ifstream in(path, std::ios::binary);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    uint64_t header = 0;
    ASSERT_GT(text.size(), sizeof(header));
    std::memcpy(&header, text.data(), sizeof(header));
    std::string data = text.substr(sizeof(header) + header);
    change(&data);
    // A file of its own: the old one is mapped.
    std::ofstream(path + ".new", std::ios::binary)
        << text.substr(0, sizeof(header) + header) << data;
    std::filesystem::rename(path + ".new", path);
  }

  std::vector<std::string> AfterPatch() const {
    const auto patched = Load();
    EXPECT_EQ(patched->checkpoint->digest(), model_->checkpoint->digest())
        << "else the digest of the model says it already";
    return Differences(RankSettingsOf(*model_, {}, {}), RankSettingsOf(*patched, {}, {}));
  }

  std::string folder_;
  std::unique_ptr<LoadedModel> model_;
};

TEST_F(RankSettings, HoldWhatChangesBitsOrTheLayoutOfMemory) {
  const auto changes = [&](const std::function<void(RankOptions*)>& change) {
    RankOptions options;
    change(&options);
    return Differences(RankSettingsOf(*model_, {}, {}),
                       RankSettingsOf(*model_, options, {}));
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(changes([](auto* o) { o->runner.block_size = 32; }), Names{"block-size"});
  EXPECT_EQ(changes([](auto* o) { o->runner.num_blocks = 7; }), Names{"num-kv-blocks"});
  EXPECT_EQ(changes([](auto* o) { o->runner.num_tail_blocks = 7; }),
            Names{"num-tail-blocks"});
  EXPECT_EQ(changes([](auto* o) { o->runner.num_host_blocks = 7; }),
            Names{"num-host-blocks"});
  EXPECT_EQ(changes([](auto* o) { o->runner.num_host_tail_blocks = 7; }),
            Names{"num-host-tail-blocks"});
  EXPECT_EQ(changes([](auto* o) { o->runner.num_disk_blocks = 7; }),
            Names{"num-disk-blocks"});
  EXPECT_EQ(changes([](auto* o) { o->runner.num_disk_tail_blocks = 7; }),
            Names{"num-disk-tail-blocks"});
  EXPECT_EQ(changes([](auto* o) { o->runner.max_disk_copies = 7; }),
            Names{"max-disk-copies"});
  EXPECT_EQ(changes([](auto* o) { o->prefill_ranks = 1; }), Names{"prefill-ranks"});
  EXPECT_EQ(changes([](auto* o) { o->runner.max_transfers = 7; }),
            Names{"kv-transfer-mib"});
  EXPECT_EQ(changes([](auto* o) { o->runner.max_model_len = 7; }),
            Names{"max-model-len"});
  EXPECT_EQ(changes([](auto* o) { o->runner.max_slots = 7; }), Names{"max-num-seqs"});
  EXPECT_EQ(changes([](auto* o) { o->runner.max_tokens = 7; }),
            Names{"max-num-batched-tokens"});
  EXPECT_EQ(changes([](auto* o) { o->runner.num_speculative_tokens = 2; }),
            Names{"speculative-tokens"});
  EXPECT_EQ(changes([](auto* o) { o->runner.min_draft_chance = 0.5; }),
            Names{"min-draft-chance"});
  EXPECT_EQ(
      changes([](auto* o) { o->runner.kv_cache_dtype = worker::KvCacheDtype::kFp8; }),
      Names{"kv-cache-dtype"});
  EXPECT_EQ(changes([](auto* o) { o->runner.exchange_rounds.reset(); }),
            Names{"exchange-overlap"});
  EXPECT_EQ(changes([](auto* o) { o->placement_version = 2; }),
            Names{"placement-version"});
  EXPECT_EQ(Differences(RankSettingsOf(*model_, {}, {.tp = 2, .dp = 1}),
                        RankSettingsOf(*model_, {}, {.tp = 1, .dp = 2})),
            (Names{"tensor-parallel-size", "data-parallel-size"}));
}

TEST_F(RankSettings, LeaveOutWhatMayDifferBetweenMachines) {
  RankOptions options;
  options.num_threads = 7;
  options.cpu_isa = "scalar";
  options.runner.engram_timeout = absl::Seconds(77);
  options.runner.decode_graphs = true;
  options.runner.decode_graph_time = absl::Seconds(7);
  options.runner.decode_graph_bytes = 7;
  EXPECT_EQ(RankSettingsOf(*model_, {}, {}), RankSettingsOf(*model_, options, {}));
}

TEST_F(RankSettings, AnotherTokenMapOfEngramIsAnotherSetting) {
  Patch("compressed_ids.safetensors", [](std::string* data) {
    // Two ids change places: the map stays one of the same size.
    int32_t ids[2] = {};
    ASSERT_GE(data->size(), sizeof(ids));
    std::memcpy(ids, data->data(), sizeof(ids));
    ASSERT_NE(ids[0], ids[1]);
    std::swap(ids[0], ids[1]);
    std::memcpy(data->data(), ids, sizeof(ids));
  });
  EXPECT_EQ(AfterPatch(), std::vector<std::string>{"engram-token-map"});
}

TEST_F(RankSettings, OtherWeightsOfTheSameShapesAreAnotherSetting) {
  Patch("model.safetensors", [](std::string* data) {
    for (char& byte : *data) {
      byte = static_cast<char>(byte ^ 1);
    }
  });
  EXPECT_EQ(AfterPatch(), std::vector<std::string>{"weights"});
}

}  // namespace
}  // namespace tessera::cli
