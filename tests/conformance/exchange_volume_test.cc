// How messages and bytes of an ExpertExchange grow with the number of ranks: what a
// Communicator counts is what the formula says, at every size of the harness.
#include "worker/comm/exchange_volume.h"

#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "gtest/gtest.h"

#include "tests/conformance/exchange_layouts.h"
#include "tests/conformance/group_harness.h"
#include "tests/testing/status_matchers.h"

namespace tessera::worker {
namespace {

using kernels::DType;
using kernels::TensorView;
using testing::IsOk;

constexpr int64_t kHidden = 13;  // odd: rows of F32 need padding on the wire
constexpr int kExperts = 48;
constexpr int64_t kSlots = 6;
constexpr int64_t kTokens = 40;
constexpr int kExchanges = 3;
constexpr uint32_t kSeed = 20261126;

ExpertExchangeOptions Options(int ranks, bool weights_travel,
                              DispatchRows rows = DispatchRows::kActivations) {
  ExpertExchangeOptions options;
  options.max_tokens = kTokens;
  options.hidden_size = kHidden;
  options.experts_per_token = kSlots;
  options.weights_travel = weights_travel;
  options.rows = rows;
  options.expert_owner = testing::EvenOwners(kExperts, ranks);
  return options;
}

// The same on every rank. Rank r brings kTokens - r tokens, and the last one none.
std::vector<std::vector<int32_t>> Routing(int ranks) {
  std::vector<int64_t> tokens;
  for (int rank = 0; rank < ranks; ++rank) {
    tokens.push_back(ranks > 1 && rank == ranks - 1 ? 0 : kTokens - rank);
  }
  return testing::RandomRouting(tokens, kSlots, kExperts, kSeed);
}

void ExpectCounters(const Communicator& group, const ExchangeVolume& volume) {
  EXPECT_EQ(group.stats().messages, static_cast<uint64_t>(kExchanges * volume.messages));
  EXPECT_EQ(
      group.stats().bytes,
      static_cast<uint64_t>(kExchanges * (volume.dispatch_bytes + volume.combine_bytes)))
      << "rank " << group.rank() << " of " << group.size();
  EXPECT_EQ(volume.messages, 2 * (group.size() - 1));
}

void ExpectCountersOfFormula(const ExchangeGroups& groups,
                             const ExpertExchangeOptions& options) {
  Communicator& ep = *groups.ep;
  std::vector<std::vector<int32_t>> routing = Routing(ep.size());
  auto backend = kernels::CreateBackend({.name = "reference", .dtype = DType::kF32});
  ASSERT_THAT(backend, IsOk());
  const auto stream = (*backend)->CreateStream();
  ASSERT_THAT(stream, IsOk());
  auto exchange = ExpertExchange::Create(options, backend->get(), groups);
  ASSERT_THAT(exchange, IsOk());
  std::vector<int32_t>& ids = routing[static_cast<size_t>(ep.rank())];
  const auto tokens = static_cast<int64_t>(ids.size()) / kSlots;
  std::vector<float> x(static_cast<size_t>(tokens * kHidden), 1);
  std::vector<float> weights(ids.size(), 0.5f);
  std::vector<float> out(x.size());
  for (int i = 0; i < kExchanges; ++i) {
    auto batch = (*exchange)->Dispatch(
        **stream, TensorView(x.data(), DType::kF32, {tokens, kHidden}),
        TensorView(ids.data(), DType::kI32, {tokens, kSlots}),
        TensorView(weights.data(), DType::kF32, {tokens, kSlots}));
    ASSERT_THAT(batch, IsOk());
    std::fill_n(static_cast<float*>(batch->out.data),
                batch->out.dim(0) * batch->out.dim(1), 2.0f);
    ASSERT_THAT((*exchange)->Combine(
                    **stream, TensorView(out.data(), DType::kF32, {tokens, kHidden})),
                IsOk());
  }
  if (groups.node == nullptr) {
    ExpectCounters(ep, VolumeOf(options, sizeof(float), routing, ep.rank()));
    return;
  }
  const NodeExchangeVolume volume =
      VolumeOverNodes(options, sizeof(float), routing, ep.rank(), groups.node->size());
  ExpectCounters(*groups.rail, volume.rail);
  ExpectCounters(*groups.node, volume.node);
  EXPECT_EQ(ep.stats().messages, 0u);
}

TEST(ExchangeVolume, CountersAreThoseOfTheFormula) {
  RecordProperty("seed", static_cast<int>(kSeed));
  for (const DispatchRows rows : {DispatchRows::kActivations, DispatchRows::kFp8}) {
    for (const bool weights_travel : {false, true}) {
      for (const testing::ExchangeLayout& layout : testing::ExchangeLayouts()) {
        if (kExperts % layout.num_ranks == 0) {
          testing::RunExchange(
              layout, {.timeout = absl::Seconds(60)}, [&](const ExchangeGroups& groups) {
                ExpectCountersOfFormula(groups,
                                        Options(layout.num_ranks, weights_travel, rows));
              });
        }
      }
    }
  }
}

// By hand: what a row is on the wire, and that outputs come back as they were.
TEST(ExchangeVolume, RowsInFp8AreCodesAndAScaleForEach128) {
  ExpertExchangeOptions options = Options(2, false, DispatchRows::kFp8);
  options.hidden_size = 4096;
  EXPECT_EQ(DispatchRowBytes(options, 4), 4096 + 4096 / 128 * 4);
  // A token of rank 1 with one expert on rank 0: header, count and id, the row.
  const std::vector<std::vector<int32_t>> routing = {{}, {0, 30, 31, 32, 33, 34}};
  const ExchangeVolume volume = VolumeOf(options, 4, routing, 0);
  EXPECT_EQ(volume.dispatch_bytes, 24 + 8 + 4224);
  EXPECT_EQ(VolumeOf(options, 4, routing, 1).combine_bytes, 4096 * 4);
  EXPECT_EQ(SlotVolume(options, 2, 3).dispatch_bytes, 3 * (4224 + 4 * 8));  // 6 ids, 2
  EXPECT_EQ(SlotVolume(options, 2, 3).combine_bytes, 3 * 6 * 4096 * 4);
}

// Over nodes a row crosses to each node once, whatever the number of its ranks there.
TEST(ExchangeVolume, ARowCrossesOnceToEachNode) {
  constexpr int kRanks = 16;
  constexpr int kPerNode = 4;
  ExpertExchangeOptions options = Options(kRanks, false);
  options.hidden_size = 4096;
  const std::vector<std::vector<int32_t>> routing = Routing(kRanks);
  int64_t flat = 0;   // from other nodes, one level
  int64_t rails = 0;  // two levels
  int64_t rows = 0;   // by hand: (token, other node that it reaches)
  for (int rank = 0; rank < kRanks; ++rank) {
    rails += VolumeOverNodes(options, 4, routing, rank, kPerNode).rail.dispatch_bytes;
    flat += VolumeOf(options, 4, routing, rank).dispatch_bytes;
    const std::vector<int32_t>& ids = routing[static_cast<size_t>(rank)];
    for (size_t token = 0; token < ids.size(); token += kSlots) {
      std::set<int> nodes;
      for (size_t slot = token; slot < token + kSlots; ++slot) {
        nodes.insert(options.expert_owner[static_cast<size_t>(ids[slot])] / kPerNode);
      }
      nodes.erase(rank / kPerNode);
      rows += static_cast<int64_t>(nodes.size());
    }
  }
  EXPECT_NEAR(static_cast<double>(rails), static_cast<double>(rows * 4096 * 4),
              static_cast<double>(rails) / 100);
  EXPECT_LT(rails, flat);
}

TEST(ExchangeVolume, WhatIsExpectedIsTheMeanOfRandomRouting) {
  for (const int ranks : {2, 4, 8, 16}) {
    ExpertExchangeOptions options = Options(
        ranks, true, ranks == 8 ? DispatchRows::kFp8 : DispatchRows::kActivations);
    options.hidden_size = 500;
    constexpr int64_t kMany = 4000;
    const auto routing = testing::RandomRouting(
        std::vector<int64_t>(static_cast<size_t>(ranks), kMany), kSlots, kExperts, kSeed);
    double dispatch = 0;
    double combine = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const ExchangeVolume volume = VolumeOf(options, 4, routing, rank);
      dispatch += static_cast<double>(volume.dispatch_bytes) / ranks;
      combine += static_cast<double>(volume.combine_bytes) / ranks;
    }
    const ExpectedVolume expected = ExpectVolume(options, 4, ranks, kMany);
    EXPECT_NEAR(dispatch / expected.dispatch_bytes, 1, 0.02) << ranks;
    EXPECT_NEAR(combine / expected.combine_bytes, 1, 0.02) << ranks;
    EXPECT_LE(expected.ranks_per_token, std::min<double>(ranks - 1, kSlots));
  }
}

}  // namespace
}  // namespace tessera::worker
