// GroupHarness: runs one function on every rank of a fresh group, for the conformance
// suites of Communicator and ExpertExchange. Which implementation is under test is
// decided by linking: each test binary holds one harness, and the suites are the same.
#ifndef TESSERA_TESTS_CONFORMANCE_GROUP_HARNESS_H_
#define TESSERA_TESTS_CONFORMANCE_GROUP_HARNESS_H_

#include <functional>
#include <memory>
#include <vector>

#include "worker/comm/communicator.h"

namespace tessera::testing {

class GroupHarness {
 public:
  virtual ~GroupHarness() = default;

  // Sizes that Run takes.
  virtual std::vector<int> sizes() const = 0;

  // Makes a group of `size` ranks and calls `body` on each: in threads of this process,
  // or, where this process is one rank of many, on its own rank alone. Returns when all
  // ranks are done.
  virtual void Run(int size, const worker::CommOptions& options,
                   const std::function<void(worker::Communicator&)>& body) = 0;
};

// The harness that this binary is linked with.
GroupHarness& Harness();

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONFORMANCE_GROUP_HARNESS_H_
