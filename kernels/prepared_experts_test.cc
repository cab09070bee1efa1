// GroupedExperts of numerics w8a8-g32 with weights that Prepare has marked: each product
// is that of Linear, bit by bit, at any number of items, experts and threads and on every
// instruction set. What Linear computes is rounded_linear_test's.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"

namespace tessera::kernels {
namespace {

constexpr uint64_t kSeed = 11;
constexpr std::string_view kIsas[] = {"scalar", "avx2", "avx512", "avx512vnni", "amx"};
constexpr double kLimit = 4;

BackendOptions Rounded(std::string_view isa, int threads = 1) {
  return {.name = "cpu",
          .cpu_isa = isa,
          .numerics = "w8a8-g32",
          .num_threads = threads,
          .work_per_thread = threads > 1 ? 1 : BackendOptions().work_per_thread};
}

// The values of a matrix, and how a checkpoint could hold them.
struct Matrix {
  int64_t rows;
  int64_t cols;
  std::vector<uint16_t> bf16;

  WeightView View() const {
    WeightView view;
    view.data = reinterpret_cast<const std::byte*>(bf16.data());
    view.dtype = DType::kBF16;
    view.rows = rows;
    view.cols = cols;
    view.row_bytes = cols * 2;
    return view;
  }
};

Matrix RandomMatrix(int64_t rows, int64_t cols, std::mt19937_64* random) {
  Matrix matrix = {rows, cols, {}};
  for (int64_t i = 0; i < rows * cols; ++i) {
    // Between 2^-8 and 2, either sign.
    const auto bits = 0x3B80 + (*random)() % 0x480 + ((*random)() % 2 << 15);
    matrix.bf16.push_back(static_cast<uint16_t>(bits));
  }
  return matrix;
}

struct Expert {
  Matrix gate;
  Matrix up;
  Matrix down;
};

struct Case {
  int64_t inputs;
  int64_t inner;
  std::vector<int64_t> items;  // of each expert
};

// Less than a block of rows, more than one, more than a pass of 96, an expert without
// items, widths that are no multiple of a tile or a group.
const std::vector<Case>& Cases() {
  static const std::vector<Case> cases = {{64, 16, {1}},
                                          {96, 40, {1, 0, 7, 2}},
                                          {72, 200, {13, 1, 100, 6}},
                                          {512, 64, {0, 5, 0}}};
  return cases;
}

struct Problem {
  Case size;
  std::vector<Expert> experts;
  std::vector<float> x;  // [rows, inputs]
  std::vector<int32_t> row_of_item;
  std::vector<int32_t> offsets = {0};
  std::vector<float> item_weights;

  int64_t num_items() const { return offsets.back(); }
};

Problem MakeProblem(const Case& size, std::mt19937_64* random) {
  Problem problem;
  problem.size = size;
  for (const int64_t items : size.items) {
    problem.experts.push_back({RandomMatrix(size.inner, size.inputs, random),
                               RandomMatrix(size.inner, size.inputs, random),
                               RandomMatrix(size.inputs, size.inner, random)});
    problem.offsets.push_back(problem.offsets.back() + static_cast<int32_t>(items));
  }
  constexpr int64_t kRows = 5;
  std::normal_distribution<float> normal(0, 0.2F);
  for (int64_t i = 0; i < kRows * size.inputs; ++i) {
    problem.x.push_back(normal(*random));
  }
  for (int64_t i = 0; i < problem.num_items(); ++i) {
    problem.row_of_item.push_back(static_cast<int32_t>((*random)() % kRows));
    problem.item_weights.push_back(1.0F + static_cast<float>(i % 3));
  }
  return problem;
}

// A backend with the problem's experts prepared.
class Prepared {
 public:
  Prepared(const BackendOptions& options, const Problem& problem) : problem_(problem) {
    auto backend = CreateBackend(options);
    EXPECT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    stream_ = *backend_->CreateStream();
    for (const Expert& expert : problem.experts) {
      experts_.push_back(
          {Prepare(expert.gate), Prepare(expert.up), Prepare(expert.down)});
    }
  }

