// Times of the cpu backend's ops at the shapes of the bundled model and of a large one.
// Bytes are those of the weights (or cached rows) that an op must read; `read_share`
// relates them to the read bandwidth of one thread over an array that no cache holds,
// measured at the start.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include <time.h>

#include "common/check.h"
#include "kernels/kernel_backend.h"

namespace tessera::kernels {
namespace {

double ThreadSeconds() {
  timespec now = {};
  TESSERA_CHECK_EQ(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Bytes per second of CPU time that one thread reads from memory: eight running sums over
// 256 MiB.
double MeasureReadBandwidth() {
  const std::vector<uint64_t> memory(size_t{32} << 20, 1);
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double start = ThreadSeconds();
    uint64_t sums[8] = {};
    for (size_t i = 0; i < memory.size(); i += 8) {
      for (size_t lane = 0; lane < 8; ++lane) {
        sums[lane] += memory[i + lane];
      }
    }
    benchmark::DoNotOptimize(sums);
    best = std::max(best,
                    static_cast<double>(memory.size() * 8) / (ThreadSeconds() - start));
  }
  return best;
}

double ReadBandwidth() {
  static const double bandwidth = MeasureReadBandwidth();
  return bandwidth;
}

enum WeightKind { kBf16, kF32, kF8, kFp4 };

// A backend with one thread, and memory that lives as long as the benchmark.
class Bench {
 public:
  explicit Bench(benchmark::State& state) : state_(state) {
    auto backend = CreateBackend({.name = "cpu"});
    TESSERA_CHECK(backend.ok());
    backend_ = std::move(*backend);
    auto stream = backend_->CreateStream();
    TESSERA_CHECK(stream.ok());
    stream_ = std::move(*stream);
  }

  KernelBackend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }

  std::byte* Memory(size_t bytes) {
    auto buffer = backend_->Allocate(bytes);
    TESSERA_CHECK(buffer.ok());
    buffers_.push_back(std::move(*buffer));
    return static_cast<std::byte*>(buffers_.back().data());
  }
  TensorView Floats(std::initializer_list<int64_t> shape) {
    TensorView view(nullptr, DType::kF32, shape);
    view.data = Memory(static_cast<size_t>(view.num_elements()) * 4);
    auto* values = static_cast<float*>(view.data);
    for (int64_t i = 0; i < view.num_elements(); ++i) {
      values[i] = static_cast<float>(i * 37 % 255 - 127) / 128.0F;
    }
    return view;
  }
  TensorView Ints(std::initializer_list<int64_t> shape,
                  const std::vector<int32_t>& values) {
    TensorView view(nullptr, DType::kI32, shape);
    view.data = Memory(values.size() * 4);
    std::memcpy(view.data, values.data(), values.size() * 4);
    return view;
  }
  // Adds what the weights hold to the bytes of an iteration, `reads` times.
  WeightView Weight(WeightKind kind, int64_t rows, int64_t cols) {
    static constexpr DType kTypes[] = {DType::kBF16, DType::kF32, DType::kF8E4M3,
                                       DType::kFp4};
    WeightView w;
    w.dtype = kTypes[kind];
    w.rows = rows;
    w.cols = cols;
    w.row_bytes =
        static_cast<int64_t>(model::DTypeBytes(w.dtype, static_cast<size_t>(cols)));
    std::byte* data = Memory(static_cast<size_t>(rows * w.row_bytes));
    for (int64_t i = 0; i < rows * w.row_bytes; ++i) {
      data[i] = static_cast<std::byte>(i * 7 % 64);  // finite in every format
    }
    w.data = data;
    if (kind == kF8 || kind == kFp4) {
      w.block_rows = kind == kFp4 ? 1 : 128;
      w.block_cols = kind == kFp4 ? 32 : 128;
      w.scale_dtype = DType::kF8E8M0;
      w.scale_stride = (cols + w.block_cols - 1) / w.block_cols;
      const int64_t count = (rows + w.block_rows - 1) / w.block_rows * w.scale_stride;
      std::byte* scales = Memory(static_cast<size_t>(count));
      std::memset(scales, 120, static_cast<size_t>(count));
      w.scales = scales;
      bytes_ += count;
    }
    bytes_ += rows * w.row_bytes;
    return w;
  }
  void AddBytes(int64_t bytes) { bytes_ += bytes; }

  // Runs `op` in the timing loop and reports.
  template <typename Op>
  void Run(const Op& op, double multiply_adds) {
    for (auto _ : state_) {
      op();
      benchmark::ClobberMemory();
    }
    const double runs = static_cast<double>(state_.iterations());
    state_.SetLabel(std::string(backend_->isa()));
    state_.counters["bytes"] = static_cast<double>(bytes_);
    state_.counters["bytes_per_s"] = benchmark::Counter(
        static_cast<double>(bytes_) * runs, benchmark::Counter::kIsRate);
    state_.counters["read_share"] =
        benchmark::Counter(static_cast<double>(bytes_) * runs / ReadBandwidth(),
                           benchmark::Counter::kIsRate);
    state_.counters["fma_per_s"] =
        benchmark::Counter(multiply_adds * runs, benchmark::Counter::kIsRate);
  }

 private:
  benchmark::State& state_;
  std::unique_ptr<KernelBackend> backend_;
  std::unique_ptr<Stream> stream_;
  std::vector<DeviceBuffer> buffers_;
  int64_t bytes_ = 0;
};

// Arguments: format, rows of x, inputs, outputs.
void BM_Linear(benchmark::State& state) {
  Bench bench(state);
  const int64_t rows = state.range(1);
  const int64_t inputs = state.range(2);
  const int64_t outputs = state.range(3);
  const WeightView w =
      bench.Weight(static_cast<WeightKind>(state.range(0)), outputs, inputs);
  const TensorView x = bench.Floats({rows, inputs});
  const TensorView out = bench.Floats({rows, outputs});
  bench.Run([&] { bench.backend().Linear(bench.stream(), x, w, KSplit::Whole(), out); },
            static_cast<double>(rows * inputs * outputs));
}
BENCHMARK(BM_Linear)
    ->ArgNames({"format", "rows", "in", "out"})
    ->Args({kBf16, 1, 192, 4096})
    ->Args({kF8, 1, 192, 96})
    ->Args({kF8, 1, 256, 192})
    ->Args({kF8, 1, 384, 960})
    ->Args({kF8, 64, 384, 960})
    ->Args({kBf16, 1, 7168, 2048})
    ->Args({kF8, 1, 7168, 2048})
    ->Args({kFp4, 1, 7168, 2048})
    ->Args({kF8, 16, 7168, 2048})
    ->Args({kF8, 256, 7168, 2048});

// Arguments: tokens, experts per token, experts, d, m. MXFP4.
void BM_GroupedExperts(benchmark::State& state) {
  Bench bench(state);
  const int64_t tokens = state.range(0);
  const int64_t items = tokens * state.range(1);
  const int64_t experts = state.range(2);
  const int64_t d = state.range(3);
  const int64_t m = state.range(4);
  std::vector<ExpertWeights> weights;
  std::vector<int32_t> offsets = {0};
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t end = items * (e + 1) / experts;
    // An expert without an item is not read.
    if (end == offsets.back()) {
      weights.push_back(weights.empty() ? ExpertWeights{} : weights.back());
    } else {
      weights.push_back(
          {bench.Weight(kFp4, m, d), bench.Weight(kFp4, m, d), bench.Weight(kFp4, d, m)});
    }
    offsets.push_back(static_cast<int32_t>(end));
  }
  weights.front() = weights.back();
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < items; ++i) {
    rows.push_back(static_cast<int32_t>(i % tokens));
  }
  GroupedExpertsArgs args;
  args.x = bench.Floats({tokens, d});
  args.row_of_item = bench.Ints({items}, rows);
  args.item_offsets = bench.Ints({experts + 1}, offsets);
  args.experts = weights;
  args.out = bench.Floats({items, d});
  bench.Run([&] { bench.backend().GroupedExperts(bench.stream(), args); },
            static_cast<double>(items * d * m * 3));
}
BENCHMARK(BM_GroupedExperts)
    ->ArgNames({"tokens", "picks", "experts", "d", "m"})
    ->Args({1, 16, 256, 192, 32})
    ->Args({64, 16, 256, 192, 32})
    ->Args({1, 8, 16, 7168, 2048});

