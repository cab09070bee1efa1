// What --kv-cache-dtype fp8 changes in a model's logits: nothing where the model rounds
// all that it keeps, little elsewhere. That packed rows are read right:
// kernels/packed_rows_test.cc; that the bits hold in any batch: family_bits_test.cc.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/tensor_view.h"
#include "model/tensors/checkpoint.h"
#include "proto/step_plan.h"
#include "worker/layers/cache_layout.h"
#include "worker/layers/step_context.h"

namespace tessera {
namespace {

using Row = std::vector<float>;

// What a run computed for every position.
struct Outcome {
  std::vector<Row> first_layer;  // what layer 0 leaves
  std::vector<Row> logits;
  size_t cache_bytes = 0;
};

class OutcomeSink final : public worker::TraceSink {
 public:
  explicit OutcomeSink(Outcome* outcome) : outcome_(outcome) {}
  void Record(std::string_view what, int64_t layer, kernels::TensorView rows) override {
    if (what == "all_logits") {
      Append(rows, &outcome_->logits);
    } else if (what == "hidden" && layer == 0) {
      Append(rows, &outcome_->first_layer);
    }
  }

 private:
  static void Append(const kernels::TensorView& rows, std::vector<Row>* out) {
    ASSERT_TRUE(rows.is_contiguous());
    const int64_t width = rows.num_elements() / rows.dim(0);
    for (int64_t t = 0; t < rows.dim(0); ++t) {
      out->emplace_back(rows.as<float>() + t * width, rows.as<float>() + (t + 1) * width);
    }
  }

  Outcome* const outcome_;
};

// Root mean square of the difference over that of the values.
double RelativeDifference(const std::vector<Row>& exact, const std::vector<Row>& packed) {
  double difference = 0;
  double square = 0;
  for (size_t t = 0; t < exact.size(); ++t) {
    for (size_t i = 0; i < exact[t].size(); ++i) {
      difference += std::pow(double{packed[t][i]} - double{exact[t][i]}, 2);
      square += std::pow(double{exact[t][i]}, 2);
    }
  }
  return std::sqrt(difference / square);
}

std::vector<double> LogProbabilities(const Row& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) {
    total += std::exp(logit - largest);
  }
  std::vector<double> out;
  for (const float logit : logits) {
    out.push_back(logit - largest - std::log(total));
  }
  return out;
}

struct Cost {
  double divergence = 0;  // mean Kullback-Leibler divergence per position, in nats
  double surprise = 0;    // how many more bits the prompt's next token takes, mean
  double agreement = 0;   // positions with the same best token, as a share
};

Cost CostOf(const std::vector<Row>& exact, const std::vector<Row>& packed,
            const std::vector<int32_t>& ids) {
  Cost cost;
  for (size_t t = 0; t < exact.size(); ++t) {
    const std::vector<double> p = LogProbabilities(exact[t]);
    const std::vector<double> q = LogProbabilities(packed[t]);
    for (size_t i = 0; i < p.size(); ++i) {
      cost.divergence += std::exp(p[i]) * (p[i] - q[i]);
    }
    if (t + 1 < ids.size()) {
      const auto next = static_cast<size_t>(ids[t + 1]);
      cost.surprise += (p[next] - q[next]) / std::log(2.0);
    }
    cost.agreement += std::max_element(p.begin(), p.end()) - p.begin() ==
                              std::max_element(q.begin(), q.end()) - q.begin()
                          ? 1
                          : 0;
  }
  const auto count = static_cast<double>(exact.size());
  return {cost.divergence / count, cost.surprise / count, cost.agreement / count};
}

struct Model {
  const char* folder;
  const char* recording;  // in tests/data
  const char* prompt;     // its longest
  double first_layer;     // relative difference at most; 0: the same bits throughout
  double divergence;      // at most
};

// What rounding moves a value by at most: e4m3 has 3 bits behind the leading one, BF16 7.
constexpr double kE4M3Step = 0x1p-4;
constexpr double kBf16Step = 0x1p-8;

// Of random weights nothing is asked behind the first layer: what a router barely
// chose, another rounding does not choose.
constexpr double kAny = std::numeric_limits<double>::infinity();

void PrintTo(const Model& model, std::ostream* os) { *os << model.folder; }

class PackedCache : public ::testing::TestWithParam<Model> {
 protected:
  void SetUp() override {
    auto model = cli::LoadModel(GetParam().folder);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    const auto golden = model::Checkpoint::OpenFile(
        fmt::format("tests/data/{}/golden.safetensors", GetParam().recording));
    ASSERT_TRUE(golden.ok()) << golden.status();
    const auto tensor = (*golden)->Find(fmt::format("{}.ids", GetParam().prompt));
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    const auto* ids = reinterpret_cast<const int32_t*>(tensor->data.data());
    ids_.assign(ids, ids + tensor->shape[0]);
  }

