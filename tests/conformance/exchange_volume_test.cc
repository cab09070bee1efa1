// How messages and bytes of an ExpertExchange grow with the number of ranks: what a
// Communicator counts is what the formula says, at every size of the harness.
#include "worker/comm/exchange_volume.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

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

ExpertExchangeOptions Options(int ranks, bool weights_travel) {
  ExpertExchangeOptions options;
  options.max_tokens = kTokens;
  options.hidden_size = kHidden;
  options.experts_per_token = kSlots;
  options.weights_travel = weights_travel;
  for (int expert = 0; expert < kExperts; ++expert) {
    options.expert_owner.push_back(expert * ranks / kExperts);
  }
  return options;
}

// The same on every rank. Rank r brings kTokens - r tokens, and the last one none.
std::vector<std::vector<int32_t>> Routing(int ranks) {
  std::mt19937 random(kSeed);
  std::vector<std::vector<int32_t>> routing(static_cast<size_t>(ranks));
  std::vector<int32_t> experts(kExperts);
  std::iota(experts.begin(), experts.end(), 0);
  for (int rank = 0; rank < ranks; ++rank) {
    const int64_t tokens = ranks > 1 && rank == ranks - 1 ? 0 : kTokens - rank;
    for (int64_t t = 0; t < tokens; ++t) {
      std::ranges::shuffle(experts, random);
      routing[static_cast<size_t>(rank)].insert(routing[static_cast<size_t>(rank)].end(),
                                                experts.begin(),
                                                experts.begin() + kSlots);
    }
  }
  return routing;
}

void ExpectCountersOfFormula(Communicator& ep, bool weights_travel) {
  const ExpertExchangeOptions options = Options(ep.size(), weights_travel);
  std::vector<std::vector<int32_t>> routing = Routing(ep.size());
  auto backend = kernels::CreateBackend({.name = "reference", .dtype = DType::kF32});
  ASSERT_THAT(backend, IsOk());
  const auto stream = (*backend)->CreateStream();
  ASSERT_THAT(stream, IsOk());
  auto exchange = ExpertExchange::Create(options, backend->get(), &ep);
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
  const ExchangeVolume volume = VolumeOf(options, sizeof(float), routing, ep.rank());
  EXPECT_EQ(ep.stats().messages, static_cast<uint64_t>(kExchanges * volume.messages));
  EXPECT_EQ(ep.stats().bytes, static_cast<uint64_t>(kExchanges * (volume.dispatch_bytes +
                                                                  volume.combine_bytes)))
      << "rank " << ep.rank() << " of " << ep.size();
  EXPECT_EQ(volume.messages, 2 * (ep.size() - 1));
}

TEST(ExchangeVolume, CountersAreThoseOfTheFormula) {
  RecordProperty("seed", static_cast<int>(kSeed));
  for (const bool weights_travel : {false, true}) {
    for (const int size : testing::Harness().sizes()) {
      if (kExperts % size == 0) {
        testing::Harness().Run(
            size, {.timeout = absl::Seconds(60)},
            [&](Communicator& ep) { ExpectCountersOfFormula(ep, weights_travel); });
      }
    }
  }
}

TEST(ExchangeVolume, WhatIsExpectedIsTheMeanOfRandomRouting) {
  std::mt19937 random(kSeed);
  for (const int ranks : {2, 4, 8, 16}) {
    ExpertExchangeOptions options = Options(ranks, true);
    options.hidden_size = 500;
    std::vector<std::vector<int32_t>> routing(static_cast<size_t>(ranks));
    std::vector<int32_t> experts(kExperts);
    std::iota(experts.begin(), experts.end(), 0);
    constexpr int64_t kMany = 4000;
    for (std::vector<int32_t>& ids : routing) {
      for (int64_t t = 0; t < kMany; ++t) {
        std::ranges::shuffle(experts, random);
        ids.insert(ids.end(), experts.begin(), experts.begin() + kSlots);
      }
    }
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
