// Lists of experts' items by the CUDA ops under the simulator, all checks on: the
// reference's, whatever the number of slots and experts, in one launch, and by a captured
// launch for every list.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

// A call with its arrays on the host and, after Upload, on the device. Every third expert
// is another rank's; every fifth id is none.
class ListCall {
 public:
  ListCall(SimulatedDevice& device, int64_t tokens, int64_t slots, int32_t experts)
      : device_(device) {
    std::vector<int32_t> local;
    int32_t count = 0;
    for (int32_t e = 0; e < experts; ++e) {
      local.push_back(e % 3 == 2 ? -1 : count++);
    }
    const TensorView ids = device.Ids(tokens * slots, experts);
    for (int64_t i = 0; i < tokens * slots; i += 5) {
      ids.as<int32_t>()[i] = -1;
    }
    args_ = {.expert_ids = ids.Reshape({tokens, slots}),
             .local_of_expert = device.Ints(local),
             .weights = device.Random({tokens, slots}),
             .item_offsets = device.Ids(count + 1, 7),
             .row_of_item = device.Ids(tokens * slots, 7),
             .row_of_slot = device.Ids(tokens * slots, 7).Reshape({tokens, slots}),
             .item_weights = device.Random({tokens * slots}),
             .fault = device.Ints({0})};
  }

  void Upload() {
    device_.Upload();
    on_ = args_;
    for (TensorView* view :
         {&on_.expert_ids, &on_.local_of_expert, &on_.weights, &on_.item_offsets,
          &on_.row_of_item, &on_.row_of_slot, &on_.item_weights, &on_.fault}) {
      *view = device_.On(*view);
    }
  }

  const ExpertItemsArgs& args() const { return args_; }
  const ExpertItemsArgs& on_device() const { return on_; }

 private:
  SimulatedDevice& device_;
  ExpertItemsArgs args_;
  ExpertItemsArgs on_;
};

TEST(CudaExpertLists, HaveTheReferencesItemsInOneLaunch) {
  struct Shape {
    int64_t tokens;
    int64_t slots;
    int32_t experts;
  };
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    // Of one warp and of several, of fewer experts than warps and of more, and of more
    // slots than lie in shared memory.
    for (const Shape& shape :
         {Shape{1, 1, 1}, Shape{7, 3, 5}, Shape{9, 16, 100}, Shape{1025, 4, 2}}) {
      SimulatedDevice device(seed);
      ListCall call(device, shape.tokens, shape.slots, shape.experts);
      call.Upload();
      const uint64_t before = device.machine()->num_launches();
      ListExpertItems(device.stream(), call.on_device());
      EXPECT_EQ(device.machine()->num_launches() - before, 1U);
      reference::ListExpertItems<float>(call.args());
      device.ExpectEqual(std::to_string(shape.experts) + " experts");
    }
  }
}

TEST(CudaExpertLists, ACapturedLaunchListsWhateverIdsThereAre) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    ListCall call(device, 6, 2, 9);
    const TensorView counts = device.Ids(9, 7);
    call.Upload();
    ASSERT_TRUE(device.stream().BeginCapture().ok());
    ListExpertItems(device.stream(), call.on_device());
    CountExperts(device.stream(), call.on_device().expert_ids, device.On(counts));
    const auto graph = device.stream().EndCapture();
    ASSERT_TRUE(graph.ok()) << graph.status();
    for (const std::vector<int32_t>& ids : std::vector<std::vector<int32_t>>{
             {0, 1, 3, 4, 6, 7, 0, 1, 3, 4, 6, 7},
             {8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8},
             {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1},
             {0, 9, 0, -5, 0, -1, 3, 0, 0, 7, 8, 2}}) {
      std::memcpy(call.args().expert_ids.data, ids.data(), 4 * ids.size());
      ASSERT_TRUE(
          device.stream()
              .MemcpyAsync(call.on_device().expert_ids.data, ids.data(), 4 * ids.size())
              .ok());
      ASSERT_TRUE(device.stream().Launch(*graph).ok());
      reference::ListExpertItems<float>(call.args());
      reference::CountExperts(call.args().expert_ids, counts);
      device.ExpectEqual("replay");
    }
    EXPECT_EQ(*call.args().fault.as<int32_t>(), 4);  // that of the last list
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
