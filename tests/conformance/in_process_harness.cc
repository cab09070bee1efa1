#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "tests/conformance/group_harness.h"
#include "tests/conformance/thread_groups.h"
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
    ThreadGroups groups(static_cast<size_t>(size));
    for (const std::vector<int>& coloring : colors) {
      Add(coloring, options, groups);
    }
    RunThreads(groups, body);
  }

 private:
  static void Add(const std::vector<int>& coloring, const worker::CommOptions& options,
                  ThreadGroups& groups) {
    for (const auto& [color, ranks] : MembersByColor(coloring)) {
      auto group = worker::CreateInProcessGroup("test", static_cast<int>(ranks.size()),
                                                options, Clock::Real());
      ASSERT_TRUE(group.ok()) << group.status();
      for (size_t i = 0; i < ranks.size(); ++i) {
        groups[static_cast<size_t>(ranks[i])].push_back(std::move((*group)[i]));
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