// Arguments: queries, heads, c, r, selected rows.
void BM_MlaAttention(benchmark::State& state) {
  Bench bench(state);
  const int64_t queries = state.range(0);
  const int64_t heads = state.range(1);
  const int64_t c = state.range(2);
  const int64_t r = state.range(3);
  const int64_t count = state.range(4);
  constexpr int64_t kBlock = 16;
  const int64_t blocks = count / kBlock + 1;
  std::vector<int32_t> table;
  for (int64_t i = 0; i < blocks; ++i) {
    table.push_back(static_cast<int32_t>(blocks - 1 - i));
  }
  std::vector<int32_t> selected;
  for (int64_t i = 0; i < queries * count; ++i) {
    selected.push_back(static_cast<int32_t>(i % count));
  }
  const auto tokens = static_cast<size_t>(queries);
  MlaAttentionArgs args;
  args.q_latent = bench.Floats({queries, heads, c});
  args.q_rope = bench.Floats({queries, heads, r});
  args.latent = bench.Floats({blocks, kBlock, c});
  args.k_rope = bench.Floats({blocks, kBlock, r});
  args.index.block_tables = bench.Ints({1, blocks}, table);
  args.index.sequence_of_row = bench.Ints({queries}, std::vector<int32_t>(tokens, 0));
  args.index.positions = bench.Ints(
      {queries}, std::vector<int32_t>(tokens, static_cast<int32_t>(count) - 1));
  args.index.block_size = kBlock;
  args.selected = bench.Ints({queries, count}, selected);
  args.num_selected =
      bench.Ints({queries}, std::vector<int32_t>(tokens, static_cast<int32_t>(count)));
  args.scale = 0.1;
  args.out = bench.Floats({queries, heads, c});
  bench.AddBytes(queries * count * (c + r) * 4);
  bench.Run([&] { bench.backend().MlaAttention(bench.stream(), args); },
            static_cast<double>(queries * heads * count * (2 * c + r)));
}
BENCHMARK(BM_MlaAttention)
    ->ArgNames({"queries", "heads", "c", "r", "rows"})
    ->Args({1, 8, 64, 16, 128})
    ->Args({1, 128, 512, 64, 2048});

