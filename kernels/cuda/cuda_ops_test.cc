// The CUDA ops under the simulator against kernels/reference: the same bits, at odd
// shapes, in every weight format, under several schedules, and without a finding.
#include "kernels/cuda/cuda_ops.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

TEST(CudaOps, LinearHasTheReferencesBitsInEveryFormatAndCut) {
  const KSplit cuts[] = {KSplit::Whole(),
                         {.total = 77, .num_leaves = 8},
                         {.total = 154, .first_leaf = 4, .num_leaves = 4}};
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const Format& format : kFormats) {
      for (const KSplit& cut : cuts) {
        SimulatedDevice device(seed);
        const TensorView x = device.Random({3, 77});
        const WeightView w = device.Weight(format, 19, 77);
        const TensorView out = device.Random({3, 19});
        device.Upload();
        Linear(device.stream(), device.On(x), device.On(w), cut, device.On(out));
        reference::Linear<float>(x, w, cut, out);
        device.ExpectEqual(format.name);
      }
    }
  }
}

TEST(CudaOps, HeadLinearsHaveTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const Format& format : kFormats) {
      SimulatedDevice device(seed);
      const TensorView x = device.Random({2, 3, 37});
      const WeightView w = device.Weight(format, 3 * 12, 37);
      const TensorView out = device.Random({2, 3, 7});
      const TensorView y = device.Random({2, 3, 7});
      const TensorView back = device.Random({2, 3, 37});
      device.Upload();
      HeadLinear(device.stream(), device.On(x), device.On(w), 12, 5, device.On(out));
      HeadLinearTransposed(device.stream(), device.On(y), device.On(w), 12, 5,
                           device.On(back));
      reference::HeadLinear<float>(x, w, 12, 5, out);
      reference::HeadLinearTransposed<float>(y, w, 12, 5, back);
      device.ExpectEqual(format.name);
    }
  }
}

TEST(CudaOps, RowOpsHaveTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    const TensorView x = device.Random({5, 3, 33});
    const TensorView normed = device.Random({5, 3, 33});
    const TensorView gate = device.Random({5, 65});
    const TensorView up = device.Random({5, 65});
    const TensorView product = device.Random({5, 65});
    const TensorView copied = device.Random({5, 65});
    const WeightView weight = device.Weight(kFormats[1], 1, 33);
    device.Upload();
    GpuStream& stream = device.stream();
    RmsNorm(stream, device.On(x), device.On(weight), 1e-6, device.On(normed));
    RmsNorm(stream, device.On(x), WeightView(), 1e-6, device.On(x));
    SiluMul(stream, device.On(gate), device.On(up), 1.5, device.On(product));
    Copy(stream, device.On(up), device.On(copied));
    Scale(stream, device.On(copied), 0.3);
    Add(stream, device.On(product), device.On(copied));
    SiluMul(stream, device.On(gate), device.On(up), 0, device.On(gate));
    reference::RmsNorm<float>(x, weight, 1e-6, normed);
    reference::RmsNorm<float>(x, WeightView(), 1e-6, x);
    reference::SiluMul<float>(gate, up, 1.5, product);
    reference::Copy<float>(up, copied);
    reference::Scale<float>(copied, 0.3);
    reference::Add<float>(product, copied);
    reference::SiluMul<float>(gate, up, 0, gate);
    device.ExpectEqual("row ops");
  }
}

