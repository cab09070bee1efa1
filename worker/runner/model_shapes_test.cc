#include "worker/runner/model_shapes.h"

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "tests/testing/config_documents.h"
#include "tests/testing/status_matchers.h"

namespace tessera::worker {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::ReadText;

model::ModelConfig Config(const std::string& name) {
  return *model::ParseModelConfig(ReadText("tests/data/configs/" + name + ".json"));
}

absl::Status Check(const std::string& backend_name, const model::ModelConfig& config) {
  const auto backend = kernels::CreateBackend({.name = backend_name});
  EXPECT_THAT(backend, IsOk());
  return (*backend)->CheckShapes(ShapesOf(config));
}

TEST(ModelShapes, EveryPublishedModelFitsTheCpuBackend) {
  for (const char* name :
       {"deepseek_v3", "deepseek_v3.2", "v4_mla_1t_32b_active", "v4_mla_1t_20pct_engram",
        "deepseek_v4_flash", "deepseek_v4_flash_0731", "deepseek_v4_pro",
        "deepseek_v4.1_flash"}) {
    EXPECT_THAT(Check("cpu", Config(name)), IsOk()) << name;
  }
}

struct TooLarge {
  const char* config;
  const char* named;
  std::function<void(model::ModelConfig*)> change;
};

TEST(ModelShapes, WhatAnOpHasNoScratchForIsRefusedByNameAndByCpuAlone) {
  const TooLarge cases[] = {
      {"deepseek_v3.2", "index_topk", [](auto* c) { c->indexer.topk = 8193; }},
      {"deepseek_v4_flash", "index_topk", [](auto* c) { c->indexer.topk = 8193; }},
      {"deepseek_v4.1_flash", "candidate blocks",
       [](auto* c) { c->compressed.candidate_blocks = 8193; }},
      {"deepseek_v4.1_flash", "candidate block",
       [](auto* c) { c->compressed.candidate_block_size = 4097; }},
      {"deepseek_v4_flash", "shared rows",
       [](auto* c) { c->compressed.head_dim = 2048; }},
      {"deepseek_v3.2", "index heads", [](auto* c) { c->indexer.num_heads = 1024; }},
      {"deepseek_v3", "latents", [](auto* c) { c->mla.kv_lora_rank = 4096; }},
      {"deepseek_v3", "rows of a head", [](auto* c) { c->mla.qk_nope_head_dim = 8192; }},
      {"deepseek_v3", "longest row", [](auto* c) { c->dense_width = 65536; }},
      {"deepseek_v3", "expert groups", [](auto* c) { c->moe.num_groups = 512; }},
      {"deepseek_v4_flash", "longest row", [](auto* c) { c->moe.expert_width = 65536; }},
      {"deepseek_v4_flash", "compressed entry",
       [](auto* c) { c->compressed.ratios.front() = 16384; }},
  };
  for (const TooLarge& too_large : cases) {
    model::ModelConfig config = Config(too_large.config);
    too_large.change(&config);
    const absl::Status status = Check("cpu", config);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << too_large.named;
    EXPECT_THAT(std::string(status.message()), HasSubstr(too_large.named));
    EXPECT_THAT(Check("reference", config), IsOk()) << too_large.named;
  }
}

}  // namespace
}  // namespace tessera::worker
