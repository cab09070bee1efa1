// Numerics fp8-g128 of whole models: the reference's logits do not depend on the batch,
// the chunks or the parallelism, and the simulated cuda has their bits, alone and over
// tensor-parallel ranks. Two models: the demo, whose experts are FP4 and whose cut
// contractions are too short for FP8; and a tiny one whose experts are FP8 and whose cut
// contractions are not.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "cli/cell_options.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "model/tensors/checkpoint.h"
#include "tests/integration/group_harness.h"
#include "tests/testing/tiny_checkpoint.h"

namespace tessera {
namespace {

using ::tessera::testing::GroupHarness;
using ::tessera::testing::HarnessOptions;
using ::tessera::testing::SequenceOutput;
using ::tessera::testing::TinyModel;

constexpr int64_t kNumTokens = 2;

struct Served {
  std::unique_ptr<cli::LoadedModel> model;
  cli::EngramSourceFactory engram;
  std::vector<std::vector<int32_t>> prompts;
};

Served Load(const std::string& folder) {
  Served served;
  auto model = cli::LoadModel(folder);
  EXPECT_TRUE(model.ok()) << model.status();
  served.model = std::move(*model);
  auto engram = cli::ResidentEngram(*served.model, Clock::Real());
  EXPECT_TRUE(engram.ok()) << engram.status();
  served.engram = *std::move(engram);
  return served;
}

Served Demo() {
  Served served = Load("models/demo");
  const auto golden = model::Checkpoint::OpenFile("tests/data/demo/golden.safetensors");
  EXPECT_TRUE(golden.ok()) << golden.status();
  const auto tensor = (*golden)->Find("prompt300.ids");
  const auto* ids = reinterpret_cast<const int32_t*>(tensor->data.data());
  served.prompts = {{ids, ids + 1}, {ids + 10, ids + 14}, {ids, ids + 8}};
  return served;
}

// Leaves of o_proj, over 8 heads of 128 values, and of the dense down projection are of
// 128 inputs.
Served Tiny(const TinyModel& tiny = testing::TinyFp8Experts()) {
  const std::string folder = ::testing::TempDir() + "/fp8_numerics_" + tiny.name;
  std::filesystem::create_directories(folder);
  const absl::Status written = testing::WriteTinyCheckpoint(tiny, 5, folder);
  EXPECT_TRUE(written.ok()) << written;
  Served served = Load(folder);
  for (const int64_t length : {1, 6, 21}) {
    served.prompts.push_back(testing::TinyPrompt(tiny, length, 7));
  }
  return served;
}

HarnessOptions Options(std::string_view backend, std::string_view numerics, int tp,
                       int64_t chunk) {
  HarnessOptions options;
  options.shape = {.tp = tp, .dp = 1};
  options.rank.backend = backend;
  options.rank.numerics = numerics;
  options.rank.runner.num_blocks = 64;
  options.rank.runner.max_model_len = 128;
  options.rank.runner.decode_graphs = false;
  options.step_timeout = absl::Minutes(30);
  options.max_batched_tokens = chunk;
  options.prefix_caching = false;
  return options;
}

// collective_bytes (out): what the steps of all ranks but those of a TP group booked.
std::vector<SequenceOutput> Run(const Served& served, const HarnessOptions& options,
                                const std::vector<std::vector<int32_t>>& prompts,
                                uint64_t* collective_bytes = nullptr) {
  auto harness = GroupHarness::Create(*served.model, options, served.engram);
  EXPECT_TRUE(harness.ok()) << harness.status();
  if (!harness.ok()) {
    return {};
  }
  auto outputs = (*harness)->Run(prompts, kNumTokens);
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  if (collective_bytes != nullptr) {
    *collective_bytes = (*harness)->totals().collective_bytes;
  }
  return outputs.ok() ? *std::move(outputs) : std::vector<SequenceOutput>();
}

// The reference's, each prompt alone.
std::vector<SequenceOutput> Baseline(const Served& served, std::string_view numerics) {
  std::vector<SequenceOutput> expected;
  for (const std::vector<int32_t>& prompt : served.prompts) {
    auto outputs = Run(served, Options("reference", numerics, 1, 64), {prompt});
    expected.insert(expected.end(), outputs.begin(), outputs.end());
  }
  return expected;
}

void ExpectSame(const std::vector<SequenceOutput>& outputs,
                const std::vector<SequenceOutput>& expected) {
  ASSERT_EQ(outputs.size(), expected.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    EXPECT_EQ(outputs[i].tokens, expected[i].tokens) << "prompt " << i;
    size_t compared = 0;
    for (const auto& [position, hash] : expected[i].logits_of_position) {
      const auto it = outputs[i].logits_of_position.find(position);
      // Steps that run ahead may compute one token past the end.
      if (it != outputs[i].logits_of_position.end()) {
        ++compared;
        ASSERT_EQ(it->second, hash) << "prompt " << i << " position " << position;
      }
    }
    EXPECT_GE(compared, static_cast<size_t>(kNumTokens)) << "prompt " << i;
  }
}

using Group = std::tuple<std::string_view, int, int64_t>;  // backend, tp, chunk

void CheckModel(const Served& served, const std::vector<Group>& groups) {
  const std::vector<SequenceOutput> expected = Baseline(served, "fp8-g128");
  ASSERT_EQ(expected.size(), served.prompts.size());
  EXPECT_NE(expected.back().logits_of_position,
            Baseline(served, "f32").back().logits_of_position);
  for (const auto& [backend, tp, chunk] : groups) {
    SCOPED_TRACE(fmt::format("{}, tp {}, chunks of {}", backend, tp, chunk));
    ExpectSame(Run(served, Options(backend, "fp8-g128", tp, chunk), served.prompts),
               expected);
  }
}

TEST(Fp8Numerics, OfTheDemoModelHaveOneSetOfBits) {
  CheckModel(Demo(), {{"reference", 2, 5}, {"reference", 8, 64}, {"cuda", 1, 6}});
}

TEST(Fp8Numerics, OfFp8ExpertsAndCutContractionsHaveOneSetOfBits) {
  CheckModel(
      Tiny(),
      {{"reference", 2, 5}, {"reference", 8, 64}, {"cuda", 1, 64}, {"cuda", 2, 9}});
}

// What goes to the experts is rounded before the wire or behind it; the bytes tell which.
// Other numerics have one format, and so have experts that do not round their rows.
void CheckFormatsOnTheWire(const Served& served, bool experts_round = true) {
  const std::vector<SequenceOutput> expected = Baseline(served, "fp8-g128");
  for (const cli::GroupShape& shape :
       {cli::GroupShape{.tp = 2}, cli::GroupShape{.dp = 2},
        cli::GroupShape{.tp = 2, .dp = 2, .ranks_per_node = 2}}) {
    SCOPED_TRACE(fmt::format("tp {} dp {}", shape.tp, shape.dp));
    const auto bytes_of = [&](std::string_view numerics, bool fp8_dispatch) {
      HarnessOptions options = Options("reference", numerics, 1, 64);
      options.shape = shape;
      options.rank.runner.fp8_dispatch = fp8_dispatch;
      uint64_t bytes = 0;
      const auto outputs = Run(served, options, served.prompts, &bytes);
      if (numerics == "fp8-g128") {
        ExpectSame(outputs, expected);
      }
      return bytes;
    };
    const uint64_t floats = bytes_of("fp8-g128", false);
    const uint64_t by_default = bytes_of("fp8-g128", true);
    EXPECT_TRUE(experts_round ? by_default < floats : by_default == floats)
        << by_default << " bytes, with float32 " << floats;
    EXPECT_EQ(bytes_of("f32", true), floats);
  }
}

TEST(Fp8Numerics, OfFp4ExpertsDoNotDependOnTheFormatOfRowsOnTheWire) {
  CheckFormatsOnTheWire(Demo());
}

TEST(Fp8Numerics, OfFp8ExpertsDoNotDependOnTheFormatOfRowsOnTheWire) {
  CheckFormatsOnTheWire(Tiny());
}

TEST(Fp8Numerics, OfBf16ExpertsSendFloats) {
  for (const TinyModel& tiny : testing::TinyModels()) {
    if (tiny.name == "no_shared_experts") {
      CheckFormatsOnTheWire(Tiny(tiny), false);
    }
  }
}

}  // namespace
}  // namespace tessera
