// The CUDA ops under the simulator against kernels/reference: the same bits, at odd
// shapes, in every weight format, under several schedules, and without a finding.
#include "kernels/cuda/cuda_ops.h"

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_stream.h"
#include "kernels/reference/reference_ops.h"

namespace tessera::kernels::cuda {
namespace {

constexpr uint64_t kSeeds = 3;

struct Format {
  std::string name;
  DType dtype;
  DType scale;
  int64_t block_rows;
  int64_t block_cols;
};
const Format kFormats[] = {{"F32", DType::kF32, DType::kF32, 0, 0},
                           {"BF16", DType::kBF16, DType::kF32, 0, 0},
                           {"F8F32", DType::kF8E4M3, DType::kF32, 24, 48},
                           {"F8E8M0", DType::kF8E4M3, DType::kF8E8M0, 24, 48},
                           {"FP4", DType::kFp4, DType::kF8E8M0, 1, 32}};

// Host arrays and their copies on a simulated device.
class OnDevice {
 public:
  explicit OnDevice(uint64_t seed)
      : machine_(
            std::make_shared<cuda_sim::SimMachine>(cuda_sim::SimOptions{.seed = seed})),
        random_(seed) {
    auto stream = cuda_sim::SimStream::Create(machine_, 0);
    TESSERA_CHECK(stream.ok());
    stream_ = std::move(*stream);
  }

  GpuStream& stream() { return *stream_; }

  // Rows lie 3 values further apart than they are long.
  TensorView Random(std::vector<int64_t> shape) {
    TensorView view;
    view.rank = static_cast<int>(shape.size());
    int64_t stride = 1;
    for (int axis = view.rank - 1; axis >= 0; --axis) {
      const auto at = static_cast<size_t>(axis);
      view.shape[at] = shape[at];
      view.strides[at] = stride;
      stride = stride * shape[at] + 3;
    }
    auto& memory = Memory(static_cast<size_t>(stride) * sizeof(float));
    std::uniform_real_distribution<float> value(-2.0F, 2.0F);
    for (size_t i = 0; i < memory.size() / sizeof(float); ++i) {
      const float number = value(random_);
      std::memcpy(memory.data() + i * sizeof(float), &number, sizeof(float));
    }
    view.data = memory.data();
    return view;
  }
  TensorView Ids(int64_t count, int32_t below) {
    auto& memory = Memory(static_cast<size_t>(count) * sizeof(int32_t));
    for (int64_t i = 0; i < count; ++i) {
      const auto id = static_cast<int32_t>(random_() % static_cast<uint64_t>(below));
      std::memcpy(memory.data() + i * 4, &id, sizeof(id));
    }
    return TensorView(memory.data(), DType::kI32, {count});
  }
  TensorView Ints(const std::vector<int32_t>& values) {
    auto& memory = Memory(values.size() * sizeof(int32_t));
    std::memcpy(memory.data(), values.data(), memory.size());
    return TensorView(memory.data(), DType::kI32, {std::ssize(values)});
  }
  CacheView Packed(const TensorView& values, const RowFormat& format) {
    const int64_t rows = values.dim(0) * values.dim(1);
    auto& memory = Memory(static_cast<size_t>(rows * format.packed_bytes()));
    for (int64_t row = 0; row < rows; ++row) {
      PackRow(format, values.row<float>(row / values.dim(1), row % values.dim(1)),
              memory.data() + row * format.packed_bytes());
    }
    return {TensorView(memory.data(), DType::kU8,
                       {values.dim(0), values.dim(1), format.packed_bytes()}),
            format};
  }
  // A slice that begins off the grid of its scales.
  WeightView Weight(const Format& format, int64_t rows, int64_t cols) {
    WeightView w;
    w.dtype = format.dtype;
    w.rows = rows + 4;
    w.cols = (cols + 6 + 31) / 32 * 32;
    w.row_bytes =
        static_cast<int64_t>(model::DTypeBytes(w.dtype, static_cast<size_t>(w.cols)));
    auto& values = Memory(static_cast<size_t>(w.rows * w.row_bytes));
    for (size_t i = 0; i < values.size(); ++i) {
      // Never an exponent of all ones: no NaN in any format.
      values[i] = static_cast<std::byte>(random_() & 0xbeU);
    }
    w.data = values.data();
    if (format.block_rows > 0) {
      w.scale_dtype = format.scale;
      w.block_rows = format.block_rows;
      w.block_cols = format.block_cols;
      w.scale_stride = (w.cols + w.block_cols - 1) / w.block_cols;
      const int64_t count = (w.rows + w.block_rows - 1) / w.block_rows * w.scale_stride;
      const bool floats = format.scale == DType::kF32;
      auto& scales = Memory(static_cast<size_t>(count) * (floats ? 4 : 1));
      for (int64_t i = 0; i < count; ++i) {
        const float scale = 0.001F * static_cast<float>(1 + random_() % 99);
        if (floats) {
          std::memcpy(scales.data() + i * 4, &scale, sizeof(scale));
        } else {
          scales[static_cast<size_t>(i)] = static_cast<std::byte>(120 + random_() % 9);
        }
      }
      w.scales = scales.data();
    }
    return w.RowSlice(3, rows).ColSlice(6, cols);
  }