// Arguments: tokens, d. Four streams.
void BM_HyperCoefficients(benchmark::State& state) {
  Bench bench(state);
  const int64_t tokens = state.range(0);
  const int64_t d = state.range(1);
  constexpr int64_t kStreams = 4;
  HyperCoefficientsArgs args;
  args.streams = bench.Floats({tokens, kStreams, d});
  args.fn = bench.Weight(kF32, kStreams * (kStreams + 2), kStreams * d);
  args.base = bench.Floats({kStreams * (kStreams + 2)}).as<float>();
  args.scale = bench.Floats({3}).as<float>();
  args.norm_eps = 1e-6;
  args.eps = 1e-6;
  args.sinkhorn_iters = 20;
  args.pre = bench.Floats({tokens, kStreams});
  args.post = bench.Floats({tokens, kStreams});
  args.mix = bench.Floats({tokens, kStreams, kStreams});
  bench.Run([&] { bench.backend().HyperCoefficients(bench.stream(), args); },
            static_cast<double>(tokens * args.fn.rows * args.fn.cols));
}
BENCHMARK(BM_HyperCoefficients)
    ->ArgNames({"tokens", "d"})
    ->Args({1, 192})
    ->Args({1, 7168});

// Arguments: tokens, d, experts, picks.
void BM_Route(benchmark::State& state) {
  Bench bench(state);
  const int64_t tokens = state.range(0);
  RouterArgs args;
  args.x = bench.Floats({tokens, state.range(1)});
  args.gate = bench.Weight(kBf16, state.range(2), state.range(1));
  args.bias = bench.Floats({state.range(2)}).as<float>();
  args.scaling = 2.5;
  args.expert_ids =
      bench.Ints({tokens, state.range(3)},
                 std::vector<int32_t>(static_cast<size_t>(tokens * state.range(3)), 0));
  args.weights = bench.Floats({tokens, state.range(3)});
  bench.Run([&] { bench.backend().Route(bench.stream(), args); },
            static_cast<double>(tokens * state.range(1) * state.range(2)));
}
BENCHMARK(BM_Route)
    ->ArgNames({"tokens", "d", "experts", "picks"})
    ->Args({1, 192, 256, 16})
    ->Args({1, 7168, 256, 8});

}  // namespace
}  // namespace tessera::kernels

BENCHMARK_MAIN();
