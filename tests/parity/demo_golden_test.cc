// The demo model against recorded outputs of its reference (tests/data/demo): every
// tensor of every prompt, and greedy continuations, per backend and activation type.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cli/loaded_model.h"
#include "cli/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "model/tensors/checkpoint.h"
#include "worker/runner/trace_program.h"
#include "worker/runner/trace_recorder.h"

namespace tessera {
namespace {

constexpr const char* kModel = "models/demo";
constexpr const char* kGolden = "tests/data/demo/golden.safetensors";
// The manifest's tolerance of every prompt, as max|a-b| / max|b|.
constexpr double kTolerance = 1e-4;
constexpr int64_t kMaxTokens = 128;

struct Arithmetic {
  std::string backend;
  model::DType dtype;
};

void PrintTo(const Arithmetic& arithmetic, std::ostream* os) {
  *os << arithmetic.backend << "/" << model::DTypeName(arithmetic.dtype);
}

class DemoGolden : public ::testing::TestWithParam<Arithmetic> {
 protected:
  static void SetUpTestSuite() {
    auto model = cli::LoadModel(kModel);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->release();
    auto golden = model::Checkpoint::OpenFile(kGolden);
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = golden->release();
  }
  static void TearDownTestSuite() {
    delete golden_;
    delete model_;
  }

  void SetUp() override {
    const auto engram = cli::ResidentEngram(*model_, Clock::Real());
    ASSERT_TRUE(engram.ok()) << engram.status();
    cli::RankOptions options;
    options.backend = GetParam().backend;
    options.dtype = GetParam().dtype;
    options.num_threads = 2;
    options.runner.max_tokens = kMaxTokens;
    options.runner.num_blocks = 64;
    auto ranks = cli::AssembleLocalGroup(*model_, {}, options, *engram, Clock::Real());
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    ranks_ = *std::move(ranks);
  }

  worker::RecordedTensor Golden(const std::string& name) {
    const auto tensor = golden_->Find(name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    worker::RecordedTensor out;
    out.dtype = tensor->dtype;
    out.shape = tensor->shape;
    out.data.assign(tensor->data.begin(), tensor->data.end());
    return out;
  }

  std::vector<int32_t> GoldenIds(const std::string& name) {
    std::vector<int32_t> ids;
    for (const double value : Golden(name).Values()) {
      ids.push_back(static_cast<int32_t>(value));
    }
    return ids;
  }

  std::vector<int32_t> Trace(const worker::TraceRequest& request,
                             worker::TraceRecorder* recorder) {
    worker::TraceRequest numbered = request;
    numbered.epoch = ++epoch_;
    numbered.placement_version = 1;
    const auto ids = worker::RunTrace(model_->config, numbered, kMaxTokens,
                                      *ranks_[0].runner, recorder);
    EXPECT_TRUE(ids.ok()) << ids.status();
    return ids.ok() ? *ids : std::vector<int32_t>();
  }

  static model::Checkpoint* golden_;
  static cli::LoadedModel* model_;
  std::vector<cli::AssembledRank> ranks_;
  uint64_t epoch_ = 0;
};

model::Checkpoint* DemoGolden::golden_ = nullptr;
cli::LoadedModel* DemoGolden::model_ = nullptr;

// The recorded float32 run fell on the other side of a router near tie here: in float64
// the 16th and 17th expert of the draft layer at this position differ by 9e-9, less than
// float32 can tell. The row is left out; all other rows of the tensor are compared.
constexpr const char* kNearTieTensor = "prompt33.mtp.all_logits";
constexpr size_t kNearTieRow = 3;

void DropRow(size_t row, size_t width, std::vector<double>& values) {
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(row * width);
  values.erase(begin, begin + static_cast<std::ptrdiff_t>(width));
}

double RelativeDifference(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return difference / std::max(largest, 1e-30);
}

// KL divergence of softmax(b) from softmax(a), in nats.
double Divergence(const std::vector<double>& a, const std::vector<double>& b) {
  const auto log_sum = [](const std::vector<double>& x) {
    const double largest = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const double value : x) {
      sum += std::exp(value - largest);
    }
    return largest + std::log(sum);
  };
  const double log_sum_a = log_sum(a);
  const double log_sum_b = log_sum(b);
  double divergence = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    divergence += std::exp(a[i] - log_sum_a) * ((a[i] - log_sum_a) - (b[i] - log_sum_b));
  }
  return divergence;
}

TEST_P(DemoGolden, EveryTensorOfEveryPromptAgrees) {
  int compared = 0;
  double worst = 0;
  for (const int size : {1, 2, 7, 33, 150, 300}) {
    const std::string prefix = fmt::format("prompt{}.", size);
    worker::TraceRecorder recorder({});
    Trace({.ids = GoldenIds(prefix + "ids")}, &recorder);
    const auto traced = recorder.Finish(true);
    for (const std::string& name : golden_->names()) {
      if (!name.starts_with(prefix) || name == prefix + "ids") {
        continue;
      }
      const worker::RecordedTensor expected = Golden(name);
      if (name == prefix + "bf16.last_logits") {
        // Serving numerics of another mode: the distribution must be close, not the
        // values.
        EXPECT_LT(Divergence(expected.Values(), traced.at("last_logits").Values()), 0.02)
            << name;
        continue;
      }
      const auto it = traced.find(name.substr(prefix.size()));
      ASSERT_NE(it, traced.end()) << name;
      ASSERT_EQ(it->second.shape, expected.shape) << name;
      ++compared;
      if (expected.dtype != model::DType::kF32) {
        EXPECT_EQ(it->second.Values(), expected.Values()) << name;
        continue;
      }
      std::vector<double> actual_values = it->second.Values();
      std::vector<double> expected_values = expected.Values();
      if (name == kNearTieTensor) {
        const auto width = static_cast<size_t>(expected.shape[1]);
        DropRow(kNearTieRow, width, actual_values);
        DropRow(kNearTieRow, width, expected_values);
      }
      const double difference = RelativeDifference(actual_values, expected_values);
      worst = std::max(worst, difference);
      EXPECT_LE(difference, kTolerance) << name;
    }
  }
  EXPECT_EQ(compared, 66);
  RecordProperty("largest_relative_difference", fmt::format("{:.3g}", worst));
  fmt::print("largest relative difference {:.3g} over {} tensors\n", worst, compared);
}

TEST_P(DemoGolden, GreedyContinuationsAreEqual) {
  for (const char* name : {"greedy12", "greedy13", "greedy150"}) {
    const std::vector<int32_t> expected = GoldenIds(std::string(name) + ".ids");
    EXPECT_EQ(Trace({.ids = GoldenIds(std::string(name) + ".prompt"),
                     .drafts = false,
                     .greedy_tokens = static_cast<int64_t>(expected.size())},
                    nullptr),
              expected)
        << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, DemoGolden,
                         ::testing::Values(Arithmetic{"reference", model::DType::kF64},
                                           Arithmetic{"reference", model::DType::kF32},
                                           Arithmetic{"cpu", model::DType::kF32}),
                         [](const auto& test) {
                           return fmt::format("{}_{}", test.param.backend,
                                              model::DTypeName(test.param.dtype));
                         });

}  // namespace
}  // namespace tessera
