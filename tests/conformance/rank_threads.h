// Ranks of a group as threads, each on a simulated device of its own.
#ifndef TESSERA_TESTS_CONFORMANCE_RANK_THREADS_H_
#define TESSERA_TESTS_CONFORMANCE_RANK_THREADS_H_

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <memory>
#include <thread>
#include <vector>

#include "common/clock.h"
#include "kernels/kernel_backend.h"
#include "worker/comm/communicator.h"
#include "worker/comm/stream_wait.h"

namespace tessera::worker {

// Calls `body` with a Rank (comm, backend, stream, wait) of each member of the group, all
// at once, and waits for all. `backends` are the members'.
template <typename Rank>
void RunRankThreads(const std::vector<std::unique_ptr<Communicator>>& group,
                    const std::vector<std::unique_ptr<kernels::KernelBackend>>& backends,
                    const std::function<void(Rank&)>& body) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < backends.size(); ++i) {
    threads.emplace_back([&, i] {
      Rank rank;
      rank.comm = group[i].get();
      rank.backend = backends[i].get();
      rank.stream = *backends[i]->CreateStream();
      rank.wait = std::make_unique<StreamWait>(
          std::initializer_list<Communicator*>{rank.comm, nullptr}, Clock::Real());
      body(rank);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace tessera::worker

#endif  // TESSERA_TESTS_CONFORMANCE_RANK_THREADS_H_
