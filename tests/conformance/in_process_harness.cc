#include <functional>
#include <map>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "tests/conformance/group_harness.h"
#include "worker/comm/in_process/in_process_group.h"

namespace tessera::testing {
namespace {

class InProcessHarness final : public GroupHarness {
 public:
  std::vector<int> sizes() const override { return {1, 2, 3, 4, 8, 16}; }

  void RunGroups(
      int size, std::span<const std::vector<int>> colors,
      const worker::CommOptions& options,
      const std::function<void(std::span<worker::Communicator* const>)>& body) override {
    Groups groups(static_cast<size_t>(size));
    for (const std::vector<int>& coloring : colors) {
      Add(coloring, options, groups);
    }
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

 private:
  // [rank][coloring]
  using Groups = std::vector<std::vector<std::unique_ptr<worker::Communicator>>>;

  static void Add(const std::vector<int>& coloring, const worker::CommOptions& options,
                  Groups& groups) {
    std::map<int, std::vector<size_t>> members;
    for (size_t rank = 0; rank < coloring.size(); ++rank) {
      members[coloring[rank]].push_back(rank);
    }
    for (const auto& [color, ranks] : members) {
      auto group = worker::CreateInProcessGroup("test", static_cast<int>(ranks.size()),
                                                options, Clock::Real());
      ASSERT_TRUE(group.ok()) << group.status();
      for (size_t i = 0; i < ranks.size(); ++i) {
        groups[ranks[i]].push_back(std::move((*group)[i]));
      }
    }
  }
};

}  // namespace

GroupHarness& Harness() {
  static InProcessHarness harness;
  return harness;
}

}  // namespace tessera::testing
