// What the tests of ExpertExchange route: one problem on every rank, placements and
// spreads of its tokens, and the layer's output over any exchange and backend.
#ifndef TESSERA_TESTS_CONFORMANCE_EXCHANGE_PROBLEM_H_
#define TESSERA_TESTS_CONFORMANCE_EXCHANGE_PROBLEM_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/kernel_backend.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/in_process/in_process_group.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

inline constexpr int64_t kHidden = 13;  // odd: rows of F32 need padding on the wire
inline constexpr int64_t kInner = 5;
inline constexpr int kExperts = 12;
inline constexpr int64_t kSlots = 4;
inline constexpr int64_t kMaxTokens = 24;
inline constexpr uint32_t kSeed = 20261125;

inline const CommOptions kGenerous = {.timeout = absl::Seconds(60)};

// Weights, tokens and routing that are equal on every rank.
struct Problem {
  Problem(DType type, int64_t num_tokens) : dtype(type), tokens(num_tokens) {
    std::mt19937 random(kSeed);
    const auto fill = [&](auto& values) {
      for (auto& value : values) {
        value = static_cast<std::decay_t<decltype(value)>>(
            static_cast<double>(random()) / 4294967296.0 - 0.5);
      }
    };
    expert_values.resize(kExperts * 3 * kHidden * kInner);
    fill(expert_values);
    x.resize(static_cast<size_t>(tokens * kHidden));
    fill(x);
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

  DType dtype;
  int64_t tokens;
  std::vector<float> expert_values;
  std::vector<double> x;        // [tokens, d]
  std::vector<double> weights;  // [tokens, k]
  std::vector<int32_t> ids;     // [tokens, k]
};

inline std::unique_ptr<kernels::KernelBackend> MakeBackend(DType dtype) {
  kernels::BackendOptions options;
  options.name = "reference";
  options.dtype = dtype;
  auto backend = kernels::CreateBackend(options);
  EXPECT_THAT(backend, testing::IsOk());
  return std::move(backend).value();
}

inline ExpertExchangeOptions Options(std::vector<int> owner,
                                     bool weights_travel = false) {
  ExpertExchangeOptions options;
  options.max_tokens = kMaxTokens;
  options.hidden_size = kHidden;
  options.experts_per_token = kSlots;
  options.expert_owner = std::move(owner);
  options.weights_travel = weights_travel;
  return options;
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
  const TensorView x =
      arrays.Put(Cast<T>(std::span(problem.x).subspan(at(kHidden), size(kHidden))),
                 {count, kHidden});
  const TensorView weights =
      arrays.Put(Cast<T>(std::span(problem.weights).subspan(at(kSlots), size(kSlots))),
                 {count, kSlots});
  const TensorView ids =
      arrays.Put(std::vector<int32_t>(problem.ids.begin() + begin * kSlots,
                                      problem.ids.begin() + (begin + count) * kSlots),
                 {count, kSlots});
  const TensorView out =
      arrays.Put(std::vector<T>(size(kHidden), T{-1}), {count, kHidden});
  const TensorView values = arrays.Put(
      problem.expert_values, {static_cast<int64_t>(problem.expert_values.size())});
  std::vector<kernels::ExpertWeights> experts;
  for (const int expert : exchange.local_experts()) {
    experts.push_back(Problem::Expert(values, expert));
  }
  // What a backend makes at the first call with these experts is there before any rank
  // is waited for, as after a worker's first step.
  const auto num_experts = static_cast<int64_t>(experts.size());
  backend.GroupedExperts(
      **stream, {.x = x,
                 .row_of_item = ids.Reshape({count * kSlots}).Rows(0, 0),
                 .item_offsets = arrays.Put(std::vector<int32_t>(experts.size() + 1),
                                            {num_experts + 1}),
                 .experts = experts,
                 .out = out.Rows(0, 0)});
  const auto batch = exchange.Dispatch(**stream, x, ids, weights);
  EXPECT_THAT(batch, testing::IsOk());
  if (!batch.ok()) {
    return {};
  }
  backend.GroupedExperts(**stream, {.x = batch->rows,
                                    .row_of_item = batch->row_of_item,
                                    .item_offsets = batch->item_offsets,
                                    .experts = experts,
                                    .item_weights = batch->item_weights,
                                    .out = batch->out});
  EXPECT_THAT(exchange.Combine(**stream, out), testing::IsOk());
  return arrays.Get<T>(out);
}

// All tokens on a group of one rank.
template <typename T>
std::vector<T> RunAlone(const Problem& problem, bool weights_travel,
                        kernels::KernelBackend& backend) {
  auto group = CreateInProcessGroup("one", 1, kGenerous, Clock::Real());
  EXPECT_THAT(group, testing::IsOk());
  auto exchange =
      ExpertExchange::Create(Options(std::vector<int>(kExperts, 0), weights_travel),
                             &backend, {.ep = group->front().get()});
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
