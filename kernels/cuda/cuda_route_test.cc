// The router by the CUDA ops under the simulator: the reference's picks and bits with and
// without groups, with ties, and with damage that must be seen.
#include <cmath>
#include <cstdint>
#include <string>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

// Five tokens: of the second all scores tie, the third is damaged.
RouterArgs ArgsOn(SimulatedDevice& device, int64_t experts, int64_t slots,
                  const Format& format) {
  RouterArgs args;
  args.x = device.Random({5, 37});
  for (int64_t i = 0; i < 37; ++i) {
    args.x.row<float>(1)[i] = 0;
  }
  args.x.row<float>(2)[5] = std::nanf("");
  args.gate = device.Weight(format, experts, 37);
  args.scaling = 2.5;
  args.expert_ids = device.Ids(5 * slots, 7).Reshape({5, slots});
  args.weights = device.Random({5, slots});
  return args;
}

void Compare(SimulatedDevice& device, const RouterArgs& args, const TensorView& bias,
             const std::string& what) {
  device.Upload();
  RouterArgs on = args;
  for (TensorView* view : {&on.x, &on.expert_ids, &on.weights}) {
    *view = device.On(*view);
  }
  on.gate = device.On(args.gate);
  if (args.bias != nullptr) {
    on.bias = device.On(bias).as<float>();
  }
  if (args.fixed_ids.rank > 0) {
    on.fixed_ids = device.On(args.fixed_ids);
  }
  Route(device.stream(), on);
  reference::Route<float>(args);
  device.ExpectEqual(what);
}

TEST(CudaRoute, PicksAndWeightsHaveTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const int64_t groups : {1, 3, 11, 33}) {
      for (const auto score : {RouterScore::kSigmoid, RouterScore::kSqrtSoftplus}) {
        SimulatedDevice device(seed);
        RouterArgs args = ArgsOn(device, 33, 5, kFormats[seed]);
        const TensorView bias = device.Random({33});
        bias.as<float>()[20] = std::nanf("");
        args.bias = bias.as<float>();
        args.score = score;
        args.num_groups = groups;
        args.top_groups = (groups + 1) / 2;
        args.normalize = score == RouterScore::kSigmoid;
        Compare(device, args, bias, std::to_string(groups) + " groups");
      }
    }
  }
}

TEST(CudaRoute, TiesGoToTheLowerExpertAndAllExpertsCanBePicked) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const int64_t experts : {1, 16, 40}) {
      SimulatedDevice device(seed);
      Compare(device, ArgsOn(device, experts, experts, kFormats[0]), TensorView(),
              std::to_string(experts) + " experts");
    }
  }
}

TEST(CudaRoute, GivenIdsAreWeightedAsTheyAre) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    RouterArgs args = ArgsOn(device, 9, 2, kFormats[1]);
    args.fixed_ids = device.Ids(10, 9).Reshape({5, 2});
    Compare(device, args, TensorView(), "given ids");
  }
}

TEST(CudaRoute, LookedUpExpertsAreTheTables) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    // Two halves of each number; the upper ones are no part of an id.
    const TensorView table = device.Ids(7 * 3 * 2, 100);
    const TensorView tokens = device.Ids(90, 7);
    const TensorView out = device.Ids(90 * 3, 7).Reshape({90, 3});
    device.Upload();
    LookupExperts(device.stream(), static_cast<const int64_t*>(device.On(table).data),
                  device.On(tokens), device.On(out));
    reference::LookupExperts(static_cast<const int64_t*>(table.data), tokens, out);
    device.ExpectEqual("table");
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
