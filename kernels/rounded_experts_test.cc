// GroupedExperts of numerics int8-g32: what is computed, stated in doubles and integers;
// and that instruction sets, batches and threads do not change a bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "model/formats/number_formats.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kGroup = 32;

// One expert: e2m1 codes and e8m0 scales of its three matrices.
class Expert {
 public:
  Expert(int64_t inputs, int64_t inner, std::mt19937_64* random) {
    gate_ = Make(inner, inputs, random);
    up_ = Make(inner, inputs, random);
    down_ = Make(inputs, inner, random);
  }

  ExpertWeights weights() const { return {View(gate_), View(up_), View(down_)}; }

  // By the definition, in doubles: each group's sum of whole numbers times its scales.
  std::vector<double> Apply(const std::vector<float>& x, double limit) const {
    const std::vector<double> gate = Product(gate_, x);
    const std::vector<double> up = Product(up_, x);
    std::vector<float> inner;
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = std::min(gate[i], limit);
      inner.push_back(
          static_cast<float>(g / (1 + std::exp(-g)) * std::clamp(up[i], -limit, limit)));
    }
    return Product(down_, inner);
  }

 private:
  struct Matrix {
    int64_t rows = 0;
    int64_t cols = 0;
    std::vector<uint8_t> codes;
    std::vector<uint8_t> scales;
  };

  static Matrix Make(int64_t rows, int64_t cols, std::mt19937_64* random) {
    Matrix matrix = {rows, cols, {}, {}};
    for (int64_t i = 0; i < rows * cols / 2; ++i) {
      matrix.codes.push_back(static_cast<uint8_t>((*random)() % 256));
    }
    for (int64_t i = 0; i < rows * cols / kGroup; ++i) {
      matrix.scales.push_back(static_cast<uint8_t>(120 + (*random)() % 6));
    }
    return matrix;
  }

  static WeightView View(const Matrix& matrix) {
    WeightView view;
    view.data = reinterpret_cast<const std::byte*>(matrix.codes.data());
    view.dtype = DType::kFp4;
    view.rows = matrix.rows;
    view.cols = matrix.cols;
    view.row_bytes = matrix.cols / 2;
    view.scales = reinterpret_cast<const std::byte*>(matrix.scales.data());
    view.scale_dtype = DType::kF8E8M0;
    view.scale_stride = matrix.cols / kGroup;
    view.block_rows = 1;
    view.block_cols = kGroup;
    return view;
  }

  static std::vector<double> Product(const Matrix& matrix, const std::vector<float>& x) {
    std::vector<double> out;
    for (int64_t row = 0; row < matrix.rows; ++row) {
      double sum = 0;
      for (int64_t begin = 0; begin < matrix.cols; begin += kGroup) {
        float largest = 0;
        for (int64_t i = begin; i < begin + kGroup; ++i) {
          largest = std::max(largest, std::abs(x[static_cast<size_t>(i)]));
        }
        double group = 0;
        for (int64_t i = begin; largest > 0 && i < begin + kGroup; ++i) {
          const auto at = static_cast<size_t>(row * matrix.cols + i);
          const int nibble = (matrix.codes[at / 2] >> (at % 2 * 4)) & 15;
          const float scaled = x[static_cast<size_t>(i)] * (127.0F / largest);
          group +=
              std::nearbyint(scaled) * model::Fp4ToFloat(static_cast<uint8_t>(nibble));
        }
        const auto scale = static_cast<size_t>((row * matrix.cols + begin) / kGroup);
        sum += group * (largest / 127.0) * std::ldexp(1.0, matrix.scales[scale] - 127);
      }
      out.push_back(sum);
    }
    return out;
  }

  Matrix gate_;
  Matrix up_;
  Matrix down_;
};

struct Case {
  int64_t inputs;
  int64_t inner;
  int64_t rows;
};

// Every row to one expert.
std::vector<float> RunExpert(const BackendOptions& options, const Expert& expert,
                             std::vector<float> x, const Case& size) {
  const auto backend = CreateBackend(options);
  EXPECT_TRUE(backend.ok()) << backend.status();
  const auto stream = (*backend)->CreateStream();
  std::vector<int32_t> rows;
  for (int32_t row = 0; row < size.rows; ++row) {
    rows.push_back(row);
  }
  std::vector<int32_t> offsets = {0, static_cast<int32_t>(size.rows)};
  std::vector<float> out(static_cast<size_t>(size.rows * size.inputs), -1);
  const ExpertWeights weights[] = {expert.weights()};
  GroupedExpertsArgs args;
  args.x = TensorView(x.data(), DType::kF32, {size.rows, size.inputs});
  args.row_of_item = TensorView(rows.data(), DType::kI32, {size.rows});
  args.item_offsets = TensorView(offsets.data(), DType::kI32, {2});
  args.experts = weights;
  args.swiglu_limit = 4;
  args.out = TensorView(out.data(), DType::kF32, {size.rows, size.inputs});
  (*backend)->GroupedExperts(**stream, args);
  return out;
}

