// What the tests of exchanges in slots share: ranks that are threads, each on a simulated
// device of its own with NCCL among them, all checks on. No case may leave a finding.
#ifndef TESSERA_TESTS_CONFORMANCE_SLOT_RANKS_H_
#define TESSERA_TESTS_CONFORMANCE_SLOT_RANKS_H_

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/cuda/devices/nccl_collectives.h"
#include "kernels/cuda/devices/simulated_devices.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_nccl.h"
#include "kernels/kernel_backend.h"
#include "kernels/local_devices.h"
#include "tests/conformance/exchange_problem.h"
#include "tests/conformance/rank_threads.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/communicator.h"
#include "worker/comm/nccl/nccl_group.h"
#include "worker/comm/stream_wait.h"

namespace tessera::worker {

// What a rank of a case works with.
struct Rank {
  Communicator* comm = nullptr;
  kernels::KernelBackend* backend = nullptr;
  std::unique_ptr<kernels::Stream> stream;
  std::unique_ptr<StreamWait> wait;

  int rank() const { return comm->rank(); }
  absl::Status Wait() const { return wait->Synchronize(*stream); }
};

class SlotRanks : public ::testing::TestWithParam<int> {
 protected:
  using Traffic = kernels::cuda_sim::NcclTraffic;

  // Returns what each rank received.
  static std::vector<Traffic> Run(int size, const std::function<void(Rank&)>& body,
                                  const CommOptions& comm = kGenerous,
                                  std::string_view numerics = "f32") {
    using kernels::cuda_sim::SimNcclComm;
    const auto machine = std::make_shared<kernels::cuda_sim::SimMachine>(
        kernels::cuda_sim::SimOptions{.seed = ++seed_, .num_devices = size});
    const auto id = SimNcclComm::GetUniqueId(machine);
    RunOnMachine(machine, id, size, body, comm, numerics);
    EXPECT_THAT(machine->status(), testing::IsOk()) << "seed " << seed_;
    std::vector<Traffic> received(static_cast<size_t>(size));
    for (int to = 0; to < size; ++to) {
      for (int from = 0; from < size; ++from) {
        const Traffic one = id.Traffic(from, to);
        received[static_cast<size_t>(to)].messages += one.messages;
        received[static_cast<size_t>(to)].bytes += one.bytes;
      }
    }
    return received;
  }

  // The same on a machine whose state is for the caller to judge.
  static void RunOnMachine(const std::shared_ptr<kernels::cuda_sim::SimMachine>& machine,
                           const kernels::cuda_sim::SimNcclId& id, int size,
                           const std::function<void(Rank&)>& body,
                           const CommOptions& comm, std::string_view numerics) {
    const auto devices = kernels::CreateSimulatedDevices(machine, numerics);
    std::vector<std::unique_ptr<kernels::DeviceCollectives>> connected;
    std::vector<std::unique_ptr<kernels::KernelBackend>> backends;
    for (int rank = 0; rank < size; ++rank) {
      connected.push_back(
          *kernels::cuda::CreateNcclCollectives(machine, id, size, rank, rank));
      backends.push_back(*devices->CreateBackend(rank));
    }
    auto group = CreateNcclGroup("ep", std::move(connected), comm, Clock::Real());
    EXPECT_THAT(group, testing::IsOk());
    RunRankThreads<Rank>(*group, backends, body);
  }

 private:
  static inline uint64_t seed_ = 0;
};

// Of a rank's tokens, [begin, begin + out.size() / d) of the problem.
inline bool HasBits(const std::vector<float>& out, const std::vector<float>& expected,
                    int64_t begin, int64_t hidden = kHidden) {
  return out.empty() || std::memcmp(out.data(), expected.data() + begin * hidden,
                                    out.size() * sizeof(float)) == 0;
}

inline int64_t Before(const std::vector<int64_t>& counts, int rank) {
  return std::accumulate(counts.begin(), counts.begin() + rank, int64_t{0});
}

}  // namespace tessera::worker

#endif  // TESSERA_TESTS_CONFORMANCE_SLOT_RANKS_H_
