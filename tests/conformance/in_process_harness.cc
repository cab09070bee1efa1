#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "tests/conformance/group_harness.h"
#include "worker/comm/in_process/in_process_group.h"

namespace tessera::testing {
namespace {

class InProcessHarness final : public GroupHarness {
 public:
  std::vector<int> sizes() const override { return {1, 2, 3, 4, 8, 16}; }

  void Run(int size, const worker::CommOptions& options,
           const std::function<void(worker::Communicator&)>& body) override {
    auto group = worker::CreateInProcessGroup("test", size, options, Clock::Real());
    ASSERT_TRUE(group.ok()) << group.status();
    std::vector<std::thread> ranks;
    for (const auto& rank : *group) {
      ranks.emplace_back([&body, &rank] { body(*rank); });
    }
    for (std::thread& rank : ranks) {
      rank.join();
    }
  }
};

}  // namespace

GroupHarness& Harness() {
  static InProcessHarness harness;
  return harness;
}

}  // namespace tessera::testing