TEST(CudaOps, MlaAttentionHasTheReferencesBitsOverRowsOfEveryFormat) {
  constexpr int64_t kLatent = 40;
  constexpr int64_t kRope = 6;
  const RowFormat formats[] = {
      RowFormat::Plain(kLatent + kRope),
      {RowCode::kE4M3, RowScale::kF32, kLatent + kRope, kLatent, 16},
      {RowCode::kE4M3, RowScale::kE8M0, kLatent + kRope, kLatent, 16},
      {RowCode::kFp4, RowScale::kE4M3, kLatent + kRope, kLatent, 16}};
  for (const RowFormat& format : formats) {
    for (const bool selects : {false, true}) {
      SimulatedDevice device(4);
      MlaAttentionArgs args;
      args.q_latent = device.Random({3, 2, kLatent});
      args.q_rope = device.Random({3, 2, kRope});
      args.out = device.Random({3, 2, kLatent});
      const TensorView values = device.Random({5, 4, kLatent + kRope});
      args.rows = format.is_packed() ? device.Packed(values, format) : values;
      args.index = {.block_tables = device.Ints({4, 2, 0, 1, 3, 2}).Reshape({2, 3}),
                    .sequence_of_row = device.Ints({1, 0, 1}),
                    .positions = device.Ints({9, 0, 11}),
                    .block_size = 4};
      args.scale = 0.3;
      if (selects) {
        args.selected = device.Ints({1, 4, 9, 0, -1, -1, -1, -1, -1}).Reshape({3, 3});
        args.num_selected = device.Ints({3, 1, 0});  // the last one is padding
      }
      device.Upload();
      MlaAttentionArgs on = args;
      for (TensorView* view :
           {&on.q_latent, &on.q_rope, &on.out, &on.rows.rows, &on.index.block_tables,
            &on.index.sequence_of_row, &on.index.positions}) {
        *view = device.On(*view);
      }
      if (selects) {
        on.selected = device.On(args.selected);
        on.num_selected = device.On(args.num_selected);
      }
      MlaAttention(device.stream(), on);
      reference::MlaAttention<float>(args);
      device.ExpectEqual(selects ? "selected rows" : "all rows");
    }
  }
}

TEST(CudaOps, RotationsHaveTheReferencesBits) {
  const std::vector<float> inv_freq = {1.0F, 0.31F, 0.1F, 0.031F, 0.0001F};
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    const TensorView interleaved = device.Random({5, 3, 13});
    const TensorView halves = device.Random({5, 3, 13});
    const TensorView positions = device.Ids(5, 1 << 20);
    const TensorView heads = device.Random({3, 2, 64});
    const TensorView rows = device.Random({3, 512});
    device.Upload();
    GpuStream& stream = device.stream();
    Rope(stream, device.On(interleaved), device.On(positions), inv_freq,
         RopePairing::kInterleaved);
    Rope(stream, device.On(halves), device.On(positions), inv_freq,
         RopePairing::kHalfSplit);
    Hadamard(stream, device.On(heads));
    Hadamard(stream, device.On(rows));
    reference::Rope<float>(interleaved, positions, inv_freq, RopePairing::kInterleaved);
    reference::Rope<float>(halves, positions, inv_freq, RopePairing::kHalfSplit);
    reference::Hadamard<float>(heads);
    reference::Hadamard<float>(rows);
    device.ExpectEqual("rotations");
  }
}

TEST(CudaOps, LayerNormAndPositionBiasHaveTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    const TensorView x = device.Random({5, 67});
    const TensorView out = device.Random({5, 67});
    const TensorView affine = device.Random({2, 67});
    const TensorView values = device.Random({5, 33});
    const WeightView bias = device.Weight(kFormats[0], 4, 33);
    const TensorView positions = device.Ids(5, 100);
    device.Upload();
    GpuStream& stream = device.stream();
    const TensorView on = device.On(affine);
    LayerNorm(stream, device.On(x), on.row<float>(0), on.row<float>(1), 1e-5,
              device.On(out));
    LayerNorm(stream, device.On(x), on.row<float>(0), on.row<float>(1), 1e-5,
              device.On(x));
    AddPositionBias(stream, device.On(values), device.On(bias), device.On(positions));
    reference::LayerNorm<float>(x, affine.row<float>(0), affine.row<float>(1), 1e-5, out);
    reference::LayerNorm<float>(x, affine.row<float>(0), affine.row<float>(1), 1e-5, x);
    reference::AddPositionBias<float>(values, bias, positions);
    device.ExpectEqual("norm and bias");
  }
}

