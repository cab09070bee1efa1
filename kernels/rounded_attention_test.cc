// MlaAttention of numerics w8a8-g32: what is computed, stated in plain loops and met bit
// by bit on every instruction set; and how far that is from attention that rounds
// nothing. That batches, threads and damage are as they should: latent_attention_test.cc.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cache_view.h"
#include "kernels/kernel_backend.h"

namespace tessera::kernels {
namespace {

constexpr std::string_view kIsas[] = {"scalar", "avx2", "avx512", "avx512vnni"};
constexpr int64_t kGroup = 32;        // values with a scale, and rows of a run
constexpr int64_t kTile = 128;        // columns of a row with a step
constexpr int64_t kBlockOfRows = 96;  // merged in rising order
constexpr int64_t kPage = 16;

struct Case {
  int64_t heads;
  int64_t latent;
  int64_t rope;
  int64_t rows;
  float spread;  // of the scores: how much a few rows have of the weight
};

// Groups, tiles and vectors that end early; rows in one run, and in several blocks; more
// heads than there is room for at a time.
const Case kCases[] = {{16, 512, 64, 150, 0.02F}, {21, 200, 40, 300, 0.05F},
                       {3, 40, 8, 33, 0.3F},      {8, 64, 16, 96, 0.1F},
                       {1, 16, 16, 1, 1.0F},      {5, 136, 4, 97, 1.0F},
                       {2040, 512, 64, 3, 0.05F}};

struct Problem {
  Case size;
  std::vector<float> q_latent;  // [heads, latent]
  std::vector<float> q_rope;
  std::vector<float> rows;  // [rows, latent + rope]

  int64_t width() const { return size.latent + size.rope; }
  const float* row(int64_t i) const { return rows.data() + i * width(); }
};

Problem RandomProblem(const Case& size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  const auto values = [&](int64_t count) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& value : out) {
      value = normal(random);
    }
    return out;
  };
  Problem problem = {size, values(size.heads * size.latent),
                     values(size.heads * size.rope),
                     values(size.rows * (size.latent + size.rope))};
  for (size_t i = 0; i < problem.rows.size(); i += 61) {
    problem.rows[i] *= 12;  // a value far out
  }
  if (size.rows > 1) {  // a latent without a scale
    std::fill_n(problem.rows.begin() + problem.width(), size.latent, 0.0F);
  }
  return problem;
}

std::vector<float> Attend(std::string_view isa, std::string_view numerics,
                          Problem problem) {
  const auto backend =
      CreateBackend({.name = "cpu", .cpu_isa = isa, .numerics = numerics});
  EXPECT_TRUE(backend.ok()) << backend.status();
  const auto stream = (*backend)->CreateStream();
  const Case& size = problem.size;
  const int64_t pages = (size.rows + kPage - 1) / kPage;
  problem.rows.resize(static_cast<size_t>(pages * kPage * problem.width()));
  std::vector<int32_t> blocks(static_cast<size_t>(pages));
  for (size_t i = 0; i < blocks.size(); ++i) {
    blocks[i] = static_cast<int32_t>(i);
  }
  int32_t sequence = 0;
  auto position = static_cast<int32_t>(size.rows - 1);
  std::vector<float> out(static_cast<size_t>(size.heads * size.latent), -1.0F);
  (*backend)->MlaAttention(
      **stream,
      {.q_latent = {problem.q_latent.data(), DType::kF32, {1, size.heads, size.latent}},
       .q_rope = {problem.q_rope.data(), DType::kF32, {1, size.heads, size.rope}},
       .rows =
           TensorView(problem.rows.data(), DType::kF32, {pages, kPage, problem.width()}),
       .index = {.block_tables = {blocks.data(), DType::kI32, {1, pages}},
                 .sequence_of_row = {&sequence, DType::kI32, {1}},
                 .positions = {&position, DType::kI32, {1}},
                 .block_size = kPage},
       .selected = TensorView(),
       .num_selected = TensorView(),
       .scale = size.spread,
       .out = {out.data(), DType::kF32, {1, size.heads, size.latent}}});
  return out;
}

// ---- the definition ----

