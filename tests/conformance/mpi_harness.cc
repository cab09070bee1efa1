// The suite runs in every process of an MPI job, each on its own rank. A group that a
// case kills is replaced by the next one, which real workers never do: they leave the
// job.
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "common/clock.h"
#include "tests/conformance/group_harness.h"
#include "worker/comm/mpi/mpi_runtime.h"

namespace tessera::testing {

int RunRank(int argc, char** argv);

namespace {

class MpiHarness final : public GroupHarness {
 public:
  MpiHarness() {
    auto runtime = worker::MpiRuntime::Create(Clock::Real());
    if (!runtime.ok()) {
      ADD_FAILURE() << runtime.status();
      std::abort();
    }
    runtime_ = std::move(runtime).value();
  }

  std::vector<int> sizes() const override { return {runtime_->world_size()}; }
  worker::MpiRuntime& runtime() { return *runtime_; }

  void RunGroups(
      int size, std::span<const std::vector<int>> colors,
      const worker::CommOptions& options,
      const std::function<void(std::span<worker::Communicator* const>)>& body) override {
    ASSERT_EQ(size, runtime_->world_size());
    std::vector<std::unique_ptr<worker::Communicator>> groups;
    std::vector<worker::Communicator*> pointers;
    for (const std::vector<int>& coloring : colors) {
      auto group = runtime_->CreateGroup(
          "test", coloring[static_cast<size_t>(runtime_->world_rank())], options);
      ASSERT_TRUE(group.ok()) << group.status();
      pointers.push_back(group->get());
      groups.push_back(*std::move(group));
    }
    body(pointers);
  }

 private:
  std::unique_ptr<worker::MpiRuntime> runtime_;
};

MpiHarness& TheHarness() {
  static MpiHarness harness;
  return harness;
}

}  // namespace

GroupHarness& Harness() { return TheHarness(); }

int RunRank(int argc, char** argv) {
  worker::MpiRuntime& runtime = TheHarness().runtime();
  ::testing::InitGoogleTest(&argc, argv);
  // Rank 0 tells the story; the other ranks speak of failures alone.
  GTEST_FLAG_SET(brief, runtime.world_rank() != 0);
  const int result = RUN_ALL_TESTS();
  // Every rank comes here, whatever became of the groups of single cases.
  return runtime.Finalize().ok() ? result : 1;
}

}  // namespace tessera::testing

int main(int argc, char** argv) { return tessera::testing::RunRank(argc, argv); }
