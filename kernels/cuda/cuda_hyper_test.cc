// The coefficients of the residual streams by the CUDA ops under the simulator: the
// reference's bits for every number of streams, in every weight format.
#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

HyperCoefficientsArgs ArgsOn(SimulatedDevice& device, int64_t streams, int64_t fn_rows,
                             int64_t cols, const Format& format) {
  HyperCoefficientsArgs args;
  args.streams = device.Random({3, streams, cols});
  args.fn = device.Weight(format, fn_rows, streams * cols);
  args.base = device.Random({fn_rows}).as<float>();
  args.scale = device.Random({3}).as<float>();
  args.norm_eps = 1e-6;
  args.eps = 1e-3;
  args.sinkhorn_iters = 4;
  args.pre = device.Random({3, streams});
  args.post = device.Random({3, streams});
  args.mix = device.Random({3, streams * streams}).SplitLast(streams);
  return args;
}

HyperCoefficientsArgs Uploaded(SimulatedDevice& device, HyperCoefficientsArgs args) {
  args.fn = device.On(args.fn);
  args.base =
      device.On(TensorView(const_cast<float*>(args.base), DType::kF32, {1})).as<float>();
  args.scale =
      device.On(TensorView(const_cast<float*>(args.scale), DType::kF32, {1})).as<float>();
  for (TensorView* view : {&args.streams, &args.pre, &args.post, &args.mix}) {
    *view = device.On(*view);
  }
  return args;
}

TEST(CudaHyper, CoefficientsHaveTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const int64_t streams : {1, 2, 3, 4, 8}) {
      SimulatedDevice device(seed);
      const HyperCoefficientsArgs args =
          ArgsOn(device, streams, streams * (streams + 2), 13, kFormats[seed]);
      device.Upload();
      HyperCoefficients(device.stream(), Uploaded(device, args));
      reference::HyperCoefficients<float>(args);
      device.ExpectEqual(std::to_string(streams) + " streams");
    }
  }
}

TEST(CudaHyper, OneIterationStopsAfterTheColumns) {
  SimulatedDevice device(1);
  HyperCoefficientsArgs args = ArgsOn(device, 4, 24, 13, kFormats[0]);
  args.sinkhorn_iters = 1;
  device.Upload();
  HyperCoefficients(device.stream(), Uploaded(device, args));
  reference::HyperCoefficients<float>(args);
  device.ExpectEqual("one iteration");
}

TEST(CudaHyper, HeadHasTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const int64_t streams : {1, 4, 7}) {
      SimulatedDevice device(seed);
      const HyperCoefficientsArgs args =
          ArgsOn(device, streams, streams, 141, kFormats[seed - 1]);
      const TensorView out = device.Random({3, 141});
      device.Upload();
      HyperHead(device.stream(), Uploaded(device, args), device.On(out));
      reference::HyperHead<float>(args, out);
      device.ExpectEqual(std::to_string(streams) + " streams");
    }
  }
}

TEST(CudaHyper, NoTokensLaunchNothing) {
  SimulatedDevice device(1);
  HyperCoefficientsArgs args = ArgsOn(device, 2, 8, 5, kFormats[0]);
  device.Upload();
  args = Uploaded(device, args);
  for (TensorView* view : {&args.streams, &args.pre, &args.post, &args.mix}) {
    *view = view->Rows(0, 0);
  }
  HyperCoefficients(device.stream(), args);
  device.ExpectEqual("no tokens");
}

}  // namespace
}  // namespace tessera::kernels::cuda
