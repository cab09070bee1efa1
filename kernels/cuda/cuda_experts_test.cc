// Grouped experts by the CUDA ops under the simulator: the reference's bits in every
// weight format, with an expert without items, with and without item weights and limit.
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

TEST(CudaExperts, GroupedExpertsHaveTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const Format& format : kFormats) {
      SimulatedDevice device(seed);
      std::vector<ExpertWeights> experts(3);
      for (ExpertWeights& expert : experts) {
        expert = {device.Weight(format, 21, 37), device.Weight(format, 21, 37),
                  device.Weight(format, 37, 21)};
      }
      GroupedExpertsArgs args;
      args.x = device.Random({4, 37});
      args.row_of_item = device.Ids(5, 4);
      args.item_offsets = device.Ints({0, 2, 2, 5});
      args.experts = experts;
      args.out = device.Random({5, 37});
      const TensorView weights = device.Random({5});
      if (seed > 1) {
        args.swiglu_limit = 0.5;
        args.item_weights = weights;
      }
      device.Upload();
      GroupedExpertsArgs on = args;
      for (TensorView* view : {&on.x, &on.row_of_item, &on.item_offsets, &on.out}) {
        *view = device.On(*view);
      }
      if (seed > 1) {
        on.item_weights = device.On(weights);
      }
      std::vector<ExpertWeights> on_experts;
      for (const ExpertWeights& expert : experts) {
        on_experts.push_back(
            {device.On(expert.gate), device.On(expert.up), device.On(expert.down)});
      }
      on.experts = on_experts;
      GroupedExperts(device.stream(), on);
      reference::GroupedExperts<float>(args);
      device.ExpectEqual(format.name);
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