// e^x as the cpu backend has it.
float Exp(float x) {
  x = std::min(89.0F, std::max(-104.0F, x));
  const float shifter = 0x1.8p23F;
  const float n = std::fma(x, 0x1.715476p0F, shifter) - shifter;
  float r = std::fma(n, -0x1.62e4p-1F, x);
  r = std::fma(n, -0x1.7f7d1cp-20F, r);
  float p = std::fma(r, 1.0F / 5040.0F, 1.0F / 720.0F);
  for (const float term : {1.0F / 120.0F, 1.0F / 24.0F, 1.0F / 6.0F, 0.5F, 1.0F, 1.0F}) {
    p = std::fma(p, r, term);
  }
  const auto power = static_cast<int>(n);
  const int low = power >> 1;
  return p * std::ldexp(1.0F, low) * std::ldexp(1.0F, power - low);
}

struct Codes {
  std::vector<int32_t> codes;
  float scale;
};

// Values in steps of their largest over 127.
Codes Round(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) {
    largest = std::max(largest, std::abs(value));
  }
  const bool zero = largest < 0x1p-100F;
  const float factor = zero ? 0.0F : 127.0F / largest;
  Codes out = {{}, zero ? 0.0F : largest / 127.0F};
  for (const float value : values) {
    out.codes.push_back(static_cast<int32_t>(std::nearbyint(value * factor)));
  }
  return out;
}

