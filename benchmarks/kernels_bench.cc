// Times of a backend's ops at the shapes of the bundled model and of a large one. Bytes
// are those of the weights (or cached rows) that an op must read; `read_share` relates
// them to the read bandwidth, measured at the start: of one thread over an array that no
// cache holds, or with --backend=cuda of the GPU. There `peak_share` is that of its
// float32 multiply-adds, `share` the larger of the two, and a launch's own time is hidden
// behind kOpsPerWait ops.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "benchmark/benchmark.h"
#include <time.h>

#include "benchmarks/bench_target.h"
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

constexpr int kOpsPerWait = 16;  // on a GPU

// kF8 has scales of 128 x 128 values, kF8Small of 32 x 32.
enum WeightKind { kBf16, kF32, kF8, kFp4, kF8Small };

// The target's backend, with one thread, and memory that lives as long as the benchmark.
class Bench {
 public:
  explicit Bench(benchmark::State& state, std::string_view numerics = "f32")
      : state_(state) {
    auto backend =
        CreateBackend({.name = TheBenchTarget().backend, .numerics = numerics});
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
  // Rows of `values` [blocks, block_size, width], packed.
  CacheView Packed(const TensorView& values, const RowFormat& format) {
    TensorView rows(nullptr, DType::kU8,
                    {values.dim(0), values.dim(1), format.packed_bytes()});
    rows.data = Memory(static_cast<size_t>(rows.num_elements()));
    for (int64_t i = 0; i < values.dim(0) * values.dim(1); ++i) {
      PackRow(format, values.as<float>() + i * format.width,
              static_cast<std::byte*>(rows.data) + i * format.packed_bytes());
    }
    return {rows, format};
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
                                       DType::kFp4, DType::kF8E4M3};
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
    if (kind == kF8 || kind == kFp4 || kind == kF8Small) {
      w.block_rows = kind == kFp4 ? 1 : (kind == kF8Small ? 32 : 128);
      w.block_cols = kind == kF8 ? 128 : 32;
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
    if (TheBenchTarget().is_gpu()) {
      RunOnGpu(op, multiply_adds);
      return;
    }
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
  template <typename Op>
  void RunOnGpu(const Op& op, double multiply_adds) {
    op();  // its memory moves to the device
    TESSERA_CHECK(stream_->Synchronize().ok());
    const auto start = std::chrono::steady_clock::now();
    for (auto _ : state_) {
      for (int i = 0; i < kOpsPerWait; ++i) {
        op();
      }
      TESSERA_CHECK(stream_->Synchronize().ok());
    }
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - start;
    const double of_one =
        seconds.count() / static_cast<double>(state_.iterations()) / kOpsPerWait;
    const DeviceLimits& limits = TheBenchTarget().limits;
    const double read_share =
        static_cast<double>(bytes_) / of_one / limits.read_bytes_per_s;
    const double peak_share = multiply_adds / of_one / limits.multiply_adds_per_s;
    state_.counters["us_per_op"] = of_one * 1e6;
    state_.counters["bytes"] = static_cast<double>(bytes_);
    state_.counters["bytes_per_s"] = static_cast<double>(bytes_) / of_one;
    state_.counters["fma_per_s"] = multiply_adds / of_one;
    state_.counters["read_share"] = read_share;
    state_.counters["peak_share"] = peak_share;
    state_.counters["share"] = std::max(read_share, peak_share);
  }

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

// Arguments: format, tokens, heads, inputs and outputs of a head.
void BM_HeadLinear(benchmark::State& state) {
  Bench bench(state);
  const int64_t tokens = state.range(1);
  const int64_t heads = state.range(2);
  const int64_t inputs = state.range(3);
  const int64_t outputs = state.range(4);
  const WeightView w =
      bench.Weight(static_cast<WeightKind>(state.range(0)), heads * outputs, inputs);
  const TensorView x = bench.Floats({tokens, heads, inputs});
  const TensorView out = bench.Floats({tokens, heads, outputs});
  bench.Run([&] { bench.backend().HeadLinear(bench.stream(), x, w, outputs, 0, out); },
            static_cast<double>(tokens * heads * inputs * outputs));
}
BENCHMARK(BM_HeadLinear)
    ->ArgNames({"format", "tokens", "heads", "in", "out"})
    ->Args({kBf16, 1, 8, 4096, 1024})
    ->Args({kF8, 1, 8, 4096, 1024})
    ->Args({kF8Small, 1, 8, 4096, 1024})
    ->Args({kF8, 64, 8, 4096, 1024});

// Arguments: tokens, experts per token, experts, d, m, 1: inputs in 8 bits. MXFP4.
void BM_GroupedExperts(benchmark::State& state) {
  if (TheBenchTarget().is_gpu() && state.range(5) != 0) {
    state.SkipWithError("rounded inputs are the cpu backend's");
    return;
  }
  Bench bench(state, state.range(5) != 0 ? "int8-g32" : "f32");
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
    ->ArgNames({"tokens", "picks", "experts", "d", "m", "int8"})
    ->Args({1, 16, 256, 192, 32, 0})
    ->Args({1, 16, 256, 192, 32, 1})
    ->Args({64, 16, 256, 192, 32, 0})
    ->Args({64, 16, 256, 192, 32, 1})
    ->Args({1, 8, 16, 7168, 2048, 0})
    ->Args({1, 8, 16, 7168, 2048, 1})
    ->Args({128, 8, 16, 4096, 2048, 0})
    ->Args({128, 8, 16, 4096, 2048, 1});

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
  args.rows = bench.Floats({blocks, kBlock, c + r});
  if (state.range(5) != 0) {
    args.rows = bench.Packed(args.rows.rows,
                             {RowCode::kE4M3, RowScale::kF32, c + r, c, int64_t{128}});
  }
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
  bench.AddBytes(queries * count * args.rows.rows.dim(2) *
                 (args.rows.format.is_packed() ? 1 : 4));
  bench.Run([&] { bench.backend().MlaAttention(bench.stream(), args); },
            static_cast<double>(queries * heads * count * (2 * c + r)));
}
BENCHMARK(BM_MlaAttention)
    ->ArgNames({"queries", "heads", "c", "r", "rows", "packed"})
    ->Args({1, 8, 64, 16, 128, 0})
    ->Args({1, 8, 64, 16, 128, 1})
    ->Args({1, 16, 512, 64, 2048, 0})
    ->Args({1, 16, 512, 64, 2048, 1})
    ->Args({1, 128, 512, 64, 2048, 0})
    ->Args({1, 128, 512, 64, 2048, 1});

// One sequence of `positions` tokens whose blocks lie in falling order, and queries that
// all stand at its end.
PagedIndex IndexAtEnd(Bench& bench, int64_t queries, int64_t positions,
                      int64_t block_size) {
  const int64_t blocks = positions / block_size + 1;
  std::vector<int32_t> table;
  for (int64_t i = 0; i < blocks; ++i) {
    table.push_back(static_cast<int32_t>(blocks - 1 - i));
  }
  const auto tokens = static_cast<size_t>(queries);
  PagedIndex index;
  index.block_tables = bench.Ints({1, blocks}, table);
  index.sequence_of_row = bench.Ints({queries}, std::vector<int32_t>(tokens, 0));
  index.positions = bench.Ints(
      {queries}, std::vector<int32_t>(tokens, static_cast<int32_t>(positions) - 1));
  index.block_size = block_size;
  return index;
}

// Arguments: queries, heads, D, rows of the window, entries. Bytes are those of the rows,
// once per query.
void BM_SharedKvAttention(benchmark::State& state) {
  Bench bench(state);
  const int64_t queries = state.range(0);
  const int64_t heads = state.range(1);
  const int64_t dim = state.range(2);
  const int64_t window = state.range(3);
  const int64_t entries = state.range(4);
  constexpr int64_t kRatio = 4;
  constexpr int64_t kBlock = 128;
  const auto tokens = static_cast<size_t>(queries);
  const int64_t positions = std::max(window, entries * kRatio);
  SharedKvAttentionArgs args;
  args.q = bench.Floats({queries, heads, dim});
  args.window = IndexAtEnd(bench, queries, positions, kBlock);
  args.window_rows = bench.Floats({args.window.block_tables.dim(1), kBlock, dim});
  args.window_begin = bench.Ints(
      {queries}, std::vector<int32_t>(tokens, static_cast<int32_t>(positions - window)));
  args.window_end = bench.Ints(
      {queries}, std::vector<int32_t>(tokens, static_cast<int32_t>(positions)));
  args.entry_index = args.window;
  args.entry_index.block_size = kBlock / kRatio;
  args.ratio = kRatio;
  args.entries = bench.Floats({args.window.block_tables.dim(1), kBlock / kRatio, dim});
  args.sinks = bench.Floats({heads}).as<float>();
  args.scale = 0.044;
  args.out = bench.Floats({queries, heads, dim});
  bench.AddBytes(queries * (window + entries) * dim * 4);
  bench.Run([&] { bench.backend().SharedKvAttention(bench.stream(), args); },
            static_cast<double>(queries * heads * (window + entries) * dim * 2));
}
BENCHMARK(BM_SharedKvAttention)
    ->ArgNames({"queries", "heads", "D", "window", "entries"})
    ->Args({1, 64, 512, 128, 0})
    ->Args({1, 64, 512, 128, 512})
    ->Args({1, 8, 512, 128, 512})
    ->Args({1, 64, 512, 128, 8192})
    ->Args({16, 64, 512, 128, 512});

// Arguments: tokens, D, ratio, overlap. One entry per `ratio` tokens.
void BM_Compress(benchmark::State& state) {
  Bench bench(state);
  const int64_t tokens = state.range(0);
  const int64_t dim = state.range(1);
  const int64_t ratio = state.range(2);
  const bool overlap = state.range(3) != 0;
  constexpr int64_t kBlock = 128;
  const int64_t channels = overlap ? 2 * dim : dim;
  CompressArgs args;
  args.index = IndexAtEnd(bench, tokens, 2 * ratio + tokens, kBlock);
  auto* positions = args.index.positions.as<int32_t>();
  for (int64_t t = 0; t < tokens; ++t) {
    positions[t] = static_cast<int32_t>(2 * ratio + t);
  }
  args.values = bench.Floats({args.index.block_tables.dim(1), kBlock, channels});
  args.gates = bench.Floats({args.index.block_tables.dim(1), kBlock, channels});
  args.ratio = ratio;
  args.overlap = overlap;
  args.out = bench.Floats({tokens, dim});
  const int64_t slots = tokens / ratio * ratio * (overlap ? 2 : 1);
  bench.AddBytes(slots * dim * 8);
  // An exponential is 13 multiply-adds or the like.
  bench.Run([&] { bench.backend().Compress(bench.stream(), args); },
            static_cast<double>(slots * dim * 16));
}
BENCHMARK(BM_Compress)
    ->ArgNames({"tokens", "D", "ratio", "overlap"})
    ->Args({4, 512, 4, 1})
    ->Args({128, 512, 4, 1})
    ->Args({128, 512, 128, 0});

// Arguments: format (0: FP4 with E8M0, 1: FP4 with E4M3, 2: E4M3), rows, D, group.
void BM_FakeQuantize(benchmark::State& state) {
  Bench bench(state);
  const int64_t rows = state.range(1);
  const int64_t dim = state.range(2);
  const TensorView x = bench.Floats({rows, dim}).SplitLast(state.range(3));
  bench.AddBytes(rows * dim * 4);
  bench.Run(
      [&] {
        if (state.range(0) == 2) {
          bench.backend().FakeQuantizeE4M3(bench.stream(), x);
        } else {
          bench.backend().FakeQuantizeFp4(
              bench.stream(), x, state.range(0) == 0 ? Fp4Scale::kE8M0 : Fp4Scale::kE4M3);
        }
      },
      static_cast<double>(rows * dim));
}
BENCHMARK(BM_FakeQuantize)
    ->ArgNames({"format", "rows", "D", "group"})
    ->Args({0, 64, 128, 32})
    ->Args({1, 16, 512, 16})
    ->Args({2, 16, 448, 64})
    ->Args({2, 64, 128, 128});

// Arguments: queries, heads, D, ratio, entries, topk, candidate blocks of 8 (0: none; the
// entries of every other block compete).
void BM_IndexerSelect(benchmark::State& state) {
  Bench bench(state);
  const int64_t queries = state.range(0);
  const int64_t heads = state.range(1);
  const int64_t dim = state.range(2);
  const int64_t ratio = state.range(3);
  const int64_t entries = state.range(4);
  const int64_t topk = state.range(5);
  const int64_t candidates = state.range(6);
  constexpr int64_t kBlock = 128;
  const auto tokens = static_cast<size_t>(queries);
  IndexerSelectArgs args;
  args.index = IndexAtEnd(bench, queries, entries * ratio, kBlock);
  args.keys = bench.Floats({args.index.block_tables.dim(1), kBlock / ratio, dim});
  args.index.block_size = kBlock / ratio;
  args.q = bench.Floats({queries, heads, dim});
  args.weights = bench.Floats({queries, heads});
  args.ratio = ratio;
  args.topk = topk;
  args.selected = bench.Ints({queries, topk},
                             std::vector<int32_t>(tokens * static_cast<size_t>(topk), 0));
  args.num_selected = bench.Ints({queries}, std::vector<int32_t>(tokens, 0));
  int64_t competing = entries;
  if (candidates > 0) {
    std::vector<int32_t> blocks;
    for (int64_t i = 0; i < queries * candidates; ++i) {
      blocks.push_back(static_cast<int32_t>(i % candidates * 2));
    }
    args.candidates = bench.Ints({queries, candidates}, blocks);
    args.candidate_block = 8;
    competing = 8 * candidates;
  }
  bench.AddBytes(queries * competing * dim * 4);
  bench.Run([&] { bench.backend().IndexerSelect(bench.stream(), args); },
            static_cast<double>(queries * competing * heads * (dim + 1)));
}
BENCHMARK(BM_IndexerSelect)
    ->ArgNames({"queries", "heads", "D", "ratio", "entries", "topk", "blocks"})
    ->Args({1, 64, 128, 4, 16384, 512, 0})
    ->Args({4, 64, 128, 4, 4096, 512, 0})
    ->Args({1, 32, 128, 1, 32768, 512, 2048});

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

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (!tessera::kernels::ChooseBenchTarget(&argc, argv) ||
      benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