BackendOptions Rounded(std::string_view isa, int threads = 1) {
  return {.name = "cpu",
          .cpu_isa = isa,
          .numerics = "int8-g32",
          .num_threads = threads,
          .work_per_thread = threads > 1 ? 1 : BackendOptions().work_per_thread};
}

std::vector<float> RandomRows(const Case& size, std::mt19937_64* random) {
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(size.rows * size.inputs));
  for (float& value : x) {
    value = normal(*random);
  }
  std::fill_n(x.begin(), kGroup, 0.0F);  // a group without a scale
  return x;
}

// Whole blocks of 512, less than one, and both; more than are unpacked at a time.
constexpr Case kCases[] = {
    {512, 64, 1}, {96, 32, 3}, {1024 + 160, 544, 5}, {2048, 96, 9}, {4096 + 608, 96, 7}};
constexpr std::string_view kIsas[] = {"scalar", "avx2", "avx512", "avx512vnni"};

TEST(RoundedExperts, ComputeWhatTheyAreDefinedToBe) {
  constexpr uint64_t kSeed = 1;
  std::mt19937_64 random(kSeed);
  for (const Case& size : kCases) {
    const Expert expert(size.inputs, size.inner, &random);
    const std::vector<float> x = RandomRows(size, &random);
    const std::vector<float> out = RunExpert(Rounded("auto"), expert, x, size);
    for (int64_t row = 0; row < size.rows; ++row) {
      const auto begin = static_cast<std::ptrdiff_t>(row * size.inputs);
      const std::vector<float> one(x.begin() + begin, x.begin() + begin + size.inputs);
      const std::vector<double> expected = expert.Apply(one, 4);
      double largest = 0;
      for (const double value : expected) {
        largest = std::max(largest, std::abs(value));
      }
      // A rounding of an inner value to the other neighbour changes an output by up to a
      // 127th of one term; float sums by far less.
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_NEAR(out[static_cast<size_t>(begin) + i], expected[i], 2e-3 * largest);
      }
    }
  }
}

TEST(RoundedExperts, BitsAreTheSameOnEveryInstructionSetBatchAndThreadCount) {
  constexpr uint64_t kSeed = 2;
  std::mt19937_64 random(kSeed);
  for (const Case& size : kCases) {
    const Expert expert(size.inputs, size.inner, &random);
    const std::vector<float> x = RandomRows(size, &random);
    const std::vector<float> expected = RunExpert(Rounded("scalar"), expert, x, size);
    for (const std::string_view isa : kIsas) {
      if (!CreateBackend(Rounded(isa)).ok()) {
        continue;  // not on this machine
      }
      EXPECT_EQ(RunExpert(Rounded(isa), expert, x, size), expected) << isa;
      EXPECT_EQ(RunExpert(Rounded(isa, 2), expert, x, size), expected) << isa;
    }
    for (int64_t row = 0; row < size.rows; ++row) {
      const auto begin = static_cast<std::ptrdiff_t>(row * size.inputs);
      const std::vector<float> one(x.begin() + begin, x.begin() + begin + size.inputs);
      const std::vector<float> alone =
          RunExpert(Rounded("auto"), expert, one, {size.inputs, size.inner, 1});
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), expected.begin() + begin));
    }
  }
}

TEST(RoundedExperts, WhatIsNotFiniteIsSeenInItsRowAlone) {
  constexpr uint64_t kSeed = 3;
  std::mt19937_64 random(kSeed);
  const Case size = {512, 64, 2};
  const Expert expert(size.inputs, size.inner, &random);
  for (const float damage : {std::numeric_limits<float>::infinity(),
                             std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> x = RandomRows(size, &random);
    x[static_cast<size_t>(size.inputs) + 77] = damage;
    const std::vector<float> out = RunExpert(Rounded("auto"), expert, x, size);
    for (int64_t i = 0; i < size.inputs; ++i) {
      EXPECT_TRUE(std::isfinite(out[static_cast<size_t>(i)]));
      EXPECT_TRUE(std::isnan(out[static_cast<size_t>(size.inputs + i)]));
    }
  }
}

TEST(RoundedExperts, NumericsHaveAnIdAndUnknownOnesAreRefused) {
  EXPECT_EQ((*CreateBackend(Rounded("scalar")))->numerics_id(), "cpu/int8-g32");
  for (const BackendOptions& options :
       {BackendOptions{.name = "cpu", .numerics = "int3"},
        BackendOptions{.name = "reference", .numerics = "int8-g32"}}) {
    EXPECT_EQ(CreateBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace tessera::kernels
