// ExpertExchange: whatever the group size, the placement of the experts and the spread of
// the tokens, each token gets the bits that one rank alone computes for it.
#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "tests/conformance/exchange_layouts.h"
#include "tests/conformance/group_harness.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/in_process/in_process_group.h"

namespace tessera::worker {
namespace {

using kernels::DType;
using kernels::TensorView;
using testing::ExchangeLayout;
using testing::IsOk;
using testing::StatusIs;

constexpr int64_t kHidden = 13;  // odd: rows of F32 need padding on the wire
constexpr int64_t kInner = 5;
constexpr int kExperts = 12;
constexpr int64_t kSlots = 4;
constexpr int64_t kMaxTokens = 24;
constexpr uint32_t kSeed = 20261125;

const CommOptions kGenerous = {.timeout = absl::Seconds(60)};

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

  kernels::ExpertWeights Expert(int expert) const {
    const auto view = [&](int part, int64_t rows, int64_t cols) {
      kernels::WeightView weight;
      weight.data = reinterpret_cast<const std::byte*>(
          expert_values.data() + (expert * 3 + part) * kHidden * kInner);
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

std::unique_ptr<kernels::KernelBackend> MakeBackend(DType dtype) {
  kernels::BackendOptions options;
  options.name = "reference";
  options.dtype = dtype;
  auto backend = kernels::CreateBackend(options);
  EXPECT_THAT(backend, IsOk());
  return std::move(backend).value();
}

ExpertExchangeOptions Options(std::vector<int> owner, bool weights_travel = false) {
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

// The layer's output for tokens [begin, begin + count) of the problem.
template <typename T>
std::vector<T> RunTokens(const Problem& problem, int64_t begin, int64_t count,
                         kernels::KernelBackend& backend, ExpertExchange& exchange) {
  const auto stream = backend.CreateStream();
  EXPECT_THAT(stream, IsOk());
  const auto at = [&](int64_t width) { return static_cast<size_t>(begin * width); };
  const auto size = [&](int64_t width) { return static_cast<size_t>(count * width); };
  std::vector<T> x = Cast<T>(std::span(problem.x).subspan(at(kHidden), size(kHidden)));
  std::vector<T> weights =
      Cast<T>(std::span(problem.weights).subspan(at(kSlots), size(kSlots)));
  std::vector<int32_t> ids(problem.ids.begin() + begin * kSlots,
                           problem.ids.begin() + (begin + count) * kSlots);
  std::vector<T> out(size(kHidden), T{-1});
  constexpr DType kType = kernels::kDTypeOf<T>;
  auto batch = exchange.Dispatch(**stream, TensorView(x.data(), kType, {count, kHidden}),
                                 TensorView(ids.data(), DType::kI32, {count, kSlots}),
                                 TensorView(weights.data(), kType, {count, kSlots}));
  EXPECT_THAT(batch, IsOk());
  if (!batch.ok()) {
    return {};
  }
  std::vector<kernels::ExpertWeights> experts;
  for (const int expert : exchange.local_experts()) {
    experts.push_back(problem.Expert(expert));
  }
  backend.GroupedExperts(**stream, {.x = batch->rows,
                                    .row_of_item = batch->row_of_item,
                                    .item_offsets = batch->item_offsets,
                                    .experts = experts,
                                    .item_weights = batch->item_weights,
                                    .out = batch->out});
  EXPECT_THAT(exchange.Combine(**stream, TensorView(out.data(), kType, {count, kHidden})),
              IsOk());
  EXPECT_THAT((*stream)->Synchronize(), IsOk());
  return out;
}

// All tokens on a group of one rank.
template <typename T>
std::vector<T> RunAlone(const Problem& problem, bool weights_travel,
                        kernels::KernelBackend& backend) {
  auto group = CreateInProcessGroup("one", 1, kGenerous, Clock::Real());
  EXPECT_THAT(group, IsOk());
  auto exchange =
      ExpertExchange::Create(Options(std::vector<int>(kExperts, 0), weights_travel),
                             &backend, {.ep = group->front().get()});
  EXPECT_THAT(exchange, IsOk());
  std::vector<T> all;
  for (int64_t begin = 0; begin < problem.tokens; begin += kMaxTokens) {
    const int64_t count = std::min(kMaxTokens, problem.tokens - begin);
    const auto part = RunTokens<T>(problem, begin, count, backend, **exchange);
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

// Placements that leave ranks without experts, without tokens, or with all of them.
std::vector<std::vector<int>> Placements(int num_ranks) {
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
std::vector<int64_t> Spread(int num_ranks, int round) {
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

void RunOn(const ExchangeLayout& layout,
           const std::function<void(const ExchangeGroups&)>& body) {
  testing::RunExchange(layout, kGenerous, body);
}

class ExpertExchangeConformance : public ::testing::TestWithParam<ExchangeLayout> {};

template <typename T>
void ExpectBitsOfOneRank(const ExchangeLayout& layout, bool weights_travel) {
  const int num_ranks = layout.num_ranks;
  const Problem problem(kernels::kDTypeOf<T>, kMaxTokens * num_ranks);
  const std::vector<T> expected =
      RunAlone<T>(problem, weights_travel, *MakeBackend(kernels::kDTypeOf<T>));
  RunOn(layout, [&](const ExchangeGroups& groups) {
    const Communicator& comm = *groups.ep;
    const auto backend = MakeBackend(kernels::kDTypeOf<T>);
    for (const std::vector<int>& owner : Placements(num_ranks)) {
      auto exchange =
          ExpertExchange::Create(Options(owner, weights_travel), backend.get(), groups);
      ASSERT_THAT(exchange, IsOk());
      for (int round = 0; round < 4; ++round) {
        const auto counts = Spread(num_ranks, round);
        const auto own = static_cast<size_t>(comm.rank());
        const int64_t begin =
            std::accumulate(counts.begin(), counts.begin() + comm.rank(), int64_t{0});
        const std::vector<T> out =
            RunTokens<T>(problem, begin, counts[own], *backend, **exchange);
        ASSERT_EQ(out.size(), static_cast<size_t>(counts[own] * kHidden));
        ASSERT_TRUE(out.empty() ||
                    std::memcmp(out.data(), expected.data() + begin * kHidden,
                                out.size() * sizeof(T)) == 0)
            << "round " << round << " seed " << kSeed;
      }
    }
  });
}

TEST_P(ExpertExchangeConformance, AnyPlacementAndSpreadGivesTheBitsOfOneRankInFloat32) {
  ExpectBitsOfOneRank<float>(GetParam(), false);
}

TEST_P(ExpertExchangeConformance, AnyPlacementAndSpreadGivesTheBitsOfOneRankInFloat64) {
  ExpectBitsOfOneRank<double>(GetParam(), false);
}

TEST_P(ExpertExchangeConformance, WeightsThatTravelGiveTheBitsOfOneRank) {
  ExpectBitsOfOneRank<float>(GetParam(), true);
  ExpectBitsOfOneRank<double>(GetParam(), true);
}

// The down projection is linear: both orders agree but for rounding.
TEST(ExpertExchange, WeightsThatTravelScaleBeforeTheDownProjection) {
  const Problem problem(DType::kF64, kMaxTokens);
  const auto backend = MakeBackend(DType::kF64);
  const std::vector<double> home = RunAlone<double>(problem, false, *backend);
  const std::vector<double> travelled = RunAlone<double>(problem, true, *backend);
  ASSERT_EQ(home.size(), travelled.size());
  EXPECT_NE(home, travelled);
  for (size_t i = 0; i < home.size(); ++i) {
    ASSERT_NEAR(home[i], travelled[i], 1e-14) << i;
  }
}

TEST_P(ExpertExchangeConformance, ItemsAreGroupedByExpertAndKeepTheSourceOrder) {
  const int num_ranks = GetParam().num_ranks;
  const Problem problem(DType::kF32, kMaxTokens * num_ranks);
  RunOn(GetParam(), [&](const ExchangeGroups& groups) {
    Communicator& comm = *groups.ep;
    const auto backend = MakeBackend(DType::kF32);
    const auto stream = backend->CreateStream();
    ASSERT_THAT(stream, IsOk());
    const std::vector<int> owner = Placements(num_ranks)[1];
    auto exchange = ExpertExchange::Create(Options(owner), backend.get(), groups);
    ASSERT_THAT(exchange, IsOk());
    const auto local = (*exchange)->local_experts();
    ASSERT_TRUE(std::is_sorted(local.begin(), local.end()));
    constexpr int64_t kTokens = 6;
    std::vector<float> x(kTokens * kHidden, static_cast<float>(comm.rank()));
    std::vector<int32_t> ids(problem.ids.begin(), problem.ids.begin() + kTokens * kSlots);
    std::vector<float> weights(kTokens * kSlots, 1);
    auto batch = (*exchange)->Dispatch(
        **stream, TensorView(x.data(), DType::kF32, {kTokens, kHidden}),
        TensorView(ids.data(), DType::kI32, {kTokens, kSlots}),
        TensorView(weights.data(), DType::kF32, {kTokens, kSlots}));
    EXPECT_EQ(batch->item_weights.rank, 0);
    ASSERT_THAT(batch, IsOk());
    ASSERT_EQ(batch->item_offsets.dim(0), static_cast<int64_t>(local.size()) + 1);
    const auto* offsets = batch->item_offsets.as<int32_t>();
    EXPECT_EQ(offsets[local.size()], batch->out.dim(0));
    for (size_t expert = 0; expert < local.size(); ++expert) {
      // Every rank brings the same tokens, so an expert has each of its rows once per
      // rank.
      const auto uses = std::count(ids.begin(), ids.end(), local[expert]);
      EXPECT_EQ(offsets[expert + 1] - offsets[expert], uses * num_ranks);
      for (int32_t item = offsets[expert] + 1; item < offsets[expert + 1]; ++item) {
        EXPECT_LT(batch->row_of_item.as<int32_t>()[item - 1],
                  batch->row_of_item.as<int32_t>()[item]);
      }
    }
    // Over nodes: by the rank in the node first.
    const int per_node = GetParam().ranks_per_node;
    const auto place = [per_node, num_ranks](float source) {
      const int rank = static_cast<int>(source);
      return per_node == 0 ? rank
                           : rank % per_node * (num_ranks / per_node) + rank / per_node;
    };
    for (int64_t row = 1; row < batch->rows.dim(0); ++row) {
      EXPECT_LE(place(batch->rows.row<float>(row - 1)[0]),
                place(batch->rows.row<float>(row)[0]));
    }
    ASSERT_THAT(comm.Barrier(), IsOk());
  });
}

TEST_P(ExpertExchangeConformance, AnExpertThatDoesNotExistEndsTheGroup) {
  RunOn(GetParam(), [](const ExchangeGroups& groups) {
    Communicator& comm = *groups.ep;
    if (comm.size() == 1) {
      return;
    }
    const auto backend = MakeBackend(DType::kF32);
    const auto stream = backend->CreateStream();
    ASSERT_THAT(stream, IsOk());
    auto exchange = ExpertExchange::Create(Options(std::vector<int>(kExperts, 0)),
                                           backend.get(), groups);
    ASSERT_THAT(exchange, IsOk());
    std::vector<float> x(kHidden);
    std::vector<int32_t> ids = {0, 1, 2, comm.rank() == 1 ? kExperts : 3};
    std::vector<float> weights(kSlots, 1);
    const auto batch =
        (*exchange)->Dispatch(**stream, TensorView(x.data(), DType::kF32, {1, kHidden}),
                              TensorView(ids.data(), DType::kI32, {1, kSlots}),
                              TensorView(weights.data(), DType::kF32, {1, kSlots}));
    EXPECT_THAT(batch, StatusIs(comm.rank() == 1 ? absl::StatusCode::kInternal
                                                 : absl::StatusCode::kAborted));
  });
}

TEST_P(ExpertExchangeConformance, RanksWithDifferentPlacementsRefuseEachOther) {
  if (GetParam().num_ranks == 1) {
    return;
  }
  RunOn(GetParam(), [](const ExchangeGroups& groups) {
    Communicator& comm = *groups.ep;
    const auto backend = MakeBackend(DType::kF32);
    const auto stream = backend->CreateStream();
    ASSERT_THAT(stream, IsOk());
    std::vector<int> owner(kExperts, 0);
    owner[5] = comm.rank() == 0 ? 1 : 0;
    auto exchange = ExpertExchange::Create(Options(owner), backend.get(), groups);
    ASSERT_THAT(exchange, IsOk());
    std::vector<float> x(kHidden);
    std::vector<int32_t> ids = {0, 1, 2, 3};
    std::vector<float> weights(kSlots, 1);
    const auto batch =
        (*exchange)->Dispatch(**stream, TensorView(x.data(), DType::kF32, {1, kHidden}),
                              TensorView(ids.data(), DType::kI32, {1, kSlots}),
                              TensorView(weights.data(), DType::kF32, {1, kSlots}));
    // Whoever compares first says so and ends the group, for those that come later.
    EXPECT_THAT(batch.status().code(),
                ::testing::AnyOf(absl::StatusCode::kFailedPrecondition,
                                 absl::StatusCode::kAborted));
    EXPECT_THAT(comm.Barrier(), StatusIs(absl::StatusCode::kAborted));
  });
}

TEST(ExpertExchange, RefusesGroupsThatAreNotNodesAndRails) {
  auto ep = CreateInProcessGroup("ep", 4, kGenerous, Clock::Real());
  auto pair = CreateInProcessGroup("pair", 2, kGenerous, Clock::Real());
  auto other = CreateInProcessGroup("other", 2, kGenerous, Clock::Real());
  auto three = CreateInProcessGroup("three", 3, kGenerous, Clock::Real());
  ASSERT_TRUE(ep.ok() && pair.ok() && other.ok() && three.ok());
  const auto backend = MakeBackend(DType::kF32);
  const auto create = [&](Communicator* node, Communicator* rail) {
    return ExpertExchange::Create(Options(std::vector<int>(kExperts, 0)), backend.get(),
                                  {.ep = (*ep)[1].get(), .node = node, .rail = rail})
        .status();
  };
  EXPECT_THAT(create((*pair)[1].get(), (*other)[0].get()), IsOk());
  EXPECT_THAT(create((*pair)[1].get(), nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(create((*pair)[0].get(), (*other)[1].get()),  // rank 2
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(create((*three)[1].get(), (*other)[0].get()),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ExpertExchange, RefusesBadOptions) {
  auto group = CreateInProcessGroup("one", 1, kGenerous, Clock::Real());
  ASSERT_THAT(group, IsOk());
  const auto backend = MakeBackend(DType::kF32);
  const auto create = [&](const ExpertExchangeOptions& options) {
    return ExpertExchange::Create(options, backend.get(), {.ep = group->front().get()})
        .status();
  };
  EXPECT_THAT(create(Options({0, 0, 0, 0, 1})),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(create(Options({0, 0, 0, 0, -1})),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(create(Options({0, 0, 0})), StatusIs(absl::StatusCode::kInvalidArgument));
  ExpertExchangeOptions huge = Options(std::vector<int>(kExperts, 0));
  huge.max_tokens = int64_t{1} << 40;
  EXPECT_THAT(create(huge), StatusIs(absl::StatusCode::kInvalidArgument));
  huge.max_tokens = INT64_MAX;
  EXPECT_THAT(create(huge), StatusIs(absl::StatusCode::kInvalidArgument));
}

INSTANTIATE_TEST_SUITE_P(Sizes, ExpertExchangeConformance,
                         ::testing::ValuesIn(testing::ExchangeLayouts()));

}  // namespace
}  // namespace tessera::worker
