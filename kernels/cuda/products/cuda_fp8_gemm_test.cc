// The FP8 products under the simulator: within a derived bound of the portable op, with
// the same bits in every tile, row count and schedule, and without a finding.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/products/fp8_gemm.h"
#include "kernels/reference/reference_ops.h"
#include "model/formats/number_formats.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

struct Shape {
  int64_t tokens;
  int64_t outputs;
  int64_t inputs;
};

int64_t RoundUp(int64_t value, int64_t grain) {
  return (value + grain - 1) / grain * grain;
}

TensorView Part(TensorView view, int64_t rows, int64_t cols) {
  view.shape[0] = rows;
  view.shape[1] = cols;
  return view;
}

TensorView RowsFrom(TensorView view, int64_t begin, int64_t count) {
  view.data =
      static_cast<std::byte*>(view.data) +
      begin * view.stride(0) * static_cast<int64_t>(model::DTypeBits(view.dtype)) / 8;
  view.shape[0] = count;
  return view;
}

// A configuration of every tile; few stages, so that they are used again.
std::vector<Fp8GemmConfig> Configs(int64_t inputs) {
  std::vector<Fp8GemmConfig> configs;
  for (const auto& [consumers, tokens, stages] :
       {std::array<uint32_t, 3>{1, 16, 3}, {2, 16, 2}, {2, 64, 3}, {2, 128, 2}}) {
    Fp8GemmConfig config;
    config.consumers = consumers;
    config.tile_tokens = tokens;
    config.stages = stages;
    config.shared_bytes =
        stages * Fp8StageBytes(consumers, tokens) + Fp8FixedBytes(inputs, stages);
    configs.push_back(config);
  }
  return configs;
}

// Tokens, a weight and a result on one device.
class Problem {
 public:
  Problem(uint64_t seed, const Shape& shape, DType scale_dtype = DType::kF32)
      : device_(seed), shape_(shape) {
    const int64_t blocks = (shape.inputs + kFp8Block - 1) / kFp8Block;
    x_.codes = Part(device_.Bytes(shape.tokens, RoundUp(shape.inputs, 16)), shape.tokens,
                    shape.inputs);
    std::vector<float> scales;
    for (int64_t i = 0; i < blocks * RoundUp(shape.tokens, 4); ++i) {
      scales.push_back(std::ldexp(1.0F, static_cast<int>(i * 7 % 5) - 8));
    }
    x_.scales = device_.Floats(scales);
    x_.scales.rank = 2;
    x_.scales.shape = {blocks, shape.tokens, 1, 1};
    x_.scales.strides = {RoundUp(shape.tokens, 4), 1, 0, 0};
    MakeWeight(blocks, scale_dtype);
    out_ =
        Part(device_.Random({shape.tokens, shape.outputs}), shape.tokens, shape.outputs);
  }

  SimulatedDevice& device() { return device_; }
  const Fp8Tokens& x() const { return x_; }
  const WeightView& w() const { return w_; }
  const TensorView& out() const { return out_; }
  Fp8Tokens XOnDevice() const { return {device_.On(x_.codes), device_.On(x_.scales)}; }

  // What the tokens are in float32.
  std::vector<float> Values() const {
    std::vector<float> values;
    for (int64_t t = 0; t < shape_.tokens; ++t) {
      for (int64_t i = 0; i < shape_.inputs; ++i) {
        const float scale =
            x_.scales.as<float>()[i / kFp8Block * x_.scales.stride(0) + t];
        values.push_back(scale * Code(x_.codes, t, i));
      }
    }
    return values;
  }
  static float Code(const TensorView& codes, int64_t row, int64_t col) {
    return model::kE4M3Values[codes.as<uint8_t>()[row * codes.stride(0) + col]];
  }
  double Weight(int64_t row, int64_t col) const {
    const int64_t at = row / kFp8Block * w_.scale_stride + col / kFp8Block;
    const auto code =
        static_cast<size_t>(static_cast<uint8_t>(w_.data[row * w_.row_bytes + col]));
    if (w_.scale_dtype == DType::kF8E8M0) {
      return std::ldexp(double{model::kE4M3Values[code]},
                        static_cast<int>(w_.scales[at]) - 127);
    }
    return double{model::kE4M3Values[code]} *
           double{reinterpret_cast<const float*>(w_.scales)[at]};
  }

