// RoutedLoads: what a step's calls counted, once it is done.
#include "worker/layers/routed_loads.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"

namespace tessera::worker {
namespace {

using kernels::DType;
using kernels::TensorView;

// A dense layer, two with four experts, and a draft layer with two.
model::ModelConfig Config() {
  model::ModelConfig config;
  config.num_layers = 3;
  config.num_dense_layers = 1;
  config.moe.num_experts = 4;
  config.num_draft_layers = 1;
  config.draft_moe.num_experts = 2;
  return config;
}

class RoutedLoadsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto backend = kernels::CreateBackend({.name = "reference"});
    ASSERT_TRUE(backend.ok());
    backend_ = *std::move(backend);
    auto stream = backend_->CreateStream();
    ASSERT_TRUE(stream.ok());
    stream_ = *std::move(stream);
    auto loads = RoutedLoads::Create(Config(), /*draft_runs=*/2, backend_.get());
    ASSERT_TRUE(loads.ok());
    loads_ = *std::move(loads);
  }
  // Of tokens with two slots each.
  void Count(int64_t layer, std::vector<int32_t> ids) {
    const auto tokens = static_cast<int64_t>(ids.size()) / 2;
    loads_->Count(*stream_, layer, TensorView(ids.data(), DType::kI32, {tokens, 2}));
  }
  std::vector<uint32_t> counts() const {
    return {loads_->counts().begin(), loads_->counts().end()};
  }

  std::unique_ptr<kernels::KernelBackend> backend_;
  std::unique_ptr<kernels::Stream> stream_;
  std::unique_ptr<RoutedLoads> loads_;
};

// The host calls Count at the capture alone; its memory is where each launch counts.
TEST_F(RoutedLoadsTest, ALaunchOfACapturedStepHasCountedInEveryLayer) {
  Count(1, {0, 1, 2, 3});
  Count(2, {0, 1, 0, 3});
  for (const uint32_t steps : {1U, 2U}) {
    loads_->Begin(/*counts=*/true);
    loads_->CountedByGraph();
    loads_->Finish();
    EXPECT_EQ(loads_->imbalance(), 2);
    EXPECT_EQ(counts(), (std::vector<uint32_t>{steps, steps, steps, steps, 2 * steps,
                                               steps, 0, steps}));
  }
  loads_->Begin(/*counts=*/true);
  loads_->Finish();
  EXPECT_EQ(loads_->imbalance(), 0) << "nothing was counted in this step";
}

TEST_F(RoutedLoadsTest, AStepAddsItsLayersAndItsImbalanceIsTheLargest) {
  loads_->Begin(/*counts=*/true);
  Count(1, {0, 1, 2, 3});
  Count(2, {0, 1, 0, 3});
  EXPECT_EQ(counts(), std::vector<uint32_t>(8));  // before the step is done
  loads_->Finish();
  EXPECT_EQ(counts(), (std::vector<uint32_t>{1, 1, 1, 1, 2, 1, 0, 1}));
  EXPECT_EQ(loads_->imbalance(), 2.0F);  // 2 items over 4 / 4
  loads_->Begin(true);
  EXPECT_EQ(loads_->imbalance(), 0.0F);
  Count(1, {3, 2});
  loads_->Finish();
  EXPECT_EQ(counts(), (std::vector<uint32_t>{1, 1, 2, 2, 2, 1, 0, 1}));
  loads_->ClearCounts();
  EXPECT_EQ(counts(), std::vector<uint32_t>(8));
}

TEST_F(RoutedLoadsTest, AStepThatLeavesTheCountsHasAnImbalance) {
  loads_->Begin(/*counts=*/false);
  Count(1, {0, 1});
  loads_->Finish();
  EXPECT_EQ(counts(), std::vector<uint32_t>(8));
  EXPECT_EQ(loads_->imbalance(), 2.0F);
}

TEST_F(RoutedLoadsTest, PaddingRowsChangeNothing) {
  loads_->Begin(true);
  Count(1, {0, 1, -1, -1, -1, -1});
  Count(2, {-1, -1});
  loads_->Finish();
  EXPECT_EQ(counts(), (std::vector<uint32_t>{1, 1, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(loads_->imbalance(), 2.0F);
}

TEST_F(RoutedLoadsTest, AStepWithoutTokensHasNone) {
  loads_->Begin(true);
  Count(1, {});
  loads_->Finish();
  EXPECT_EQ(loads_->imbalance(), 0.0F);
}

TEST_F(RoutedLoadsTest, WhatAStepThatFailedLeftIsForgotten) {
  loads_->Begin(true);
  Count(1, {0, 0});
  Count(3, {0, 0});
  loads_->Begin(true);
  loads_->Finish();
  EXPECT_EQ(counts(), std::vector<uint32_t>(8));
  EXPECT_EQ(loads_->imbalance(), 0.0F);
}

TEST_F(RoutedLoadsTest, EveryRunOfADraftLayerCountsForTheImbalanceAlone) {
  for (const std::vector<int32_t>& first :
       std::vector<std::vector<int32_t>>{{1, 1, 1, 0}, {0, 1}}) {
    loads_->Begin(true);
    Count(3, first);
    Count(3, first.size() == 2 ? std::vector<int32_t>{1, 1, 1, 0}
                               : std::vector<int32_t>{0, 1});
    Count(3, {1, 1});  // no run of a step
    loads_->Finish();
    EXPECT_EQ(loads_->imbalance(), 1.5F);
  }
  EXPECT_EQ(counts(), std::vector<uint32_t>(8));
}

}  // namespace
}  // namespace tessera::worker
