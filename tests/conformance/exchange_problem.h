// What the tests of ExpertExchange route: one problem on every rank, placements and
// spreads of its tokens, and the layer's output over any exchange and backend. Rows that
// go over the wire in FP8 meet experts in FP8, of backends with numerics fp8-g128.
#ifndef TESSERA_TESTS_CONFORMANCE_EXCHANGE_PROBLEM_H_
#define TESSERA_TESTS_CONFORMANCE_EXCHANGE_PROBLEM_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/in_process/in_process_group.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

inline constexpr int64_t kHidden = 13;  // odd: rows of F32 need padding on the wire
inline constexpr int64_t kInner = 5;
inline constexpr int64_t kFp8Hidden = 144;  // a group of 128 and a short one
inline constexpr int64_t kFp8Inner = 16;
inline constexpr int kExperts = 12;
inline constexpr int64_t kSlots = 4;
inline constexpr int64_t kMaxTokens = 24;
inline constexpr uint32_t kSeed = 20261125;

inline const CommOptions kGenerous = {.timeout = absl::Seconds(60)};

// Weights, tokens and routing that are equal on every rank.
struct Problem {
  Problem(DType type, int64_t num_tokens, DispatchRows rows = DispatchRows::kActivations)
      : dtype(type),
        tokens(num_tokens),
        on_wire(rows),
        hidden(rows == DispatchRows::kFp8 ? kFp8Hidden : kHidden) {
    std::mt19937 random(kSeed);
    const auto fill = [&](auto& values) {
      for (auto& value : values) {
        value = static_cast<std::decay_t<decltype(value)>>(
            static_cast<double>(random()) / 4294967296.0 - 0.5);
      }
    };
    expert_values.resize(kExperts * 3 * kHidden * kInner);
    fill(expert_values);
    if (rows == DispatchRows::kFp8) {
      FillFp8Experts(random);
    }
    x.resize(static_cast<size_t>(tokens * hidden));
    fill(x);
    if (rows == DispatchRows::kFp8) {
      for (int64_t t = 0; t < tokens; ++t) {  // tokens of many magnitudes
        x[static_cast<size_t>(t * hidden)] *= static_cast<double>(int64_t{1} << t % 23);
      }
      // Damage and what is next to it stay with their token.
      x[static_cast<size_t>(5 % tokens * hidden + 3)] =
          std::numeric_limits<double>::infinity();
      x[static_cast<size_t>(7 % tokens * hidden + 140)] =
          double{std::numeric_limits<float>::max()};
    }
    weights.resize(static_cast<size_t>(tokens * kSlots));
    fill(weights);
    std::vector<int32_t> experts(kExperts);
    std::iota(experts.begin(), experts.end(), 0);
    for (int64_t t = 0; t < tokens; ++t) {
      std::shuffle(experts.begin(), experts.end(), random);
      ids.insert(ids.end(), experts.begin(), experts.begin() + kSlots);
    }
  }

  // `values`: expert_values, wherever they lie.
  static kernels::ExpertWeights Expert(TensorView values, int expert) {
    const auto view = [&](int part, int64_t rows, int64_t cols) {
      kernels::WeightView weight;
      weight.data = reinterpret_cast<const std::byte*>(
          values.as<float>() + (expert * 3 + part) * kHidden * kInner);
      weight.dtype = DType::kF32;
      weight.rows = rows;
      weight.cols = cols;
      weight.row_bytes = cols * static_cast<int64_t>(sizeof(float));
      return weight;
    };
    return {view(0, kInner, kHidden), view(1, kInner, kHidden), view(2, kHidden, kInner)};
  }

  // The same, in whichever format this problem's experts are.
  kernels::ExpertWeights ExpertOf(TensorView values, int expert) const {
    if (on_wire != DispatchRows::kFp8) {
      return Expert(values, expert);
    }
    const auto view = [&](int part, int64_t num_rows, int64_t cols) {
      const float* const at = values.as<float>() + (expert * 3 + part) * kFp8MatrixWords;
      kernels::WeightView weight;
      weight.scales = reinterpret_cast<const std::byte*>(at);
      weight.data = reinterpret_cast<const std::byte*>(at + kFp8ScaleWords);
      weight.dtype = DType::kF8E4M3;
      weight.rows = num_rows;
      weight.cols = cols;
      weight.row_bytes = cols;
      weight.block_rows = 128;
      weight.block_cols = 128;
      weight.scale_stride = (cols + 127) / 128;
      return weight;
    };
    return {view(0, kFp8Inner, kFp8Hidden), view(1, kFp8Inner, kFp8Hidden),
            view(2, kFp8Hidden, kFp8Inner)};
  }

  ExpertExchangeOptions Options(std::vector<int> owner,
                                bool weights_travel = false) const {
    ExpertExchangeOptions options;
    options.max_tokens = kMaxTokens;
    options.hidden_size = hidden;
    options.experts_per_token = kSlots;
    options.expert_owner = std::move(owner);
    options.weights_travel = weights_travel;
    options.rows = on_wire;
    return options;
  }
  std::string_view numerics() const {
    return on_wire == DispatchRows::kFp8 ? "fp8-g128" : "f32";
  }