 private:
  void MakeWeight(int64_t blocks, DType scale_dtype) {
    const TensorView codes = device_.Bytes(shape_.outputs, RoundUp(shape_.inputs, 16));
    const int64_t rows = (shape_.outputs + kFp8Block - 1) / kFp8Block;
    w_.data = static_cast<const std::byte*>(codes.data);
    w_.dtype = DType::kF8E4M3;
    w_.rows = shape_.outputs;
    w_.cols = shape_.inputs;
    w_.row_bytes = codes.stride(0);
    w_.block_rows = kFp8Block;
    w_.block_cols = kFp8Block;
    w_.scale_stride = blocks;
    w_.scale_dtype = scale_dtype;
    if (scale_dtype == DType::kF32) {
      std::vector<float> scales;
      for (int64_t i = 0; i < rows * blocks; ++i) {
        scales.push_back(0.001F * static_cast<float>(1 + i * 37 % 98));
      }
      w_.scales = static_cast<const std::byte*>(device_.Floats(scales).data);
      return;
    }
    const TensorView scales = device_.Bytes(rows, blocks);
    for (int64_t i = 0; i < rows * blocks; ++i) {
      scales.as<uint8_t>()[i] = static_cast<uint8_t>(120 + i % 9);
    }
    w_.scales = static_cast<const std::byte*>(scales.data);
  }

  SimulatedDevice device_;
  Shape shape_;
  Fp8Tokens x_;
  WeightView w_;
  TensorView out_;
};

std::vector<float> RowOf(const TensorView& view, int64_t row) {
  const float* const begin = view.as<float>() + row * view.stride(0);
  return {begin, begin + view.dim(1)};
}

// Bit by bit: a NaN equals itself.
bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<std::vector<float>> Multiply(Problem& problem, const Fp8GemmConfig& config) {
  EXPECT_TRUE(Fp8Linear(problem.device().stream(), problem.XOnDevice(),
                        problem.device().On(problem.w()), config,
                        problem.device().On(problem.out()))
                  .ok());
  problem.device().Download(problem.out());
  std::vector<std::vector<float>> rows;
  for (int64_t row = 0; row < problem.out().dim(0); ++row) {
    rows.push_back(RowOf(problem.out(), row));
  }
  return rows;
}

// n roundings to float32, each of a value no larger than the sum of magnitudes.
double Roundings(double n) { return n * 0x1p-24 / (1 - n * 0x1p-24); }

constexpr Shape kShapes[] = {{1, 64, 128},    {16, 128, 256}, {17, 200, 384},
                             {3, 131, 200},   {65, 70, 129},  {5, 64, 1280},
                             {130, 129, 300}, {2, 1, 16},     {33, 257, 1024}};

// The product: 4 roundings in a block of 128 inputs (one for each 32), 1 of the scales, 1
// for each block. The portable op: 1 of value times scale of a weight, inputs / 16
// multiply-adds of a lane, 4 additions of lanes.
TEST(CudaFp8Gemm, IsWithinItsRoundingsOfThePortableOp) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const Shape& shape : kShapes) {
      Problem problem(seed, shape, seed % 2 == 0 ? DType::kF8E8M0 : DType::kF32);
      std::vector<float> values = problem.Values();
      std::vector<float> portable(static_cast<size_t>(shape.tokens * shape.outputs));
      reference::Linear<float>(
          TensorView(values.data(), DType::kF32, {shape.tokens, shape.inputs}),
          problem.w(), KSplit::Whole(),
          TensorView(portable.data(), DType::kF32, {shape.tokens, shape.outputs}));
      problem.device().Upload();
      const auto rows = Multiply(problem, ChooseFp8Gemm({.tokens = shape.tokens,
                                                         .outputs = shape.outputs,
                                                         .inputs = shape.inputs}));
      const auto inputs = static_cast<double>(shape.inputs);
      const double bound = Roundings(5 + std::ceil(inputs / kFp8Block)) +
                           Roundings(5 + std::ceil(inputs / 16));
      for (int64_t t = 0; t < shape.tokens; ++t) {
        for (int64_t o = 0; o < shape.outputs; ++o) {
          double magnitude = 0;
          for (int64_t i = 0; i < shape.inputs; ++i) {
            magnitude +=
                std::abs(double{values[static_cast<size_t>(t * shape.inputs + i)]} *
                         problem.Weight(o, i));
          }
          const double seen = rows[static_cast<size_t>(t)][static_cast<size_t>(o)];
          const double other = portable[static_cast<size_t>(t * shape.outputs + o)];
          ASSERT_LE(std::abs(seen - other), bound * magnitude)
              << shape.tokens << " x " << shape.outputs << " x " << shape.inputs << " at "
              << t << ", " << o << ": " << seen << ", portable " << other;
        }
      }
    }
  }
}

TEST(CudaFp8Gemm, EveryTileHasTheSameBits) {
  for (const Shape& shape : kShapes) {
    Problem problem(1, shape);
    problem.device().Upload();
    const auto first = Multiply(problem, ChooseFp8Gemm({.tokens = shape.tokens,
                                                        .outputs = shape.outputs,
                                                        .inputs = shape.inputs}));
    for (const Fp8GemmConfig& config : Configs(shape.inputs)) {
      const auto rows = Multiply(problem, config);
      for (size_t t = 0; t < rows.size(); ++t) {
        ASSERT_TRUE(SameBits(rows[t], first[t])) << config.ToString() << ", row " << t;
      }
    }
  }
}

