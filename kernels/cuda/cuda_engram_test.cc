// Engram by the CUDA ops under the simulator: the reference's bits at odd shapes, in
// every weight format, with damaged rows, dots of zero and tokens that look back at each
// other.
#include <cstdint>
#include <string>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

TEST(CudaEngram, DecodedRowsHaveTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    const TensorView packed = device.Bytes(5, 3 * (64 + 2));
    uint8_t* const bytes = packed.as<uint8_t>();
    bytes[3] = 0x7f;   // NaN
    bytes[4] = 0xff;   // NaN with a sign
    bytes[64] = 0xff;  // a damaged scale
    bytes[65] = 0;     // 2^-127
    const TensorView values = device.Bytes(5, 3 * 2 * 35);
    const TensorView from_packed = device.Random({5, 3 * 64});
    const TensorView from_values = device.Random({5, 3 * 35});
    device.Upload();
    DecodeEngramRows(device.stream(), device.On(packed), DType::kF8E4M3, 64,
                     device.On(from_packed));
    DecodeEngramRows(device.stream(), device.On(values), DType::kBF16, 35,
                     device.On(from_values));
    reference::DecodeEngramRows<float>(packed, DType::kF8E4M3, 64, from_packed);
    reference::DecodeEngramRows<float>(values, DType::kBF16, 35, from_values);
    device.ExpectEqual("rows");
  }
}

TEST(CudaEngram, GateHasTheReferencesBitsInPlaceAndApart) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const bool apart : {false, true}) {
      for (const auto sign : {EngramGateSign::kCopysign, EngramGateSign::kSign}) {
        SimulatedDevice device(seed);
        EngramGateArgs args;
        args.streams = device.Random({5, 3, 37});
        args.kv = device.Random({5, 4 * 37});
        for (int64_t i = 0; i < 2 * 37; ++i) {
          args.kv.row<float>(1)[i] = 0;  // dots of zero
        }
        args.q_weight = device.Weight(kFormats[seed], 3, 37);
        args.k_weight = device.Weight(kFormats[0], 3, 37);
        args.eps = 1e-5;
        args.sign = sign;
        args.gate = device.Random({5, 3});
        const TensorView gated = device.Random({5, 3, 37});
        args.gated = apart ? gated : TensorView();
        device.Upload();
        EngramGateArgs on = args;
        on.streams = device.On(args.streams);
        on.kv = device.On(args.kv);
        on.q_weight = device.On(args.q_weight);
        on.k_weight = device.On(args.k_weight);
        on.gate = device.On(args.gate);
        on.gated = apart ? device.On(gated) : TensorView();
        EngramGate(device.stream(), on);
        reference::EngramGate<float>(args);
        device.ExpectEqual(apart ? "apart" : "in place");
      }
    }
  }
}

TEST(CudaEngram, ConvolutionHasTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const int64_t dilation : {1, 3}) {
      SimulatedDevice device(seed);
      EngramConvArgs args;
      args.gated = device.Random({5, 3, 37});
      args.streams = device.Random({5, 3, 37});
      args.kernel = device.Weight(kFormats[seed], 3 * 37, 4);
      args.norm = device.Weight(kFormats[seed + 1], 3, 37);
      args.dilation = dilation;
      args.cache = device.Random({6, 4, 3 * 37});
      // Three tokens of one sequence in a row, two of another, one of them its first.
      args.index = {.block_tables = device.Ints({4, 2, 0, 1, 3, 5}).Reshape({2, 3}),
                    .sequence_of_row = device.Ints({1, 0, 1, 1, 0}),
                    .positions = device.Ints({9, 0, 10, 11, 5}),
                    .block_size = 4};
      device.Upload();
      EngramConvArgs on = args;
      for (TensorView* view : {&on.gated, &on.streams, &on.cache, &on.index.block_tables,
                               &on.index.sequence_of_row, &on.index.positions}) {
        *view = device.On(*view);
      }
      on.kernel = device.On(args.kernel);
      on.norm = device.On(args.norm);
      EngramConv(device.stream(), on);
      reference::EngramConv<float>(args);
      device.ExpectEqual("dilation " + std::to_string(dilation));
    }
  }
}

TEST(CudaEngram, NoTokensLaunchNothing) {
  SimulatedDevice device(1);
  const TensorView rows = device.Bytes(1, 6);
  const TensorView out = device.Random({1, 3});
  device.Upload();
  DecodeEngramRows(device.stream(), device.On(rows).Rows(0, 0), DType::kBF16, 3,
                   device.On(out).Rows(0, 0));
  device.ExpectEqual("no tokens");
}

}  // namespace
}  // namespace tessera::kernels::cuda
