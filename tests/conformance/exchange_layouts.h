// Layouts of the ranks that the suites of ExpertExchange run on: one group of all, or
// nodes and rails, at every size of the harness.
#ifndef TESSERA_TESTS_CONFORMANCE_EXCHANGE_LAYOUTS_H_
#define TESSERA_TESTS_CONFORMANCE_EXCHANGE_LAYOUTS_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <ostream>
#include <random>
#include <span>
#include <vector>

#include "tests/conformance/group_harness.h"
#include "worker/comm/expert_exchange.h"

namespace tessera::testing {

// Ranks, and how many of them make up a node; 0: one group of all.
struct ExchangeLayout {
  int num_ranks;
  int ranks_per_node;

  friend void PrintTo(const ExchangeLayout& layout, std::ostream* out) {
    *out << layout.num_ranks << " ranks, " << layout.ranks_per_node << " per node";
  }
};

inline std::vector<ExchangeLayout> ExchangeLayouts() {
  std::vector<ExchangeLayout> layouts;
  for (const int num_ranks : Harness().sizes()) {
    layouts.push_back({num_ranks, 0});
    for (int per_node = 2; per_node <= num_ranks / 2; ++per_node) {
      if (num_ranks % per_node == 0) {
        layouts.push_back({num_ranks, per_node});
      }
    }
  }
  return layouts;
}

// Experts in even runs over the ranks.
inline std::vector<int> EvenOwners(int num_experts, int num_ranks) {
  std::vector<int> owners;
  for (int expert = 0; expert < num_experts; ++expert) {
    owners.push_back(expert * num_ranks / num_experts);
  }
  return owners;
}

// For each rank its tokens' k experts, drawn at random: [tokens_of_rank[rank], k].
inline std::vector<std::vector<int32_t>> RandomRouting(
    const std::vector<int64_t>& tokens_of_rank, int64_t k, int num_experts,
    uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::vector<int32_t>> routing(tokens_of_rank.size());
  std::vector<int32_t> experts(static_cast<size_t>(num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  for (size_t rank = 0; rank < routing.size(); ++rank) {
    for (int64_t t = 0; t < tokens_of_rank[rank]; ++t) {
      std::ranges::shuffle(experts, random);
      routing[rank].insert(routing[rank].end(), experts.begin(), experts.begin() + k);
    }
  }
  return routing;
}

inline void RunExchange(const ExchangeLayout& layout, const worker::CommOptions& options,
                        const std::function<void(const worker::ExchangeGroups&)>& body) {
  std::vector<std::vector<int>> colors(layout.ranks_per_node == 0 ? 1 : 3);
  for (int rank = 0; rank < layout.num_ranks; ++rank) {
    colors[0].push_back(0);
    if (layout.ranks_per_node != 0) {
      colors[1].push_back(rank / layout.ranks_per_node);
      colors[2].push_back(rank % layout.ranks_per_node);
    }
  }
  Harness().RunGroups(layout.num_ranks, colors, options,
                      [&body](std::span<worker::Communicator* const> groups) {
                        worker::ExchangeGroups own = {.ep = groups[0]};
                        if (groups.size() == 3) {
                          own.node = groups[1];
                          own.rail = groups[2];
                        }
                        body(own);
                      });
}

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONFORMANCE_EXCHANGE_LAYOUTS_H_
