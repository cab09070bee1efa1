#include "worker/comm/node_layout.h"

#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"
#include "worker/comm/in_process/in_process_group.h"

namespace tessera::worker {
namespace {

using testing::IsOkAndHolds;
using testing::StatusIs;

// What every rank is told, by host and number.
std::vector<absl::StatusOr<int>> Agree(const std::vector<std::string>& hosts,
                                       const std::vector<int>& told) {
  const auto size = static_cast<int>(hosts.size());
  auto group = CreateInProcessGroup("ep", size, {}, Clock::Real());
  EXPECT_TRUE(group.ok());
  std::vector<absl::StatusOr<int>> answers(hosts.size(), -1);
  std::vector<std::thread> ranks;
  for (size_t rank = 0; rank < hosts.size(); ++rank) {
    ranks.emplace_back([&, rank] {
      answers[rank] = AgreeOnRanksPerNode(*(*group)[rank], hosts[rank], told[rank]);
    });
  }
  for (std::thread& rank : ranks) {
    rank.join();
  }
  return answers;
}

void ExpectAll(const std::vector<std::string>& hosts, int told, int expected) {
  const std::vector<int> all(hosts.size(), told);
  for (const absl::StatusOr<int>& answer : Agree(hosts, all)) {
    EXPECT_THAT(answer, IsOkAndHolds(expected)) << ::testing::PrintToString(hosts);
  }
}

TEST(NodeLayout, HostsWithEqualRunsOfRanksAreNodes) {
  ExpectAll({"a", "a", "b", "b"}, 0, 2);
  ExpectAll({"b", "b", "b", "b", "a", "a", "a", "a"}, 0, 4);
  ExpectAll({"a", "a", "b", "b", "c", "c"}, 0, 2);
}

TEST(NodeLayout, AnythingElseIsOneLevel) {
  ExpectAll({"a"}, 0, 0);
  ExpectAll({"a", "a", "a", "a"}, 0, 0);
  ExpectAll({"a", "b", "c", "d"}, 0, 0);
  ExpectAll({"a", "a", "a", "b"}, 0, 0);
  ExpectAll({"a", "a", "b", "b", "b", "b"}, 0, 0);
  ExpectAll({"a", "b", "a", "b"}, 0, 0);
  ExpectAll({"a", "a", "b", "b", "a", "a"}, 0, 0);
}

TEST(NodeLayout, WhatRanksAreToldGoesFirst) {
  ExpectAll({"a", "a", "a", "a"}, 2, 2);
  ExpectAll({"a", "a", "b", "b"}, 1, 0);
  ExpectAll({"a", "a", "b", "b"}, 4, 0);
}

TEST(NodeLayout, RefusesNumbersThatDoNotGoTogether) {
  for (const auto& answer : Agree({"a", "a", "a", "a"}, {3, 3, 3, 3})) {
    EXPECT_THAT(answer, StatusIs(absl::StatusCode::kInvalidArgument));
  }
  for (const auto& answer : Agree({"a", "a", "a", "a"}, {2, 2, 0, 2})) {
    EXPECT_THAT(answer, StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

}  // namespace
}  // namespace tessera::worker
