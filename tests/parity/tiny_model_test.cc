// Models of other shapes than the demo's (tests/testing/tiny_checkpoint.h): every traced
// tensor in float32, on both backends, against float64 on `reference`; and the same bits
// however a prompt is cut into steps.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "tests/testing/tiny_checkpoint.h"
#include "worker/runner/trace_program.h"
#include "worker/runner/trace_recorder.h"

namespace tessera {
namespace {

using ::tessera::testing::TinyModel;
using ::tessera::testing::TinyPrompt;
using TracedTensors = std::map<std::string, worker::RecordedTensor>;

constexpr uint64_t kSeed = 20261;
constexpr int64_t kPromptLength = 45;
constexpr int64_t kMaxTokens = 64;
// Of float32, as max|a-b| / max|b|: that of the demo's manifest.
constexpr double kTolerance = 1e-4;

class TinyModelParity : public ::testing::TestWithParam<TinyModel> {
 protected:
  void SetUp() override {
    SCOPED_TRACE(fmt::format("seed {}", kSeed));
    std::string directory = ::testing::TempDir() + "tiny_model_XXXXXX";
    ASSERT_NE(mkdtemp(directory.data()), nullptr);
    directory_ = directory;
    const absl::Status written =
        testing::WriteTinyCheckpoint(GetParam(), kSeed, directory);
    ASSERT_TRUE(written.ok()) << written;
    auto model = cli::LoadModel(directory);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  void TearDown() override { std::filesystem::remove_all(directory_); }

  // One prompt on one rank, `chunk` tokens a step (0: all in one).
  TracedTensors Trace(const std::string& backend, model::DType dtype, int64_t chunk) {
    const auto engram = cli::ResidentEngram(*model_, Clock::Real());
    EXPECT_TRUE(engram.ok()) << engram.status();
    cli::RankOptions options;
    options.backend = backend;
    options.dtype = dtype;
    options.runner.max_tokens = kMaxTokens;
    options.runner.num_blocks = 16;
    options.runner.max_model_len = 256;
    auto ranks = cli::AssembleLocalGroup(*model_, {}, options, *engram, Clock::Real());
    if (!ranks.ok()) {
      ADD_FAILURE() << ranks.status();
      return {};
    }
    worker::TraceRecorder recorder({});
    const auto ids =
        worker::RunTrace(model_->config,
                         {.ids = TinyPrompt(GetParam(), kPromptLength, kSeed),
                          .chunk = chunk,
                          .placement_version = 1},
                         kMaxTokens, *(*ranks)[0].runner, &recorder);
    EXPECT_TRUE(ids.ok()) << ids.status();
    return recorder.Finish(true);
  }

  // The same on a group of rank threads; what rank 0 recorded.
  TracedTensors TraceSharded(const cli::GroupShape& shape) {
    const auto engram = cli::ResidentEngram(*model_, Clock::Real());
    EXPECT_TRUE(engram.ok()) << engram.status();
    cli::RankOptions options;
    options.runner.max_tokens = kMaxTokens;
    options.runner.num_blocks = 16;
    options.runner.max_model_len = 256;
    auto ranks = cli::AssembleLocalGroup(*model_, shape, options, *engram, Clock::Real());
    if (!ranks.ok()) {
      ADD_FAILURE() << ranks.status();
      return {};
    }
    worker::TraceRecorder recorder({});
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < ranks->size(); ++rank) {
      threads.emplace_back([&, rank] {
        const auto ids = worker::RunTrace(
            model_->config,
            {.ids = TinyPrompt(GetParam(), kPromptLength, kSeed),
             .placement_version = 1,
             .idle = static_cast<int>(rank) >= shape.tp},
            kMaxTokens, *(*ranks)[rank].runner, rank == 0 ? &recorder : nullptr);
        EXPECT_TRUE(ids.ok()) << ids.status();
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    return recorder.Finish(true);
  }

  std::string directory_;
  std::unique_ptr<cli::LoadedModel> model_;
};

double RelativeDifference(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return difference / std::max(largest, 1e-30);
}

// What a trace of the model holds at least.
size_t NumTensors(const model::ModelConfig& config) {
  const auto layers = static_cast<size_t>(config.num_layers);
  const auto moe = static_cast<size_t>(config.num_layers - config.num_dense_layers);
  size_t count =
      layers + 2 * moe + 4;  // select, router, hidden and logits, whole and last
  if (config.engram.has_value()) {
    count += 3 * config.engram->layer_ids.size();
  }
  return count + (config.num_draft_layers > 0 ? 3 : 0);
}

void ExpectClose(const TracedTensors& traced, const TracedTensors& expected) {
  ASSERT_EQ(traced.size(), expected.size());
  double worst = 0;
  for (const auto& [name, tensor] : expected) {
    const auto it = traced.find(name);
    ASSERT_NE(it, traced.end()) << name;
    ASSERT_EQ(it->second.shape, tensor.shape) << name;
    const std::vector<double> values = it->second.Values();
    if (tensor.dtype != model::DType::kF32) {
      EXPECT_EQ(values, tensor.Values()) << name;
      continue;
    }
    const double difference = RelativeDifference(values, tensor.Values());
    EXPECT_LE(difference, kTolerance) << name;
    worst = std::max(worst, difference);
  }
  fmt::print("largest relative difference {:.3g}\n", worst);
}

TEST_P(TinyModelParity, Float32AgreesWithFloat64OnEveryTensor) {
  const TracedTensors expected = Trace("reference", model::DType::kF64, 0);
  EXPECT_EQ(expected.size(), NumTensors(model_->config));
  for (const auto& [name, tensor] : expected) {
    if (tensor.dtype != model::DType::kF32) {
      continue;
    }
    for (const double value : tensor.Values()) {
      ASSERT_TRUE(std::abs(value) < 1e3) << name << " " << value;
    }
  }
  for (const char* backend : {"reference", "cpu"}) {
    SCOPED_TRACE(backend);
    ExpectClose(Trace(backend, model::DType::kF32, 0), expected);
  }
}

TEST_P(TinyModelParity, BitsDoNotDependOnHowAPromptIsCut) {
  const TracedTensors expected = Trace("cpu", model::DType::kF32, 0);
  for (const int64_t chunk : {1, 3}) {
    const TracedTensors traced = Trace("cpu", model::DType::kF32, chunk);
    ASSERT_EQ(traced.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      EXPECT_EQ(traced.at(name).data, tensor.data) << name << " at chunk " << chunk;
    }
  }
}

TEST_P(TinyModelParity, BitsDoNotDependOnTheNumberOfRanks) {
  const TracedTensors expected = Trace("cpu", model::DType::kF32, 0);
  for (const int tp : {2, 4, 8}) {
    for (const int dp : {1, 2}) {
      SCOPED_TRACE(fmt::format("tp {} dp {}", tp, dp));
      if (tp * dp > model_->config.moe.num_experts) {
        continue;  // A rank without an expert is refused.
      }
      const TracedTensors sharded = TraceSharded({.tp = tp, .dp = dp});
      ASSERT_EQ(sharded.size(), expected.size());
      for (const auto& [name, tensor] : expected) {
        EXPECT_EQ(sharded.at(name).data, tensor.data) << name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TinyModelParity,
                         ::testing::ValuesIn(testing::TinyModels()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tessera
