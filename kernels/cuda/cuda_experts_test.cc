// Grouped experts by the CUDA ops under the simulator, all checks on: the reference's
// bits in every weight format, wherever the items lie, and as many launches whatever the
// number of experts.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/expert_table.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int64_t kHidden = 37;
constexpr int64_t kWidth = 21;
constexpr int64_t kRows = 4;

// A call with its arrays on the host and, after Upload, on the device.
class ExpertCall {
 public:
  ExpertCall(SimulatedDevice& device, std::span<const Format* const> format_of_expert,
             const std::vector<int32_t>& offsets, int64_t bound)
      : device_(device) {
    for (const Format* format : format_of_expert) {
      experts_.push_back({device.Weight(*format, kWidth, kHidden),
                          device.Weight(*format, kWidth, kHidden),
                          device.Weight(*format, kHidden, kWidth)});
    }
    args_.x = device.Random({kRows, kHidden});
    args_.row_of_item = device.Ids(bound, kRows);
    args_.item_offsets = device.Ints(offsets);
    args_.out = device.Random({bound, kHidden});
  }
  // With weights for the items, and a limit of their activations.
  void WeightAndLimit() {
    args_.swiglu_limit = 0.5;
    args_.item_weights = device_.Random({args_.out.dim(0)});
  }

  // Once all that is to be compared is there.
  void Upload() {
    device_.Upload();
    for (const ExpertWeights& expert : experts_) {
      on_experts_.push_back(
          {device_.On(expert.gate), device_.On(expert.up), device_.On(expert.down)});
    }
    on_ = args_;
    for (TensorView* view : {&on_.x, &on_.row_of_item, &on_.item_offsets, &on_.out}) {
      *view = device_.On(*view);
    }
    if (on_.item_weights.rank > 0) {
      on_.item_weights = device_.On(on_.item_weights);
    }
    on_.experts = on_experts_;
    args_.experts = experts_;
  }

  const GroupedExpertsArgs& args() const { return args_; }
  const GroupedExpertsArgs& on_device() const { return on_; }
  std::vector<ExpertWeights>& on_experts() { return on_experts_; }

 private:
  SimulatedDevice& device_;
  std::vector<ExpertWeights> experts_;
  std::vector<ExpertWeights> on_experts_;
  GroupedExpertsArgs args_;
  GroupedExpertsArgs on_;
};

// The device's result, by a table made for the call, against the reference's. Returns how
// many kernels that launched.
int64_t Compare(SimulatedDevice& device, ExpertCall& call, const std::string& what) {
  call.Upload();
  ExpertTables tables(device.machine(), 0, &device.stream());
  const auto table = tables.Of(call.on_device().experts);
  EXPECT_TRUE(table.ok()) << table.status();
  if (!table.ok()) {
    return 0;
  }
  const uint64_t before = device.machine()->num_launches();
  GroupedExperts(device.stream(), **table, call.on_device());
  reference::GroupedExperts<float>(call.args());
  device.ExpectEqual(what);
  return static_cast<int64_t>(device.machine()->num_launches() - before);
}

std::vector<const Format*> AllOf(const Format& format, size_t experts) {
  return std::vector<const Format*>(experts, &format);
}

TEST(CudaExperts, GroupedExpertsHaveTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const Format& format : kFormats) {
      SimulatedDevice device(seed);
      ExpertCall call(device, AllOf(format, 3), {0, 2, 2, 5}, 5);
      if (seed > 1) {
        call.WeightAndLimit();
      }
      EXPECT_EQ(Compare(device, call, format.name), 1);
    }
  }
}

TEST(CudaExperts, ItemsFindTheirExpertsWhereverTheyLie) {
  const std::vector<std::vector<int32_t>> all_offsets = {
      {0, 1},                    // one item of one expert
      {0, 3},                    // all there is
      {0, 3, 3, 3, 3},           // all at the first, the middle, the last
      {0, 0, 3, 3, 3},           //
      {0, 0, 0, 0, 3},           //
      {0, 0, 1, 1, 1, 2, 3, 3},  // between empty ones
      {0, 1, 2, 3, 4, 5},        // one each
      {1, 2, 2, 4},              // the first item is of none
      {0, 0, 0},                 // no item
  };
  uint64_t seed = 0;
  for (const std::vector<int32_t>& offsets : all_offsets) {
    SimulatedDevice device(++seed);
    ExpertCall call(device, AllOf(kFormats[seed % 2], offsets.size() - 1), offsets,
                    std::max(offsets.back(), 1));
    EXPECT_EQ(Compare(device, call, "offsets " + std::to_string(seed)), 1);
  }
}

// Bounds above the number of items: rows beyond it keep what they hold, and all others
// have the bits of a call that knows the number.
TEST(CudaExperts, ALargerBoundChangesNoBit) {
  for (uint64_t seed = 1; seed <= 2 * kSeeds; ++seed) {
    const std::vector<int32_t> offsets = seed % 2 == 0 ? std::vector<int32_t>{0, 0, 2, 3}
                                                       : std::vector<int32_t>{0, 0, 0, 0};
    SimulatedDevice device(seed);
    ExpertCall call(device, AllOf(kFormats[4], 3), offsets, 9);
    call.WeightAndLimit();
    EXPECT_EQ(Compare(device, call, "bound"), 1);
  }
}

