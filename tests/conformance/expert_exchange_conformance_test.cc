// ExpertExchange: whatever the group size, the placement of the experts and the spread of
// the tokens, each token gets the bits that one rank alone computes for it.
#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "tests/conformance/exchange_layouts.h"
#include "tests/conformance/exchange_problem.h"
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

void RunOn(const ExchangeLayout& layout,
           const std::function<void(const ExchangeGroups&)>& body) {
  testing::RunExchange(layout, kGenerous, body);
}

class ExpertExchangeConformance : public ::testing::TestWithParam<ExchangeLayout> {};

template <typename T>
void ExpectBitsOfOneRank(const ExchangeLayout& layout, bool weights_travel,
                         DispatchRows rows = DispatchRows::kActivations,
                         const RoundPolicy& rounds = kOneRound) {
  const int num_ranks = layout.num_ranks;
  const Problem problem(kernels::kDTypeOf<T>, kMaxTokens * num_ranks, rows);
  const auto make_backend = [&] {
    return MakeBackend(kernels::kDTypeOf<T>, problem.numerics());
  };
  const std::vector<T> expected = RunAlone<T>(problem, weights_travel, *make_backend());
  RunOn(layout, [&](const ExchangeGroups& groups) {
    const Communicator& comm = *groups.ep;
    const auto backend = make_backend();
    for (const std::vector<int>& owner : Placements(num_ranks)) {
      ExpertExchangeOptions options = problem.Options(owner, weights_travel);
      options.rounds = rounds;
      auto exchange = ExpertExchange::Create(options, backend.get(), groups);
      ASSERT_THAT(exchange, IsOk());
      for (int round = 0; round < 4; ++round) {
        const auto counts = Spread(num_ranks, round);
        const auto own = static_cast<size_t>(comm.rank());
        const int64_t begin =
            std::accumulate(counts.begin(), counts.begin() + comm.rank(), int64_t{0});
        const std::vector<T> out =
            RunTokens<T>(problem, begin, counts[own], *backend, **exchange);
        ASSERT_EQ(out.size(), static_cast<size_t>(counts[own] * problem.hidden));
        ASSERT_TRUE(out.empty() ||
                    std::memcmp(out.data(), expected.data() + begin * problem.hidden,
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

// What the experts would round their rows to travels instead of them.
TEST_P(ExpertExchangeConformance, RowsInFp8GiveTheBitsOfFloatRowsOnOneRank) {
  ExpectBitsOfOneRank<float>(GetParam(), false, DispatchRows::kFp8);
  ExpectBitsOfOneRank<float>(GetParam(), true, DispatchRows::kFp8);
}

// In 1 to 12 rounds, by the tokens of the rank with the most.
TEST_P(ExpertExchangeConformance, AnyRoundsGiveTheBitsOfOneRank) {
  ExpectBitsOfOneRank<float>(GetParam(), false, DispatchRows::kActivations,
                             {.min_rows = 2, .max_round_rows = 2});
  ExpectBitsOfOneRank<double>(GetParam(), true, DispatchRows::kActivations,
                              {.min_rows = 20, .max_round_rows = 10});
  ExpectBitsOfOneRank<float>(GetParam(), false, DispatchRows::kFp8, {.min_rows = 4});
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

// One rank looks at no id; its device notes what is wrong with them.
TEST(ExpertExchange, AnExpertThatDoesNotExistIsNotedForTheEndOfTheStep) {
  auto group = CreateInProcessGroup("one", 1, kGenerous, Clock::Real());
  ASSERT_THAT(group, IsOk());
  const auto backend = MakeBackend(DType::kF32);
  const auto stream = backend->CreateStream();
  ASSERT_THAT(stream, IsOk());
  auto exchange = ExpertExchange::Create(Options(std::vector<int>(kExperts, 0)),
                                         backend.get(), {.ep = group->front().get()});
  ASSERT_THAT(exchange, IsOk());
  EXPECT_TRUE((*exchange)->is_capturable());
  std::vector<float> x(2 * kHidden);
  std::vector<float> weights(2 * kSlots, 1);
  const auto dispatch = [&](std::vector<int32_t> ids) {
    const auto batch =
        (*exchange)->Dispatch(**stream, TensorView(x.data(), DType::kF32, {2, kHidden}),
                              TensorView(ids.data(), DType::kI32, {2, kSlots}),
                              TensorView(weights.data(), DType::kF32, {2, kSlots}));
    EXPECT_THAT(batch, IsOk());
    return batch->item_offsets.as<int32_t>()[kExperts];
  };
  EXPECT_EQ(dispatch({0, 1, 2, 3, 4, 5, kExperts, 6}), 7);
  EXPECT_EQ(dispatch({0, 1, 2, 3, 4, 5, 6, 7}), 8);
  const absl::Status status = (*exchange)->Check();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal));
  EXPECT_NE(status.message().find("row 1 slot 2"), std::string::npos) << status;
  EXPECT_THAT((*exchange)->Check(), IsOk());  // said once
  EXPECT_EQ(dispatch({0, 1, 2, 3, -1, -1, -1, -1}), 4);
  EXPECT_THAT((*exchange)->Check(), IsOk());
}

// What an exchange of so many tokens, at once, ends with on this rank.
absl::Status DispatchOf(const ExchangeGroups& groups,
                        const ExpertExchangeOptions& options, int64_t tokens) {
  const auto backend = MakeBackend(DType::kF32);
  const auto stream = backend->CreateStream();
  EXPECT_THAT(stream, IsOk());
  auto exchange = ExpertExchange::Create(options, backend.get(), groups);
  EXPECT_THAT(exchange, IsOk());
  std::vector<float> x(static_cast<size_t>(tokens * kHidden));
  std::vector<float> weights(static_cast<size_t>(tokens * kSlots), 1);
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < tokens; ++t) {
    ids.insert(ids.end(), {0, 1, 2, 3});
  }
  return (*exchange)
      ->Dispatch(**stream, TensorView(x.data(), DType::kF32, {tokens, kHidden}),
                 TensorView(ids.data(), DType::kI32, {tokens, kSlots}),
                 TensorView(weights.data(), DType::kF32, {tokens, kSlots}))
      .status();
}

// `change`: of the options of rank 0.
void ExpectRefusal(const ExchangeLayout& layout,
                   const std::function<void(ExpertExchangeOptions&)>& change) {
  if (layout.num_ranks == 1) {
    return;
  }
  RunOn(layout, [&](const ExchangeGroups& groups) {
    ExpertExchangeOptions options = Options(std::vector<int>(kExperts, 0));
    if (groups.ep->rank() == 0) {
      change(options);
    }
    // Whoever compares first says so and ends the group, for those that come later.
    EXPECT_THAT(DispatchOf(groups, options, 2).code(),
                ::testing::AnyOf(absl::StatusCode::kFailedPrecondition,
                                 absl::StatusCode::kAborted));
    EXPECT_THAT(groups.ep->Barrier(), StatusIs(absl::StatusCode::kAborted));
  });
}

TEST_P(ExpertExchangeConformance, RanksWithDifferentPlacementsRefuseEachOther) {
  ExpectRefusal(GetParam(),
                [](ExpertExchangeOptions& options) { options.expert_owner[5] = 1; });
}

TEST_P(ExpertExchangeConformance, RanksThatSendRowsInDifferentFormatsRefuseEachOther) {
  ExpectRefusal(GetParam(), [](ExpertExchangeOptions& options) {
    options.rows = DispatchRows::kFp8;
  });
}

// Rank 0 needs two, the others have one; it may end by what it is asked for at once.
TEST_P(ExpertExchangeConformance, MoreRoundsThanARankHasAreRefused) {
  if (GetParam().num_ranks == 1) {
    return;
  }
  RunOn(GetParam(), [&](const ExchangeGroups& groups) {
    ExpertExchangeOptions options = Options(std::vector<int>(kExperts, 0));
    absl::StatusCode code = absl::StatusCode::kDataLoss;
    if (groups.ep->rank() == 0) {
      options.rounds = {.min_rows = 2};
      code = absl::StatusCode::kInternal;
    }
    EXPECT_THAT(DispatchOf(groups, options, 2).code(),
                ::testing::AnyOf(code, absl::StatusCode::kAborted));
    EXPECT_THAT(groups.ep->Barrier(), StatusIs(absl::StatusCode::kAborted));
  });
}

// Rank 0 alone needs two rounds; the others hear of them.
TEST_P(ExpertExchangeConformance, AnExchangeInRoundsDoesNotGoAtOnce) {
  if (GetParam().num_ranks == 1) {
    return;
  }
  RunOn(GetParam(), [&](const ExchangeGroups& groups) {
    ExpertExchangeOptions options = Options(std::vector<int>(kExperts, 0));
    options.rounds = {.min_rows = 2};
    EXPECT_THAT(
        DispatchOf(groups, options, groups.ep->rank() == 0 ? 2 : 0).code(),
        ::testing::AnyOf(absl::StatusCode::kInternal, absl::StatusCode::kAborted));
    EXPECT_THAT(groups.ep->Barrier(), StatusIs(absl::StatusCode::kAborted));
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
  ExpertExchangeOptions no_rows = Options(std::vector<int>(kExperts, 0));
  no_rows.rounds = {.min_rows = 1, .max_round_rows = 0};
  EXPECT_THAT(create(no_rows), StatusIs(absl::StatusCode::kInvalidArgument));
  no_rows.rounds = {.min_rows = 0, .max_round_rows = 1};
  EXPECT_THAT(create(no_rows), StatusIs(absl::StatusCode::kInvalidArgument));
  ExpertExchangeOptions rounded = Options(std::vector<int>(kExperts, 0));
  rounded.rows = DispatchRows::kFp8;
  EXPECT_THAT(create(rounded), IsOk());
  EXPECT_THAT(ExpertExchange::Create(rounded, MakeBackend(DType::kF64).get(),
                                     {.ep = group->front().get()}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

INSTANTIATE_TEST_SUITE_P(Sizes, ExpertExchangeConformance,
                         ::testing::ValuesIn(testing::ExchangeLayouts()));

}  // namespace
}  // namespace tessera::worker