  // Copies all host memory to the device; from then on host arrays are the reference's.
  void Upload() {
    for (const auto& memory : host_) {
      auto device = machine_->Malloc(0, memory.size());
      TESSERA_CHECK(device.ok());
      TESSERA_CHECK(stream_->MemcpyAsync(*device, memory.data(), memory.size()).ok());
      device_.push_back(static_cast<std::byte*>(*device));
    }
  }
  TensorView On(TensorView view) const {
    view.data = const_cast<std::byte*>(DeviceAddress(view.data));
    return view;
  }
  WeightView On(WeightView w) const {
    w.data = w.data == nullptr ? nullptr : DeviceAddress(w.data);
    w.scales = w.scales == nullptr ? nullptr : DeviceAddress(w.scales);
    return w;
  }

  // All arrays, gaps between rows included, have the bits of the host's.
  void ExpectEqual(const std::string& what) {
    ASSERT_TRUE(stream_->Synchronize().ok()) << what << ": " << machine_->status();
    for (size_t i = 0; i < host_.size(); ++i) {
      std::vector<std::byte> seen(host_[i].size());
      ASSERT_TRUE(stream_->MemcpyAsync(seen.data(), device_[i], seen.size()).ok());
      EXPECT_TRUE(seen == host_[i]) << what << ", array " << i;
    }
  }

 private:
  std::vector<std::byte>& Memory(size_t bytes) { return host_.emplace_back(bytes); }
  const std::byte* DeviceAddress(const void* host) const {
    const auto* const at = static_cast<const std::byte*>(host);
    for (size_t i = 0; i < host_.size(); ++i) {
      if (at >= host_[i].data() && at < host_[i].data() + host_[i].size()) {
        return device_[i] + (at - host_[i].data());
      }
    }
    TESSERA_CHECK(false);
    return nullptr;
  }

  std::shared_ptr<cuda_sim::SimMachine> machine_;
  std::unique_ptr<cuda_sim::SimStream> stream_;
  std::mt19937_64 random_;
  std::deque<std::vector<std::byte>> host_;
  std::vector<std::byte*> device_;
};

TEST(CudaOps, LinearHasTheReferencesBitsInEveryFormatAndCut) {
  const KSplit cuts[] = {KSplit::Whole(),
                         {.total = 77, .num_leaves = 8},
                         {.total = 154, .first_leaf = 4, .num_leaves = 4}};
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const Format& format : kFormats) {
      for (const KSplit& cut : cuts) {
        OnDevice device(seed);
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
      OnDevice device(seed);
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
    OnDevice device(seed);
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
      OnDevice device(4);
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
    OnDevice device(seed);
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
    OnDevice device(seed);
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
    OnDevice device(seed);
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
    OnDevice device(seed);
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
    OnDevice device(9);
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
  OnDevice device(1);
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
  OnDevice device(1);
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