TEST(CudaExperts, LaunchesDoNotGrowWithTheExperts) {
  for (const size_t experts : {1U, 2U, 40U}) {
    SimulatedDevice device(experts);
    std::vector<int32_t> offsets(experts + 1, 2);
    offsets.front() = 0;
    ExpertCall call(device, AllOf(kFormats[1], experts), offsets, 2);
    EXPECT_EQ(Compare(device, call, std::to_string(experts)), 1);
  }
}

// Each launch makes the items of its format's experts, whatever lies between them.
TEST(CudaExperts, ALaunchForEachFormatOfASet) {
  const Format& a = kFormats[1];
  const Format& b = kFormats[3];
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    ExpertCall call(device, std::vector<const Format*>{&a, &b, &a, &b, &b},
                    {0, 1, 2, 4, 4, 5}, 6);
    EXPECT_EQ(Compare(device, call, "two formats"), 2);
  }
}

// One graph of the largest number of items, with fewer of them and other experts at each
// replay: the reference's bits each time.
TEST(CudaExperts, ACapturedCallTakesItsOffsetsFromTheDevice) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    ExpertCall call(device, AllOf(kFormats[2], 3), {0, 1, 1, 2}, 6);
    call.Upload();
    ExpertTables tables(device.machine(), 0, &device.stream());
    const auto table = tables.Of(call.on_device().experts);
    ASSERT_TRUE(table.ok()) << table.status();
    ASSERT_TRUE(device.stream().BeginCapture().ok());
    GroupedExperts(device.stream(), **table, call.on_device());
    const auto graph = device.stream().EndCapture();
    ASSERT_TRUE(graph.ok()) << graph.status();
    for (const std::vector<int32_t>& offsets : std::vector<std::vector<int32_t>>{
             {0, 1, 1, 2}, {0, 0, 6, 6}, {0, 0, 0, 1}, {0, 0, 0, 0}, {0, 2, 3, 5}}) {
      std::memcpy(call.args().item_offsets.data, offsets.data(), 4 * offsets.size());
      ASSERT_TRUE(device.stream()
                      .MemcpyAsync(call.on_device().item_offsets.data, offsets.data(),
                                   4 * offsets.size())
                      .ok());
      ASSERT_TRUE(device.stream().Launch(*graph).ok());
      reference::GroupedExperts<float>(call.args());
      device.ExpectEqual("replay");
    }
  }
}

TEST(ExpertTables, ASetHasOneTableUntilItChanges) {
  SimulatedDevice device(1);
  ExpertCall call(device, AllOf(kFormats[4], 3), {0, 1, 2, 3}, 3);
  call.Upload();
  ExpertTables tables(device.machine(), 0, &device.stream());
  const auto first = tables.Of(call.on_device().experts);
  const auto again = tables.Of(call.on_device().experts);
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_EQ(*first, *again);
  EXPECT_TRUE((*first)->IsOf(call.on_device().experts));

  // Other weights at the same place of the host: the old table would give other bits.
  std::swap(call.on_experts()[0].up, call.on_experts()[2].up);
  EXPECT_FALSE((*first)->IsOf(call.on_device().experts));
  const auto changed = tables.Of(call.on_device().experts);
  ASSERT_TRUE(changed.ok());
  EXPECT_TRUE((*changed)->IsOf(call.on_device().experts));
  GroupedExpertsArgs args = call.args();
  std::vector<ExpertWeights> experts(args.experts.begin(), args.experts.end());
  std::swap(experts[0].up, experts[2].up);
  args.experts = experts;
  GroupedExperts(device.stream(), **changed, call.on_device());
  reference::GroupedExperts<float>(args);
  device.ExpectEqual("changed set");
}

TEST(ExpertTables, AGraphOfASetThatChangedIsStale) {
  SimulatedDevice device(1);
  ExpertCall call(device, AllOf(kFormats[1], 2), {0, 1, 2}, 2);
  call.Upload();
  ExpertTables tables(device.machine(), 0, &device.stream());
  const auto table = tables.Of(call.on_device().experts);
  ASSERT_TRUE(table.ok());
  ASSERT_TRUE(device.stream().BeginCapture().ok());
  GroupedExperts(device.stream(), **table, call.on_device());
  const auto graph = device.stream().EndCapture();
  ASSERT_TRUE(graph.ok());
  std::swap(call.on_experts()[0], call.on_experts()[1]);
  ASSERT_TRUE(tables.Of(call.on_device().experts).ok());
  ASSERT_TRUE(device.stream().Launch(*graph).ok());
  EXPECT_FALSE(device.stream().Synchronize().ok());
  const std::vector<cuda_sim::Finding> findings = device.machine()->findings();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings.front().kind, cuda_sim::FindingKind::kStaleGraphArgument);
}

TEST(ExpertTables, AFullMemoryIsAnError) {
  auto machine = std::make_shared<cuda_sim::SimMachine>(
      cuda_sim::SimOptions{.memory = {.device_bytes = 16}});
  auto stream = cuda_sim::SimStream::Create(machine, 0);
  ASSERT_TRUE(stream.ok());
  ExpertTables tables(machine, 0, stream->get());
  const std::vector<ExpertWeights> experts(2);
  EXPECT_EQ(tables.Of(experts).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(tables.Of({}).ok());
}

}  // namespace
}  // namespace tessera::kernels::cuda