TEST(CudaFp8Gemm, ARowHasTheSameBitsAloneAndAmongOthers) {
  constexpr Shape kShape = {40, 200, 640};
  Problem problem(2, kShape);
  problem.device().Upload();
  const auto all = Multiply(problem, Configs(kShape.inputs)[3]);
  for (const int64_t row : {0, 13, 39}) {
    // Copies begin at multiples of 16 bytes, so its scales at a multiple of four rows.
    const int64_t begin = row / 4 * 4;
    const int64_t count = row - begin + 1;
    Fp8Tokens x = problem.XOnDevice();
    x.codes = RowsFrom(x.codes, begin, count);
    x.scales.data = x.scales.as<float>() + begin;
    x.scales.shape[1] = count;
    ASSERT_TRUE(
        Fp8Linear(problem.device().stream(), x, problem.device().On(problem.w()),
                  ChooseFp8Gemm(
                      {.tokens = 1, .outputs = kShape.outputs, .inputs = kShape.inputs}),
                  problem.device().On(RowsFrom(problem.out(), begin, count)))
            .ok());
    problem.device().Download(problem.out());
    EXPECT_TRUE(SameBits(RowOf(problem.out(), row), all[static_cast<size_t>(row)]));
  }
}

TEST(CudaFp8Gemm, EveryScheduleHasTheSameBits) {
  constexpr Shape kShape = {9, 100, 1100};
  std::vector<std::vector<float>> first;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    // The values are those of the first seed: the schedule alone differs.
    Problem values(1, kShape);
    Problem problem(seed, kShape);
    std::memcpy(problem.x().codes.data, values.x().codes.data,
                static_cast<size_t>(kShape.tokens * values.x().codes.stride(0)));
    std::memcpy(const_cast<std::byte*>(problem.w().data), values.w().data,
                static_cast<size_t>(kShape.outputs * values.w().row_bytes));
    problem.device().Upload();
    const auto rows = Multiply(problem, Configs(kShape.inputs)[seed % 4]);
    first = first.empty() ? rows : first;
    for (size_t t = 0; t < rows.size(); ++t) {
      ASSERT_TRUE(SameBits(rows[t], first[t])) << "seed " << seed << ", row " << t;
    }
  }
}

TEST(CudaFp8Gemm, ANanStaysInItsRow) {
  constexpr Shape kShape = {7, 70, 300};
  Problem clean(3, kShape);
  Problem damaged(3, kShape);
  damaged.x().scales.as<float>()[damaged.x().scales.stride(0) + 4] =
      std::numeric_limits<float>::quiet_NaN();
  clean.device().Upload();
  damaged.device().Upload();
  const Fp8GemmConfig config = Configs(kShape.inputs)[0];
  const auto expected = Multiply(clean, config);
  const auto seen = Multiply(damaged, config);
  for (size_t t = 0; t < seen.size(); ++t) {
    EXPECT_EQ(SameBits(seen[t], expected[t]), t != 4);
  }
  EXPECT_TRUE(std::all_of(seen[4].begin(), seen[4].end(),
                          [](float value) { return std::isnan(value); }));
}

TEST(CudaFp8Gemm, QuantizedTokensAreTheOpsRoundedValues) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(seed);
    const TensorView x = device.Random({5, 300});
    x.as<float>()[2 * x.stride(0) + 130] = std::numeric_limits<float>::infinity();
    Fp8Tokens out;
    out.codes = Part(device.Bytes(5, 304), 5, 300);
    out.scales = Part(device.Random({3, 5}), 3, 5);
    device.Upload();
    QuantizeTokens(device.stream(), device.On(x),
                   {device.On(out.codes), device.On(out.scales)});
    device.Download(out.codes);
    device.Download(out.scales);
    for (int64_t row = 0; row < 5; ++row) {
      for (int64_t block = 0; block < 3; ++block) {
        const int64_t begin = block * kFp8Block;
        const int64_t count = std::min<int64_t>(kFp8Block, 300 - begin);
        float* const group = x.as<float>() + row * x.stride(0) + begin;
        reference::FakeQuantizeE4M3<float>(TensorView(group, DType::kF32, {1, count}));
        const float scale = out.scales.as<float>()[block * out.scales.stride(0) + row];
        for (int64_t i = 0; i < count; ++i) {
          const float seen = Problem::Code(out.codes, row, begin + i) * scale;
          ASSERT_TRUE(seen == group[i] || (std::isnan(seen) && std::isnan(group[i])))
              << row << ", " << begin + i << ": " << seen << ", " << group[i];
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
