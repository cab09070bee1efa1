// The counts of routed items that ranks report are what the router picked: each pick of
// the model's layers once over the whole group, whatever its shape, with and without
// drafts.
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "proto/step_plan.h"
#include "tests/integration/step_plans.h"
#include "worker/layers/step_context.h"

namespace tessera {
namespace {

constexpr uint32_t kSequences = 3;

// Counts what "router.ids" says of the layers that have a row.
class RouteSink final : public worker::TraceSink {
 public:
  explicit RouteSink(const model::ModelConfig& config)
      : counts(static_cast<size_t>((config.num_layers - config.num_dense_layers) *
                                   config.moe.num_experts)),
        config_(config) {}

  void Record(std::string_view what, int64_t layer, kernels::TensorView rows) override {
    if (what != "router.ids" || layer >= config_.num_layers) {
      return;
    }
    for (int64_t i = 0; i < rows.num_elements(); ++i) {
      const int64_t row = layer - config_.num_dense_layers;
      ++counts[static_cast<size_t>(row * config_.moe.num_experts +
                                   rows.as<int32_t>()[i])];
    }
  }

  std::vector<uint32_t> counts;

 private:
  const model::ModelConfig config_;
};

proto::StepPlan Prefill(bool keeps_tail) {
  return testing::PrefillPlan(kSequences, keeps_tail, /*greedy=*/true);
}

proto::StepPlan Decode(uint64_t step, uint32_t num_drafts) {
  return testing::DecodePlan(step, kSequences, num_drafts);
}

class ExpertCounts : public ::testing::Test {
 protected:
  void Start(const std::string& folder, cli::GroupShape shape, uint32_t num_drafts = 0) {
    model_ = *cli::LoadModel(folder);
    const auto engram = cli::ResidentEngram(*model_, Clock::Real());
    ASSERT_TRUE(engram.ok()) << engram.status();
    keeps_tail_ = model_->config.tail_tokens() > 0;
    cli::RankOptions options;
    options.runner.block_size = model_->config.default_block_size();
    options.runner.num_blocks = 32;
    options.runner.num_tail_blocks = keeps_tail_ ? 32 : 0;
    options.runner.num_speculative_tokens = num_drafts;
    options.runner.min_draft_chance = 0;
    auto ranks = cli::AssembleLocalGroup(*model_, shape, options, *engram, Clock::Real());
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    ranks_ = *std::move(ranks);
  }

  // Runs the plan on every rank; the results in rank order.
  std::vector<proto::StepResult> Execute(const proto::StepPlan& plan) {
    std::vector<proto::StepResult> results(ranks_.size());
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      threads.emplace_back([&, rank] {
        auto result = ranks_[rank].runner->Execute(plan);
        EXPECT_TRUE(result.ok()) << result.status();
        if (result.ok()) {
          results[rank] = *std::move(result);
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    return results;
  }

  size_t num_counts() const {
    const model::ModelConfig& config = model_->config;
    return static_cast<size_t>((config.num_layers - config.num_dense_layers) *
                               config.moe.num_experts);
  }

  std::unique_ptr<cli::LoadedModel> model_;
  bool keeps_tail_ = false;
  std::vector<cli::AssembledRank> ranks_;
};

class ExpertCountsOf : public ExpertCounts,
                       public ::testing::WithParamInterface<const char*> {};

TEST_P(ExpertCountsOf, AReportIsWhatTheTraceShowsSinceTheLastOne) {
  for (const uint32_t num_drafts : {0u, 2u}) {
    Start(GetParam(), {}, num_drafts);
    RouteSink sink(model_->config);
    ranks_[0].runner->SetTrace(&sink, /*all_logits=*/false);
    EXPECT_TRUE(Execute(Prefill(keeps_tail_))[0].expert_counts.empty());
    Execute(Decode(2, num_drafts));
    proto::StepPlan plan = Decode(3, num_drafts);
    plan.reports_expert_counts = true;
    const proto::StepResult result = Execute(plan)[0];
    EXPECT_EQ(result.expert_counts, sink.counts);
    EXPECT_GT(std::accumulate(sink.counts.begin(), sink.counts.end(), 0u), 0u);
    EXPECT_EQ(result.counters.num_draft_tokens, kSequences * num_drafts);
    // A report starts anew.
    sink.counts.assign(sink.counts.size(), 0);
    plan = Decode(4, num_drafts);
    plan.reports_expert_counts = true;
    EXPECT_EQ(Execute(plan)[0].expert_counts, sink.counts);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ExpertCountsOf,
                         ::testing::Values("models/demo", "tests/data/v3",
                                           "tests/data/v4", "tests/data/v41"));

TEST_F(ExpertCounts, OneRankOfEachTpGroupCountsEachPickOnce) {
  Start("models/demo", {.tp = 2, .dp = 2});
  proto::StepPlan plan = Prefill(keeps_tail_);
  plan.reports_expert_counts = true;
  const std::vector<proto::StepResult> results = Execute(plan);
  const model::ModelConfig& config = model_->config;
  const auto picks = static_cast<uint32_t>(kSequences * 5 * config.moe.experts_per_token *
                                           (config.num_layers - config.num_dense_layers));
  for (const size_t rank : {size_t{0}, size_t{2}}) {
    const std::vector<uint32_t>& counts = results[rank].expert_counts;
    ASSERT_EQ(counts.size(), num_counts());
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0u), picks) << rank;
    EXPECT_TRUE(results[rank + 1].expert_counts.empty()) << rank + 1;
  }
}

TEST_F(ExpertCounts, AStepThatLeavesTheCountsReportsThoseBefore) {
  Start("models/demo", {});
  proto::StepPlan plan = Prefill(keeps_tail_);
  plan.reports_expert_counts = plan.leaves_expert_counts = true;
  EXPECT_EQ(Execute(plan)[0].expert_counts, std::vector<uint32_t>(num_counts()));
  Execute(Decode(2, 0));
  plan = Decode(3, 0);
  plan.reports_expert_counts = plan.leaves_expert_counts = true;
  const std::vector<uint32_t> counts = Execute(plan)[0].expert_counts;
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}),
            kSequences * model_->config.moe.experts_per_token *
                (model_->config.num_layers - model_->config.num_dense_layers));
}

}  // namespace
}  // namespace tessera
