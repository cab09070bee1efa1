// Messages and bytes that an ExpertExchange puts on the wire, counted by the simulator's
// twin of NCCL between each pair of devices, at EP8 to EP64: those of the formula, and
// over nodes a row once to each node.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "kernels/reference/reference_backend.h"
#include "tests/conformance/exchange_layouts.h"
#include "tests/conformance/fiber_groups.h"
#include "tests/conformance/fiber_ranks.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/exchange_volume.h"
#include "worker/comm/expert_exchange.h"

namespace tessera::worker {
namespace {

using kernels::DType;
using kernels::TensorView;
using kernels::cuda_sim::NcclTraffic;
using testing::ExchangeLayout;
using testing::IsOk;

constexpr int64_t kHidden = 6;
constexpr int kExperts = 128;
constexpr int64_t kSlots = 6;
constexpr int64_t kTokens = 4;  // few: some parts of a combine are empty
constexpr int kLayers = 2;
constexpr uint32_t kSeed = 20261126;

ExpertExchangeOptions Options(int ranks, DispatchRows rows) {
  ExpertExchangeOptions options;
  options.rows = rows;
  options.max_tokens = kTokens;
  options.hidden_size = kHidden;
  options.experts_per_token = kSlots;
  options.expert_owner = testing::EvenOwners(kExperts, ranks);
  return options;
}

// kLayers exchanges of one rank.
void RunRank(const ExchangeGroups& groups, const ExpertExchangeOptions& options,
             std::vector<int32_t> ids) {
  auto backend = kernels::CreateReferenceBackend({.name = "reference"});
  ASSERT_THAT(backend, IsOk());
  const auto stream = (*backend)->CreateStream();
  ASSERT_THAT(stream, IsOk());
  auto exchange = ExpertExchange::Create(options, backend->get(), groups);
  ASSERT_THAT(exchange, IsOk());
  std::vector<float> x(kTokens * kHidden, 1);
  std::vector<float> weights(ids.size(), 0.5f);
  std::vector<float> out(x.size());
  for (int layer = 0; layer < kLayers; ++layer) {
    auto batch = (*exchange)->Dispatch(
        **stream, TensorView(x.data(), DType::kF32, {kTokens, kHidden}),
        TensorView(ids.data(), DType::kI32, {kTokens, kSlots}),
        TensorView(weights.data(), DType::kF32, {kTokens, kSlots}));
    ASSERT_THAT(batch, IsOk());
    std::fill_n(static_cast<float*>(batch->out.data),
                batch->out.dim(0) * batch->out.dim(1), 2.0f);
    ASSERT_THAT((*exchange)->Combine(
                    **stream, TensorView(out.data(), DType::kF32, {kTokens, kHidden})),
                IsOk());
  }
}

void ExpectOnWire(const NcclTraffic& received, const ExchangeVolume& volume) {
  const WireVolume wire = WithLengthsAhead(volume);
  EXPECT_EQ(received.messages, static_cast<uint64_t>(kLayers * wire.messages));
  EXPECT_EQ(received.bytes, static_cast<uint64_t>(kLayers * wire.bytes));
}

class NcclVolume : public ::testing::TestWithParam<ExchangeLayout> {};

void ExpectFormula(const ExchangeLayout& layout, DispatchRows rows) {
  const ExpertExchangeOptions options = Options(layout.num_ranks, rows);
  const auto routing = testing::RandomRouting(
      std::vector<int64_t>(static_cast<size_t>(layout.num_ranks), kTokens), kSlots,
      kExperts, kSeed);
  testing::FiberRanks ranks(kSeed);
  testing::FiberGroups groups(
      {.layout = layout, .comm = {.timeout = absl::Seconds(1)}, .seed = kSeed}, &ranks);
  ranks.Run(layout.num_ranks, [&](int rank) {
    const auto own = groups.Join(rank);
    ASSERT_THAT(own, IsOk());
    RunRank(*own, options, routing[static_cast<size_t>(rank)]);
  });
  EXPECT_THAT(groups.Findings(), ::testing::IsEmpty());
  int64_t empty_parts = 0;
  for (int rank = 0; rank < layout.num_ranks; ++rank) {
    SCOPED_TRACE(rank);
    if (layout.ranks_per_node == 0) {
      const ExchangeVolume volume = VolumeOf(options, sizeof(float), routing, rank);
      ExpectOnWire(groups.ReceivedOverEp(rank), volume);
      empty_parts += layout.num_ranks - 1 - volume.combine_parts;
      continue;
    }
    const NodeExchangeVolume volume =
        VolumeOverNodes(options, sizeof(float), routing, rank, layout.ranks_per_node);
    ExpectOnWire(groups.ReceivedOverRail(rank), volume.rail);
    ExpectOnWire(groups.ReceivedOverNode(rank), volume.node);
    EXPECT_EQ(groups.ReceivedOverEp(rank), NcclTraffic());
  }
  if (layout.num_ranks == 64 && layout.ranks_per_node == 0) {
    EXPECT_GT(empty_parts, 0) << "no rank had an empty part to leave out";
  }
}

TEST_P(NcclVolume, OnTheWireAreMessagesAndBytesOfTheFormula) {
  ExpectFormula(GetParam(), DispatchRows::kActivations);
}

TEST_P(NcclVolume, OnTheWireOfRowsInFp8AreMessagesAndBytesOfTheFormula) {
  ExpectFormula(GetParam(), DispatchRows::kFp8);
}

INSTANTIATE_TEST_SUITE_P(Layouts, NcclVolume,
                         ::testing::Values(ExchangeLayout{8, 0}, ExchangeLayout{16, 0},
                                           ExchangeLayout{32, 0}, ExchangeLayout{64, 0},
                                           ExchangeLayout{16, 8}, ExchangeLayout{32, 8},
                                           ExchangeLayout{64, 8}));

}  // namespace
}  // namespace tessera::worker