  DType dtype;
  int64_t tokens;
  DispatchRows on_wire;
  int64_t hidden;                    // d
  std::vector<float> expert_values;  // FP8: scales, then codes, of each matrix
  std::vector<double> x;             // [tokens, d]
  std::vector<double> weights;       // [tokens, k]
  std::vector<int32_t> ids;          // [tokens, k]

 private:
  static constexpr int64_t kFp8ScaleWords = 4;  // so that codes lie at 16 bytes
  static constexpr int64_t kFp8MatrixWords =
      kFp8ScaleWords + kFp8Hidden * kFp8Inner / static_cast<int64_t>(sizeof(float));

  void FillFp8Experts(std::mt19937& random) {
    expert_values.assign(static_cast<size_t>(kExperts * 3 * kFp8MatrixWords), 0);
    for (size_t i = 0; i < expert_values.size(); ++i) {
      const auto word = static_cast<int64_t>(i) % kFp8MatrixWords;
      const auto codes = static_cast<uint32_t>(random() & 0xbebebebeU);  // no NaN
      expert_values[i] = 0.001F * static_cast<float>(1 + random() % 50);
      if (word >= kFp8ScaleWords) {
        std::memcpy(&expert_values[i], &codes, sizeof(codes));
      }
    }
  }
};

inline std::unique_ptr<kernels::KernelBackend> MakeBackend(
    DType dtype, std::string_view numerics = "f32") {
  kernels::BackendOptions options;
  options.name = "reference";
  options.dtype = dtype;
  options.numerics = numerics;
  auto backend = kernels::CreateBackend(options);
  EXPECT_THAT(backend, testing::IsOk());
  return std::move(backend).value();
}

inline ExpertExchangeOptions Options(std::vector<int> owner,
                                     bool weights_travel = false) {
  return Problem(DType::kF32, 0).Options(std::move(owner), weights_travel);
}

template <typename T>
std::vector<T> Cast(std::span<const double> values) {
  return {values.begin(), values.end()};
}

// Arrays in memory of a backend, which a stream of its fills and reads.
class DeviceArrays {
 public:
  // What it is given must outlive it. `wait` is how the host waits for the stream.
  DeviceArrays(kernels::KernelBackend& backend, kernels::Stream& stream,
               absl::FunctionRef<absl::Status(kernels::Stream&)> wait)
      : backend_(backend), stream_(stream), wait_(wait) {}

  template <typename T>
  TensorView Put(const std::vector<T>& values, std::initializer_list<int64_t> dims) {
    auto memory = backend_.Allocate(values.size() * sizeof(T));
    EXPECT_THAT(memory, testing::IsOk());
    memory_.push_back(*std::move(memory));
    const TensorView view(memory_.back().data(), kernels::kDTypeOf<T>, dims);
    backend_.Upload(stream_, values.data(), view);
    EXPECT_THAT(wait_(stream_), testing::IsOk());
    return view;
  }
  template <typename T>
  std::vector<T> Get(const TensorView& view) {
    std::vector<T> values(static_cast<size_t>(view.num_elements()));
    EXPECT_THAT(wait_(stream_), testing::IsOk());
    backend_.Download(stream_, view, values.data());
    EXPECT_THAT(wait_(stream_), testing::IsOk());
    return values;
  }

 private:
  kernels::KernelBackend& backend_;
  kernels::Stream& stream_;
  absl::FunctionRef<absl::Status(kernels::Stream&)> wait_;
  std::vector<kernels::DeviceBuffer> memory_;
};

inline absl::Status PlainWait(kernels::Stream& stream) { return stream.Synchronize(); }

// What a backend makes at the first call with these experts is there before any rank is
// waited for, as after a worker's first step. `rows`: [T, d], not touched.
inline void PrepareExperts(kernels::KernelBackend& backend, kernels::Stream& stream,
                           DeviceArrays& arrays,
                           std::span<const kernels::ExpertWeights> experts,
                           TensorView rows) {
  const std::vector<int32_t> no_items(experts.size() + 1);
  const TensorView offsets =
      arrays.Put(no_items, {static_cast<int64_t>(no_items.size())});
  backend.GroupedExperts(stream, {.x = rows,
                                  .row_of_item = offsets.Rows(0, 0),
                                  .item_offsets = offsets,
                                  .experts = experts,
                                  .out = rows.Rows(0, 0)});
}

