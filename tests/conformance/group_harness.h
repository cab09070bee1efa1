// GroupHarness: runs one function on every rank of fresh groups, for the conformance
// suites of Communicator and ExpertExchange. Which implementation is under test is
// decided by linking: each test binary holds one harness, and the suites are the same.
#ifndef TESSERA_TESTS_CONFORMANCE_GROUP_HARNESS_H_
#define TESSERA_TESTS_CONFORMANCE_GROUP_HARNESS_H_

#include <functional>
#include <span>
#include <vector>

#include "worker/comm/communicator.h"

namespace tessera::testing {

class GroupHarness {
 public:
  virtual ~GroupHarness() = default;

  // Sizes that Run takes.
  virtual std::vector<int> sizes() const = 0;

  // On `size` ranks, makes the groups of each coloring (colors[i][rank]: ranks of the
  // same color are a group, in the order of their ranks) and calls `body` on each rank
  // with its group of each coloring: in threads of this process, or, where this process
  // is one rank of many, on its own rank alone. Returns when all ranks are done.
  virtual void RunGroups(
      int size, std::span<const std::vector<int>> colors,
      const worker::CommOptions& options,
      const std::function<void(std::span<worker::Communicator* const>)>& body) = 0;

  // One group of all.
  void Run(int size, const worker::CommOptions& options,
           const std::function<void(worker::Communicator&)>& body) {
    const std::vector<int> one(static_cast<size_t>(size), 0);
    RunGroups(
        size, {&one, 1}, options,
        [&body](std::span<worker::Communicator* const> groups) { body(*groups[0]); });
  }
};

// The harness that this binary is linked with.
GroupHarness& Harness();

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONFORMANCE_GROUP_HARNESS_H_