  std::vector<float> GroupedExperts(bool with_weights) {
    const int64_t items = problem_.num_items();
    std::vector<float> out(static_cast<size_t>(items * problem_.size.inputs), -1);
    Problem copy = problem_;  // views carry no constness
    GroupedExpertsArgs args;
    args.x = View(copy.x, problem_.size.inputs);
    args.row_of_item = TensorView(copy.row_of_item.data(), DType::kI32, {items});
    args.item_offsets = TensorView(copy.offsets.data(), DType::kI32,
                                   {static_cast<int64_t>(copy.offsets.size())});
    args.experts = experts_;
    args.swiglu_limit = kLimit;
    if (with_weights) {
      args.item_weights = TensorView(copy.item_weights.data(), DType::kF32, {items});
    }
    args.out = View(out, problem_.size.inputs);
    backend_->GroupedExperts(*stream_, args);
    return out;
  }

  // The same, a product at a time.
  std::vector<float> ByLinear(bool with_weights) {
    std::vector<float> out;
    for (size_t e = 0; e < experts_.size(); ++e) {
      for (int32_t item = problem_.offsets[e]; item < problem_.offsets[e + 1]; ++item) {
        const auto at = static_cast<size_t>(item);
        const std::ptrdiff_t begin =
            problem_.row_of_item[at] * static_cast<std::ptrdiff_t>(problem_.size.inputs);
        const std::vector<float> row(
            problem_.x.begin() + begin,
            problem_.x.begin() + begin +
                static_cast<std::ptrdiff_t>(problem_.size.inputs));
        std::vector<float> gate = Linear(row, experts_[e].gate);
        std::vector<float> up = Linear(row, experts_[e].up);
        const TensorView view = View(gate, problem_.size.inner);
        backend_->SiluMul(*stream_, view, View(up, problem_.size.inner), kLimit, view);
        for (float& value : gate) {
          value *= with_weights ? problem_.item_weights[at] : 1.0F;
        }
        const std::vector<float> down = Linear(gate, experts_[e].down);
        out.insert(out.end(), down.begin(), down.end());
      }
    }
    return out;
  }

 private:
  static TensorView View(std::vector<float>& values, int64_t width) {
    return {
        values.data(), DType::kF32, {static_cast<int64_t>(values.size()) / width, width}};
  }
  WeightView Prepare(const Matrix& matrix) {
    DeviceBuffer memory;
    const auto view = backend_->Prepare(matrix.View(), KSplit::Whole(), &memory);
    EXPECT_TRUE(view.ok()) << view.status();
    EXPECT_TRUE(view->rounded);
    memory_.push_back(std::move(memory));
    return *view;
  }
  std::vector<float> Linear(std::vector<float> x, const WeightView& w) {
    std::vector<float> out(static_cast<size_t>(w.rows));
    backend_->Linear(*stream_, View(x, w.cols), w, KSplit::Whole(), View(out, w.rows));
    return out;
  }

  const Problem& problem_;
  std::unique_ptr<KernelBackend> backend_;
  std::unique_ptr<Stream> stream_;
  std::vector<DeviceBuffer> memory_;
  std::vector<ExpertWeights> experts_;
};

TEST(PreparedExperts, HaveTheBitsOfLinearOnEveryInstructionSetAndThreadCount) {
  std::mt19937_64 random(kSeed);
  for (const Case& size : Cases()) {
    const Problem problem = MakeProblem(size, &random);
    for (const bool with_weights : {false, true}) {
      const std::vector<float> expected =
          Prepared(Rounded("scalar"), problem).ByLinear(with_weights);
      for (const std::string_view isa : kIsas) {
        if (!CreateBackend(Rounded(isa)).ok()) {
          continue;  // not on this machine
        }
        for (const int threads : {1, 3}) {
          EXPECT_EQ(Prepared(Rounded(isa, threads), problem).GroupedExperts(with_weights),
                    expected)
              << isa << ", threads " << threads << ", inputs " << size.inputs;
        }
      }
    }
  }
}

TEST(PreparedExperts, ManyItemsOfWideExpertsTakeSeveralRuns) {
  std::mt19937_64 random(kSeed + 1);
  // What lies between gate and down is more than the scratch of a run holds, for one
  // expert alone and for all.
  const Problem problem = MakeProblem({64, 4096, {150, 90, 2, 130}}, &random);
  Prepared prepared(Rounded("auto", 2), problem);
  EXPECT_EQ(prepared.GroupedExperts(false), prepared.ByLinear(false));
}

}  // namespace
}  // namespace tessera::kernels