// An exchange and its experts, enqueued.
inline absl::Status EnqueueExchange(kernels::KernelBackend& backend,
                                    kernels::Stream& stream, ExpertExchange& exchange,
                                    const ExchangeRows& rows,
                                    std::span<const kernels::ExpertWeights> experts) {
  TESSERA_RETURN_IF_ERROR(exchange.Send(stream, rows));
  for (int64_t round = 0; round < exchange.num_rounds(); ++round) {
    TESSERA_ASSIGN_OR_RETURN(const ExpertBatch batch, exchange.Receive(stream));
    backend.GroupedExperts(stream, {.x = batch.rows,
                                    .row_of_item = batch.row_of_item,
                                    .item_offsets = batch.item_offsets,
                                    .experts = experts,
                                    .item_weights = batch.item_weights,
                                    .out = batch.out});
  }
  return exchange.Finish(stream);
}

// The layer's output for tokens [begin, begin + count) of the problem.
template <typename T>
std::vector<T> RunTokens(
    const Problem& problem, int64_t begin, int64_t count, kernels::KernelBackend& backend,
    ExpertExchange& exchange,
    absl::FunctionRef<absl::Status(kernels::Stream&)> wait = PlainWait) {
  const auto stream = backend.CreateStream();
  EXPECT_THAT(stream, testing::IsOk());
  DeviceArrays arrays(backend, **stream, wait);
  const auto at = [&](int64_t width) { return static_cast<size_t>(begin * width); };
  const auto size = [&](int64_t width) { return static_cast<size_t>(count * width); };
  const int64_t d = problem.hidden;
  const TensorView x =
      arrays.Put(Cast<T>(std::span(problem.x).subspan(at(d), size(d))), {count, d});
  const TensorView weights =
      arrays.Put(Cast<T>(std::span(problem.weights).subspan(at(kSlots), size(kSlots))),
                 {count, kSlots});
  const TensorView ids =
      arrays.Put(std::vector<int32_t>(problem.ids.begin() + begin * kSlots,
                                      problem.ids.begin() + (begin + count) * kSlots),
                 {count, kSlots});
  const TensorView out = arrays.Put(std::vector<T>(size(d), T{-1}), {count, d});
  const TensorView values = arrays.Put(
      problem.expert_values, {static_cast<int64_t>(problem.expert_values.size())});
  std::vector<kernels::ExpertWeights> experts;
  for (const int expert : exchange.local_experts()) {
    experts.push_back(problem.ExpertOf(values, expert));
  }
  PrepareExperts(backend, **stream, arrays, experts, out);
  const absl::Status enqueued = EnqueueExchange(
      backend, **stream, exchange,
      {.x = x, .expert_ids = ids, .weights = weights, .out = out}, experts);
  EXPECT_THAT(enqueued, testing::IsOk());
  return enqueued.ok() ? arrays.Get<T>(out) : std::vector<T>();
}

// All tokens on a group of one rank.
template <typename T>
std::vector<T> RunAlone(const Problem& problem, bool weights_travel,
                        kernels::KernelBackend& backend) {
  auto group = CreateInProcessGroup("one", 1, kGenerous, Clock::Real());
  EXPECT_THAT(group, testing::IsOk());
  auto exchange = ExpertExchange::Create(
      problem.Options(std::vector<int>(kExperts, 0), weights_travel), &backend,
      {.ep = group->front().get()});
  EXPECT_THAT(exchange, testing::IsOk());
  std::vector<T> all;
  for (int64_t begin = 0; begin < problem.tokens; begin += kMaxTokens) {
    const int64_t count = std::min(kMaxTokens, problem.tokens - begin);
    const auto part = RunTokens<T>(problem, begin, count, backend, **exchange);
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

// Placements that leave ranks without experts, without tokens, or with all of them.
inline std::vector<std::vector<int>> Placements(int num_ranks) {
  std::mt19937 random(kSeed + 1);
  std::vector<std::vector<int>> placements;
  std::vector<int> blocks;
  std::vector<int> round_robin;
  std::vector<int> shuffled;
  for (int expert = 0; expert < kExperts; ++expert) {
    blocks.push_back(expert * num_ranks / kExperts);
    round_robin.push_back(expert % num_ranks);
    shuffled.push_back(static_cast<int>(random() % static_cast<unsigned>(num_ranks)));
  }
  placements.push_back(blocks);
  placements.push_back(round_robin);
  placements.push_back(shuffled);
  placements.push_back(std::vector<int>(kExperts, num_ranks - 1));
  return placements;
}

// How many tokens each rank brings in a round.
inline std::vector<int64_t> Spread(int num_ranks, int round) {
  std::vector<int64_t> counts;
  for (int rank = 0; rank < num_ranks; ++rank) {
    switch (round) {
      case 0:
        counts.push_back((rank * 7 + 3) % 11);
        break;
      case 1:
        counts.push_back(rank == num_ranks - 1 ? kMaxTokens : 0);
        break;
      case 2:
        counts.push_back(0);
        break;
      default:
        counts.push_back(kMaxTokens);
    }
  }
  return counts;
}

}  // namespace tessera::worker

#endif  // TESSERA_TESTS_CONFORMANCE_EXCHANGE_PROBLEM_H_
