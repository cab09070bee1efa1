// Compressed attention at shapes that the recordings do not have: dummy weights of the V4
// families with other heads, groups, windows, ratios and sources; every traced tensor in
// float32, on both backends, against float64 on `reference`, and the same bits however
// group and steps are cut.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "worker/runner/trace_program.h"
#include "worker/runner/trace_recorder.h"

namespace tessera {
namespace {

using Tensors = std::map<std::string, worker::RecordedTensor>;

// Decides no near tie of the compared tokens by rounding.
constexpr uint64_t kSeed = 21;
constexpr int64_t kPromptLength = 75;
// Of what float32 and float64 are compared on: the more tokens, the likelier that one of
// them meets a near tie or the edge of a quantisation step, which float32 may decide the
// other way.
constexpr int64_t kComparedLength = 33;
// Of float32, as max|a-b| / max|b|.
constexpr double kTolerance = 1e-4;
constexpr int64_t kMaxTokens = 96;
constexpr int64_t kBlocks = 8;

struct Shape {
  std::string name;
  std::string folder;
  int max_tp = 8;
  std::vector<std::string> overrides;
};

void PrintTo(const Shape& shape, std::ostream* os) { *os << shape.name; }

std::vector<Shape> Shapes() {
  return {
      // A window that ends inside the prompt, and a top-k far below the entries.
      {"small_window",
       "tests/data/v4",
       4,
       {"sliding_window=7", "index_topk=3", "hc_mult=2"}},
      // Every layer overlaps; three groups over two ranks; one head per indexer.
      {"overlapping",
       "tests/data/v4",
       2,
       {"num_attention_heads=6", "o_groups=3", "o_lora_rank=21", "index_n_heads=1",
        "compress_ratios=[4,4,4,4,4,0]", "num_hash_layers=5"}},
      // No layer without entries, one group, no layer by hash.
      {"one_group",
       "tests/data/v4",
       8,
       {"num_attention_heads=8", "o_groups=1", "compress_ratios=[128,4,128,4,128,0]",
        "num_hash_layers=0", "sliding_window=16", "n_routed_experts=17"}},
      {"blocks_of_two",
       "tests/data/v4_0731",
       8,
       {"num_attention_heads=8", "o_groups=8", "dspark_block_size=2",
        "dspark_target_layer_ids=[0,4]", "sliding_window=9", "n_routed_experts=16"}},
      // Entries of one source for all layers, selections of two.
      {"one_source",
       "tests/data/v41",
       8,
       {"num_attention_heads=8", "o_groups=4", "compress_ratios=[0,0,1,1,1,1,1,1,0,0,0]",
        "kv_source_layer_ids=[2]", "index_source_layer_ids=[2,5]",
        "candidate_source_layer_id=2", "candidate_topk_blocks=3",
        "candidate_block_size=2", "index_topk=5", "sliding_window=11",
        "dspark_n_routed_experts=3", "engram_layer_ids=[0,7]"}},
  };
}

class CompressedShapes : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    auto model = cli::LoadModel(
        GetParam().folder,
        {.format = "dummy", .seed = kSeed, .overrides = GetParam().overrides});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  worker::TraceRequest Request(int64_t length) const {
    worker::TraceRequest request;
    for (int64_t i = 0; i < length; ++i) {
      request.ids.push_back(static_cast<int32_t>((i * i * 7 + 3 * i + 11) % 251));
    }
    request.greedy_tokens = 3;
    request.block_size = model_->config.default_block_size();
    request.placement_version = 1;
    return request;
  }

  // What rank 0 recorded of a group of rank threads, `chunk` tokens a step.
  Tensors Trace(const char* backend, model::DType dtype, const cli::GroupShape& shape,
                int64_t chunk, int64_t length = kPromptLength) {
    const auto engram = cli::ResidentEngram(*model_, Clock::Real());
    EXPECT_TRUE(engram.ok()) << engram.status();
    cli::RankOptions options;
    options.backend = backend;
    options.dtype = dtype;
    options.runner.max_tokens = kMaxTokens;
    options.runner.block_size = model_->config.default_block_size();
    options.runner.num_blocks = kBlocks;
    options.runner.num_tail_blocks = kBlocks;
    auto ranks = cli::AssembleLocalGroup(*model_, shape, options, *engram, Clock::Real());
    if (!ranks.ok()) {
      ADD_FAILURE() << ranks.status();
      return {};
    }
    worker::TraceRecorder recorder({});
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < ranks->size(); ++rank) {
      threads.emplace_back([&, rank] {
        worker::TraceRequest request = Request(length);
        request.chunk = chunk;
        request.idle = static_cast<int>(rank) >= shape.tp;
        const auto ids =
            worker::RunTrace(model_->config, request, kMaxTokens, *(*ranks)[rank].runner,
                             rank == 0 ? &recorder : nullptr);
        EXPECT_TRUE(ids.ok()) << ids.status();
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    return recorder.Finish(true);
  }

  static void ExpectSameBits(const Tensors& actual, const Tensors& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      EXPECT_TRUE(actual.at(name).data == tensor.data) << name;
    }
  }

  std::unique_ptr<cli::LoadedModel> model_;
};

double RelativeDifference(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference =
        std::isnan(a[i]) ? INFINITY : std::max(difference, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return difference / std::max(largest, 1e-30);
}

TEST_P(CompressedShapes, Float32AgreesWithFloat64OnEveryTensor) {
  const Tensors expected = Trace("reference", model::DType::kF64, {}, 0, kComparedLength);
  EXPECT_GT(expected.size(), 10u);
  for (const char* backend : {"reference", "cpu"}) {
    SCOPED_TRACE(fmt::format("{} seed {}", backend, kSeed));
    const Tensors traced = Trace(backend, model::DType::kF32, {}, 0, kComparedLength);
    ASSERT_EQ(traced.size(), expected.size());
    double worst = 0;
    for (const auto& [name, tensor] : expected) {
      const std::vector<double> values = traced.at(name).Values();
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
}

TEST_P(CompressedShapes, BitsDoNotDependOnGroupOrChunk) {
  const Tensors expected = Trace("cpu", model::DType::kF32, {}, 0);
  for (const int64_t chunk : {1, 3, 16}) {
    SCOPED_TRACE(fmt::format("chunk {}", chunk));
    ExpectSameBits(Trace("cpu", model::DType::kF32, {}, chunk), expected);
  }
  for (int tp = 2; tp <= GetParam().max_tp; tp *= 2) {
    SCOPED_TRACE(fmt::format("tp {}", tp));
    ExpectSameBits(Trace("cpu", model::DType::kF32, {.tp = tp}, 0), expected);
  }
  SCOPED_TRACE("tp 2 dp 2");
  ExpectSameBits(Trace("cpu", model::DType::kF32, {.tp = 2, .dp = 2}, 16), expected);
}

INSTANTIATE_TEST_SUITE_P(Shapes, CompressedShapes, ::testing::ValuesIn(Shapes()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tessera
