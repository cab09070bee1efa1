// Ranks as threads of this process, for harnesses whose groups all live here.
#ifndef TESSERA_TESTS_CONFORMANCE_THREAD_GROUPS_H_
#define TESSERA_TESTS_CONFORMANCE_THREAD_GROUPS_H_

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "worker/comm/communicator.h"

namespace tessera::testing {

// [rank][coloring]: a rank's own Communicators.
using ThreadGroups = std::vector<std::vector<std::unique_ptr<worker::Communicator>>>;

// The ranks of each color, in rank order.
inline std::map<int, std::vector<int>> MembersByColor(const std::vector<int>& coloring) {
  std::map<int, std::vector<int>> members;
  for (size_t rank = 0; rank < coloring.size(); ++rank) {
    members[coloring[rank]].push_back(static_cast<int>(rank));
  }
  return members;
}

// Calls `body` on a thread of each rank, and waits for all.
inline void RunThreads(
    const ThreadGroups& groups,
    const std::function<void(std::span<worker::Communicator* const>)>& body) {
  std::vector<std::thread> ranks;
  for (const auto& own : groups) {
    ranks.emplace_back([&body, &own] {
      std::vector<worker::Communicator*> pointers;
      for (const auto& group : own) {
        pointers.push_back(group.get());
      }
      body(pointers);
    });
  }
  for (std::thread& rank : ranks) {
    rank.join();
  }
}

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONFORMANCE_THREAD_GROUPS_H_