TEST(CudaOps, StreamOpsHaveTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    const TensorView x = device.Random({5, 65});
    const TensorView streams = device.Random({5, 4, 65});
    const TensorView pre = device.Random({5, 4});
    const TensorView post = device.Random({5, 4});
    const TensorView mix = device.Random({5, 4, 4});
    const TensorView out = device.Random({5, 65});
    device.Upload();
    GpuStream& stream = device.stream();
    HyperCollapse(stream, device.On(streams), device.On(pre), device.On(out));
    HyperExpand(stream, device.On(out), device.On(post), device.On(mix),
                device.On(streams));
    reference::HyperCollapse<float>(streams, pre, out);
    reference::HyperExpand<float>(out, post, mix, streams);
    device.ExpectEqual("mix");
    ExpandStreams(stream, device.On(x), device.On(streams));
    reference::ExpandStreams<float>(x, streams);
    device.ExpectEqual("copy to the streams");
  }
}

TEST(CudaOps, GatheredAndCombinedRowsHaveTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    const TensorView x = device.Random({6, 3, 33});
    const TensorView rows = device.Ids(4, 6);
    const TensorView gathered = device.Random({4, 3, 33});
    const TensorView y = device.Random({6, 33});
    const TensorView slots = device.Ids(10, 6).Reshape({5, 2});
    const TensorView weights = device.Random({5, 2});
    const TensorView out = device.Random({5, 33});
    device.Upload();
    GpuStream& stream = device.stream();
    GatherRows(stream, device.On(x), device.On(rows), device.On(gathered));
    CombineExperts(stream, device.On(y), device.On(slots), device.On(weights),
                   device.On(out));
    reference::GatherRows<float>(x, rows, gathered);
    reference::CombineExperts<float>(y, slots, weights, out);
    device.ExpectEqual("rows");
  }
}

TEST(CudaOps, EmbeddingDecodesEveryFormat) {
  for (const Format& format : kFormats) {
    SimulatedDevice device(9);
    const WeightView table = device.Weight(format, 11, 50);
    const TensorView ids = device.Ids(7, 11);
    const TensorView out = device.Random({7, 50});
    device.Upload();
    Embedding(device.stream(), device.On(table), device.On(ids), device.On(out));
    reference::Embedding<float>(table, ids, out);
    device.ExpectEqual(format.name);
  }
}

TEST(CudaOps, NoRowsLaunchNothing) {
  SimulatedDevice device(1);
  const TensorView x = device.Random({1, 16});
  const WeightView w = device.Weight(kFormats[0], 4, 16);
  const TensorView out = device.Random({1, 4});
  device.Upload();
  Linear(device.stream(), device.On(x).Rows(0, 0), device.On(w), KSplit::Whole(),
         device.On(out).Rows(0, 0));
  RmsNorm(device.stream(), device.On(x).Rows(0, 0), WeightView(), 1e-6,
          device.On(x).Rows(0, 0));
  Scale(device.stream(), device.On(x).Rows(0, 0), 2);
  device.ExpectEqual("no rows");
}

TEST(CudaOps, AnIdOutsideTheTableIsFound) {
  SimulatedDevice device(1);
  const WeightView table = device.Weight(kFormats[0], 4, 16);
  const TensorView ids = device.Ids(2, 1);
  const TensorView out = device.Random({2, 16});
  const int32_t outside = 4;
  std::memcpy(ids.data, &outside, sizeof(outside));
  device.Upload();
  Embedding(device.stream(), device.On(table), device.On(ids), device.On(out));
  const absl::Status status = device.stream().Synchronize();
  EXPECT_NE(status.message().find("out of bounds in EmbeddingKernel"), std::string::npos)
      << status;
}

}  // namespace
}  // namespace tessera::kernels::cuda