  void Run(worker::KvCacheDtype dtype, Outcome* outcome) {
    const auto engram = cli::ResidentEngram(*model_, Clock::Real());
    ASSERT_TRUE(engram.ok()) << engram.status();
    cli::RankOptions options;
    options.num_threads = 2;
    worker::RunnerOptions& runner = options.runner;
    runner.kv_cache_dtype = dtype;
    runner.block_size = model_->config.default_block_size();
    runner.num_blocks = 512 / runner.block_size;
    const bool keeps_tail = model_->config.tail_tokens() > 0;
    runner.num_tail_blocks = keeps_tail ? runner.num_blocks : 0;
    auto ranks = cli::AssembleLocalGroup(*model_, {}, options, *engram, Clock::Real());
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    OutcomeSink sink(outcome);
    ranks->front().runner->SetTrace(&sink, true);
    proto::StepPlan plan;
    plan.epoch = 1;
    plan.step = 1;
    plan.placement_version = 1;
    proto::SlotAdmission admission;
    admission.prompt_length = static_cast<uint32_t>(ids_.size());
    admission.blocks.resize(static_cast<size_t>(runner.num_blocks));
    std::iota(admission.blocks.begin(), admission.blocks.end(), 0u);
    if (keeps_tail) {
      admission.tail_blocks = admission.blocks;
    }
    plan.admissions.push_back(admission);
    plan.work.push_back(
        {.slot = 0, .from_sample = false, .sample = true, .tokens = ids_});
    const auto result = ranks->front().runner->Execute(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(outcome->logits.size(), ids_.size());
    ASSERT_EQ(outcome->first_layer.size(), ids_.size());
    outcome->cache_bytes = ranks->front().runner->kv_bytes();
  }

  std::unique_ptr<cli::LoadedModel> model_;
  std::vector<int32_t> ids_;
};

TEST_P(PackedCache, CostsAFewDigits) {
  Outcome exact;
  Outcome packed;
  ASSERT_NO_FATAL_FAILURE(Run(worker::KvCacheDtype::kActivations, &exact));
  ASSERT_NO_FATAL_FAILURE(Run(worker::KvCacheDtype::kFp8, &packed));
  EXPECT_LT(packed.cache_bytes, exact.cache_bytes);
  const double difference = RelativeDifference(exact.first_layer, packed.first_layer);
  const Cost cost = CostOf(exact.logits, packed.logits, ids_);
  fmt::print(
      "first layer {:.3g}, divergence {:.3g} nats, {:+.3g} bits a token, best token "
      "agrees {:.3f}, bytes {:.3f}\n",
      difference, cost.divergence, cost.surprise, cost.agreement,
      static_cast<double>(packed.cache_bytes) / static_cast<double>(exact.cache_bytes));
  if (GetParam().first_layer == 0) {
    EXPECT_EQ(packed.first_layer, exact.first_layer);
    EXPECT_EQ(packed.logits, exact.logits);
    return;
  }
  EXPECT_NE(packed.logits, exact.logits);
  EXPECT_LT(difference, GetParam().first_layer);
  EXPECT_LT(cost.divergence, GetParam().divergence);
}

INSTANTIATE_TEST_SUITE_P(
    Models, PackedCache,
    ::testing::Values(Model{"models/demo", "demo", "prompt300", kE4M3Step, 5e-4},
                      Model{"tests/data/v3", "v3", "prompt331", kE4M3Step, kAny},
                      Model{"tests/data/v32", "v32", "prompt331", kE4M3Step, kAny},
                      Model{"tests/data/v4", "v4", "prompt331", kBf16Step, 0.02},
                      Model{"tests/data/v41", "v41", "prompt331", 0, 0}),
    [](const auto& test) { return test.param.recording; });

}  // namespace
}  // namespace tessera