int32_t Dot(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  int32_t sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

std::vector<Codes> Groups(const float* values, int64_t n) {
  std::vector<Codes> out;
  for (int64_t begin = 0; begin < n; begin += kGroup) {
    out.push_back(Round({values + begin, values + std::min(begin + kGroup, n)}));
  }
  return out;
}

float Score(const std::vector<Codes>& q, const std::vector<Codes>& k) {
  float sum = 0;
  for (size_t g = 0; g < q.size(); ++g) {
    sum = std::fma(static_cast<float>(Dot(q[g].codes, k[g].codes)),
                   q[g].scale * k[g].scale, sum);
  }
  return sum;
}

// A head's attention to a block of rows.
struct Result {
  float maximum = 0;
  float total = 0;
  std::vector<float> sums;
};

class Definition {
 public:
  explicit Definition(const Problem& problem) : problem_(problem) {
    for (int64_t i = 0; i < problem.size.rows; ++i) {
      keys_.push_back(Both(problem.row(i), problem.row(i) + problem.size.latent));
    }
  }

  std::vector<float> Head(int64_t head) const {
    const auto q = Both(problem_.q_latent.data() + head * problem_.size.latent,
                        problem_.q_rope.data() + head * problem_.size.rope);
    Result all;
    for (int64_t row = 0; row < problem_.size.rows; row += kBlockOfRows) {
      const Result block =
          Block(q, row, std::min(row + kBlockOfRows, problem_.size.rows));
      all = row == 0 ? block : Merge(all, block);
    }
    for (float& sum : all.sums) {
      sum /= all.total;
    }
    return all.sums;
  }

 private:
  std::vector<Codes> Both(const float* latent, const float* rope) const {
    std::vector<Codes> groups = Groups(latent, problem_.size.latent);
    for (Codes& group : Groups(rope, problem_.size.rope)) {
      groups.push_back(group);
    }
    return groups;
  }

  Result Block(const std::vector<Codes>& q, int64_t begin, int64_t end) const {
    std::vector<float> weights;
    for (int64_t i = begin; i < end; ++i) {
      weights.push_back(Score(q, keys_[static_cast<size_t>(i)]) * problem_.size.spread);
    }
    Result out;
    out.maximum = *std::max_element(weights.begin(), weights.end());
    for (float& weight : weights) {
      weight = Exp(weight - out.maximum);
      out.total += weight;
    }
    for (int64_t column = 0; column < problem_.size.latent; ++column) {
      out.sums.push_back(Column(weights, begin, column));
    }
    return out;
  }

  float Column(const std::vector<float>& weights, int64_t begin, int64_t column) const {
    float sum = 0;
    const auto count = static_cast<int64_t>(weights.size());
    for (int64_t run = 0; run < count; run += kGroup) {
      const int64_t end = std::min(run + kGroup, count);
      const float largest =
          *std::max_element(weights.begin() + run, weights.begin() + end);
      float largest_step = 0;
      for (int64_t i = run; i < end; ++i) {
        largest_step = std::max(largest_step, Step(begin + i, column / kTile));
      }
      const bool zero = largest < 0x1p-100F;
      const float factor = zero ? 0.0F : 255.0F / largest;
      const float inverse = largest_step > 0 ? 1.0F / largest_step : 0.0F;
      int32_t dot = 0;
      for (int64_t i = run; i < end; ++i) {
        const float step = Step(begin + i, column / kTile);
        const float value = problem_.row(begin + i)[column];
        const double p = static_cast<double>(weights[static_cast<size_t>(i)] * factor) *
                         (step * inverse);
        dot += static_cast<int32_t>(std::nearbyint(p)) *
               static_cast<int32_t>(std::nearbyint(value * (step > 0 ? 1.0F / step : 0)));
      }
      const float scale = (zero ? 0.0F : largest / 255.0F) * largest_step;
      sum = std::fma(static_cast<float>(dot), scale, sum);
    }
    return sum;
  }

  float Step(int64_t row, int64_t tile) const {
    const int64_t end = std::min((tile + 1) * kTile, problem_.size.latent);
    float step = 0;
    for (int64_t g = tile * kTile / kGroup; g * kGroup < end; ++g) {
      step =
          std::max(step, keys_[static_cast<size_t>(row)][static_cast<size_t>(g)].scale);
    }
    return step;
  }

  static Result Merge(const Result& all, const Result& block) {
    Result out;
    out.maximum = std::max(all.maximum, block.maximum);
    const float keep = Exp(all.maximum - out.maximum);
    const float add = Exp(block.maximum - out.maximum);
    out.total = std::fma(block.total, add, all.total * keep);
    for (size_t c = 0; c < all.sums.size(); ++c) {
      out.sums.push_back(std::fma(block.sums[c], add, all.sums[c] * keep));
    }
    return out;
  }

  const Problem& problem_;
  std::vector<std::vector<Codes>> keys_;  // of rows
};

TEST(RoundedAttention, HasTheBitsOfItsDefinitionOnEveryInstructionSet) {
  uint64_t seed = 1;
  for (const Case& size : kCases) {
    const Problem problem = RandomProblem(size, seed++);
    const Definition definition(problem);
    std::vector<float> expected;
    for (int64_t head = 0; head < size.heads; ++head) {
      for (const float value : definition.Head(head)) {
        expected.push_back(value);
      }
    }
    for (const std::string_view isa : kIsas) {
      if (!CreateBackend({.name = "cpu", .cpu_isa = isa}).ok()) {
        continue;  // not on this machine
      }
      EXPECT_EQ(Attend(isa, "w8a8-g32", problem), expected)
          << isa << ", " << size.rows << " rows of " << size.latent << ", seed "
          << seed - 1;
    }
  }
}

// How far rounding moves the result, as a share of its length. The largest of 128 values
// is here one far out, about 20 times a normal one: a step is 0.16 of that, and the mean
// error 0.29 of a step, 4.6 %, in those tiles that have one; less over several rows.
TEST(RoundedAttention, StaysNearAttentionThatRoundsNothing) {
  constexpr double kMost = 0.046;
  uint64_t seed = 21;
  for (const Case& size : kCases) {
    const Problem problem = RandomProblem(size, seed++);
    const std::vector<float> exact = Attend("auto", "f32", problem);
    const std::vector<float> rounded = Attend("auto", "w8a8-g32", problem);
    double length = 0;
    double apart = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      length += static_cast<double>(exact[i]) * exact[i];
      apart += std::pow(static_cast<double>(exact[i]) - rounded[i], 2);
    }
    EXPECT_LT(std::sqrt(apart / length), kMost)
        << size.rows << " rows, seed " << seed - 1;
    EXPECT_GT(apart, 0) << size.rows << " rows";
  }
}

}  // namespace
}  // namespace tessera::kernels
