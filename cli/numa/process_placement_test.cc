#include "cli/numa/process_placement.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include <linux/filter.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/status_macros.h"
#include "tests/testing/node_folder.h"
#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::IsOkAndHolds;
using testing::NodeFolder;
using testing::StatusIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
using Numbers = std::vector<int>;

NumaTopology TwoSockets() {
  return {{{.id = 0, .cpus = {0, 1, 4, 5}}, {.id = 1, .cpus = {2, 3, 6, 7}}}};
}
Numbers Eight() { return {0, 1, 2, 3, 4, 5, 6, 7}; }

PlacementRequest Request(const std::string& numa, int rank, int num_ranks) {
  return {.numa = numa, .position = {rank, num_ranks}};
}

TEST(NodeOfRank, RanksAreSpreadInOrder) {
  const auto nodes = [](int num_ranks, int num_nodes) {
    Numbers result;
    for (int rank = 0; rank < num_ranks; ++rank) {
      result.push_back(NodeOfRank({rank, num_ranks}, num_nodes));
    }
    return result;
  };
  EXPECT_THAT(nodes(2, 2), ElementsAre(0, 1));
  EXPECT_THAT(nodes(4, 2), ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(nodes(3, 2), ElementsAre(0, 0, 1));
  EXPECT_THAT(nodes(2, 4), ElementsAre(0, 2));
}

TEST(PlanPlacement, ARankIsBoundToItsNodeAndPrefersItsMemory) {
  const auto plan = PlanPlacement(Request("bind", 1, 2), TwoSockets(), Eight());
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->node, 1);
  EXPECT_THAT(plan->cpus, ElementsAre(2, 3, 6, 7));
  EXPECT_EQ(plan->memory, MemoryPolicy::kPreferred);
  EXPECT_THAT(plan->memory_nodes, ElementsAre(1));
  EXPECT_EQ(plan->num_threads, 4);
  EXPECT_EQ(plan->idle_nodes, 0);
  EXPECT_THAT(plan->off_why, IsEmpty());
}

TEST(PlanPlacement, RanksOfANodeShareItsThreads) {
  for (const int rank : {0, 1, 2}) {
    const auto plan = PlanPlacement(Request("bind", rank, 3), TwoSockets(), Eight());
    ASSERT_THAT(plan, IsOk());
    EXPECT_EQ(plan->node, rank / 2);
    EXPECT_EQ(plan->cpus.size(), 4u);
    EXPECT_EQ(plan->num_threads, rank < 2 ? 2 : 4);
  }
}

TEST(PlanPlacement, NodesWithoutCpusOfThisProcessDoNotCount) {
  const NumaTopology four = {{{.id = 0, .cpus = {0, 1}},
                              {.id = 2, .cpus = {2, 3}},
                              {.id = 5, .cpus = {}},
                              {.id = 7, .cpus = {4, 5}, .has_memory = false}}};
  const Numbers allowed = {1, 2, 4, 5};
  const auto last = PlanPlacement(Request("bind", 2, 3), four, allowed);
  ASSERT_THAT(last, IsOk());
  EXPECT_EQ(last->node, 7);
  EXPECT_THAT(last->cpus, ElementsAre(4, 5));
  EXPECT_EQ(last->memory, MemoryPolicy::kDefault) << "it has none of its own";
  EXPECT_THAT(last->memory_nodes, IsEmpty());
  const auto first = PlanPlacement(Request("bind", 0, 3), four, allowed);
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(first->cpus, ElementsAre(1));
  const auto interleaved = PlanPlacement(Request("interleave", 0, 1), four, allowed);
  ASSERT_THAT(interleaved, IsOk());
  EXPECT_THAT(interleaved->memory_nodes, ElementsAre(0, 2));
}

TEST(PlanPlacement, NodesWithoutARankAreCounted) {
  NumaTopology four;
  for (int id = 0; id < 4; ++id) {
    four.nodes.push_back({.id = id, .cpus = {2 * id, 2 * id + 1}});
  }
  const auto plan = PlanPlacement(Request("bind", 1, 2), four, Eight());
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->node, 2);
  EXPECT_EQ(plan->idle_nodes, 2);
}

TEST(PlanPlacement, OneRankIsNotBoundToOneOfSeveralNodes) {
  EXPECT_THAT(PlanPlacement(Request("bind", 0, 1), TwoSockets(), Eight()),
              StatusIs(kInvalid, HasSubstr("--numa interleave, or --workers 2")));
}

TEST(PlanPlacement, InterleavedMemoryLeavesCpusAsTheyAre) {
  const auto plan = PlanPlacement(Request("interleave", 0, 1), TwoSockets(), Eight());
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->node, std::nullopt);
  EXPECT_THAT(plan->cpus, IsEmpty());
  EXPECT_EQ(plan->memory, MemoryPolicy::kInterleave);
  EXPECT_THAT(plan->memory_nodes, ElementsAre(0, 1));
  EXPECT_EQ(plan->num_threads, 0);
}

TEST(PlanPlacement, OneNodeIsAsWithOffAndSaysSo) {
  const NumaTopology one = {{{.id = 0, .cpus = Eight()}}};
  for (const char* numa : {"bind", "interleave"}) {
    for (const NumaTopology& topology : {one, NumaTopology{}}) {
      const auto plan = PlanPlacement(Request(numa, 0, 2), topology, Eight());
      ASSERT_THAT(plan, IsOk());
      EXPECT_THAT(plan->cpus, IsEmpty());
      EXPECT_EQ(plan->memory, MemoryPolicy::kDefault);
      EXPECT_THAT(plan->memory_nodes, IsEmpty());
      EXPECT_EQ(plan->num_threads, 0);
      EXPECT_THAT(plan->off_why, HasSubstr("expected two"));
    }
  }
  // Bound by somebody else already.
  const auto plan = PlanPlacement(Request("bind", 0, 1), TwoSockets(), Numbers{2, 3});
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->off_why, HasSubstr("1 memory nodes"));
}

TEST(PlanPlacement, PinnedRanksHaveCpusOfTheirOwn) {
  const auto cpus = [](const std::string& numa, int num_ranks) {
    std::vector<Numbers> result;
    for (int rank = 0; rank < num_ranks; ++rank) {
      PlacementRequest request = Request(numa, rank, num_ranks);
      request.pin_threads = true;
      const auto plan = PlanPlacement(request, TwoSockets(), Eight());
      EXPECT_THAT(plan, IsOk());
      EXPECT_EQ(plan->num_threads, 8 / num_ranks);
      result.push_back(plan->cpus);
    }
    return result;
  };
  EXPECT_THAT(cpus("off", 2),
              ElementsAre(ElementsAre(0, 1, 2, 3), ElementsAre(4, 5, 6, 7)));
  EXPECT_THAT(cpus("bind", 4), ElementsAre(ElementsAre(0, 1), ElementsAre(4, 5),
                                           ElementsAre(2, 3), ElementsAre(6, 7)));
  EXPECT_THAT(cpus("off", 1), ElementsAre(IsEmpty()));
}

TEST(PlanPlacement, PinnedThreadsHaveACpuEach) {
  PlacementRequest request = Request("off", 0, 3);
  request.pin_threads = true;
  EXPECT_THAT(PlanPlacement(request, {}, Numbers{0, 1}),
              StatusIs(kInvalid, HasSubstr("--pin-threads")));
  request.position = {1, 2};
  request.threads_per_rank = 4;
  EXPECT_THAT(PlanPlacement(request, {}, Eight()), IsOk());
  request.threads_per_rank = 5;
  EXPECT_THAT(PlanPlacement(request, {}, Eight()),
              StatusIs(kInvalid, HasSubstr("5 threads of a rank, but 4 CPUs")));
}

TEST(CheckPlans, ALaterRankMayBeTheOneThatCannotBePlaced) {
  const NumaTopology uneven = {{{.id = 0, .cpus = {0, 1, 2}}, {.id = 1, .cpus = {3}}}};
  PlacementRequest request = Request("bind", 0, 2);
  request.pin_threads = true;
  request.threads_per_rank = 1;
  EXPECT_THAT(CheckPlans(request, uneven, Numbers{0, 1, 2, 3}), IsOk());
  request.threads_per_rank = 2;
  EXPECT_THAT(PlanPlacement(request, uneven, Numbers{0, 1, 2, 3}), IsOk());
  EXPECT_THAT(CheckPlans(request, uneven, Numbers{0, 1, 2, 3}),
              StatusIs(kInvalid, HasSubstr("2 threads of a rank, but 1 CPUs")));
}

// What the kernel says of the calling thread.
struct KernelPolicy {
  int mode = -1;
  std::array<unsigned long, kMaxNumaNodes / (8 * sizeof(unsigned long))> nodes = {};
  bool asked = false;
};

KernelPolicy ReadPolicy() {
  KernelPolicy policy;
  policy.asked = ::syscall(SYS_get_mempolicy, &policy.mode, policy.nodes.data(),
                           kMaxNumaNodes, nullptr, 0) == 0;
  return policy;
}

ProcessPlacement Place(const Numbers& cpus, MemoryPolicy memory, int memory_node) {
  ProcessPlacement placement;
  placement.cpus = cpus;
  placement.memory = memory;
  placement.memory_nodes = {memory_node};
  return placement;
}

// Affinity and policy are a thread's own.
void OnThread(const std::function<void()>& body) { std::thread(body).join(); }

// A node of this machine that the kernel lets us bind to, asked without the code under
// test: what that gets wrong must not read as a refusal.
absl::StatusOr<NumaNode> NodeToBind() {
  TESSERA_ASSIGN_OR_RETURN(const NumaTopology topology,
                           ReadNumaTopology(kNumaNodeFolder));
  TESSERA_ASSIGN_OR_RETURN(const Numbers cpus, AllowedCpus());
  const NumaTopology nodes = NodesOfCpus(topology, cpus);
  if (nodes.nodes.empty() || !nodes.nodes[0].has_memory || nodes.nodes[0].id >= 63) {
    return absl::NotFoundError("no node below 63 has memory and a CPU of this process");
  }
  const unsigned long mask = 1UL << static_cast<size_t>(nodes.nodes[0].id);
  bool allowed = false;
  OnThread([&] {
    allowed = ::syscall(SYS_set_mempolicy, MPOL_PREFERRED, &mask, 65) == 0 &&
              ReadPolicy().asked;
  });
  if (!allowed) {
    return absl::UnimplementedError("the kernel refuses memory policies");
  }
  return nodes.nodes[0];
}

TEST(ApplyPlacement, TheKernelHasTheAffinityAndThePolicy) {
  const auto node = NodeToBind();
  if (!node.ok()) {
    GTEST_SKIP() << "this system binds nothing: " << node.status();
  }
  for (const auto& [policy, mode] :
       {std::pair{MemoryPolicy::kPreferred, MPOL_PREFERRED},
        std::pair{MemoryPolicy::kInterleave, MPOL_INTERLEAVE}}) {
    OnThread([&, policy = policy, mode = mode] {
      const Numbers cpus = {node->cpus.back()};
      ASSERT_THAT(ApplyPlacement(Place(cpus, policy, node->id)), IsOk());
      EXPECT_THAT(AllowedCpus(), IsOkAndHolds(cpus));
      const auto inherits = [&, mode = mode] {
        const KernelPolicy seen = ReadPolicy();
        EXPECT_EQ(seen.mode, mode);
        EXPECT_EQ(seen.nodes[0], 1UL << static_cast<size_t>(node->id));
        EXPECT_THAT(AllowedCpus(), IsOkAndHolds(cpus));
      };
      inherits();
      OnThread(inherits);
    });
  }
}

TEST(ApplyPlacement, WhatIsRefusedChangesNothing) {
  OnThread([] {
    const auto before = AllowedCpus();
    ASSERT_THAT(before, IsOk());
    // A node that no machine of ours has.
    EXPECT_THAT(ApplyPlacement(Place({before->front()}, MemoryPolicy::kPreferred,
                                     kMaxNumaNodes - 1)),
                StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("set_mempolicy")));
    EXPECT_EQ(*AllowedCpus(), *before);
  });
  const auto node = NodeToBind();
  if (!node.ok()) {
    GTEST_SKIP() << "this system binds nothing: " << node.status();
  }
  OnThread([&] {
    const auto before = AllowedCpus();
    EXPECT_THAT(ApplyPlacement(Place({kMaxCpus - 1}, MemoryPolicy::kPreferred, node->id)),
                StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("setaffinity")));
    EXPECT_EQ(ReadPolicy().mode, MPOL_DEFAULT);
    EXPECT_EQ(*AllowedCpus(), *before);
  });
}

// A made-up second node: the kernel has the first alone.
TEST(PlaceProcess, ARankOfTwoIsBoundForReal) {
  const auto node = NodeToBind();
  if (!node.ok() || node->cpus.size() < 2 || node->id != 0) {
    GTEST_SKIP() << "needs node 0 with two CPUs: " << node.status();
  }
  const NodeFolder folder("0-1", {{0, ShowNumberList(Numbers{node->cpus[0]})},
                                  {1, ShowNumberList(Numbers{node->cpus[1]})}});
  OnThread([&] {
    EXPECT_THAT(PlaceProcess(Request("bind", 0, 2), folder.path()), IsOkAndHolds(1));
    EXPECT_THAT(AllowedCpus(), IsOkAndHolds(Numbers{node->cpus[0]}));
    EXPECT_EQ(ReadPolicy().mode, MPOL_PREFERRED);
  });
}

TEST(PlaceProcess, GoesOnAsWithOffWhereTheKernelRefuses) {
  const auto cpus = AllowedCpus();
  ASSERT_THAT(cpus, IsOk());
  if (cpus->size() < 2) {
    GTEST_SKIP() << "needs two CPUs";
  }
  const NodeFolder folder("1022-1023", {{1022, ShowNumberList(Numbers{(*cpus)[0]})},
                                        {1023, ShowNumberList(Numbers{(*cpus)[1]})}});
  OnThread([&] {
    EXPECT_THAT(PlaceProcess(Request("bind", 1, 2), folder.path()), IsOkAndHolds(0));
    EXPECT_EQ(*AllowedCpus(), *cpus);
    PlacementRequest pinned = Request("bind", 1, 2);
    pinned.pin_threads = true;
    EXPECT_THAT(PlaceProcess(pinned, folder.path()), IsOk());
    EXPECT_EQ(AllowedCpus()->size(), (cpus->size() + 1) / 2) << "pinned all the same";
  });
}

// As a container's filter does it: the calling thread may no longer set a memory policy.
bool ForbidMemoryPolicies() {
  std::array<sock_filter, 4> program = {
      sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
      sock_filter{BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_set_mempolicy},
      sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM},
      sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  const sock_fprog filter = {.len = program.size(), .filter = program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST(PlaceProcess, GoesOnAsWithOffInAContainerThatForbidsPolicies) {
  const auto cpus = AllowedCpus();
  ASSERT_THAT(cpus, IsOk());
  if (cpus->size() < 2) {
    GTEST_SKIP() << "needs two CPUs";
  }
  const NodeFolder folder("0-1", {{0, ShowNumberList(Numbers{(*cpus)[0]})},
                                  {1, ShowNumberList(Numbers{(*cpus)[1]})}});
  bool forbidden = false;
  OnThread([&] {
    forbidden = ForbidMemoryPolicies();
    if (!forbidden) {
      return;
    }
    for (const char* numa : {"bind", "interleave"}) {
      const HostPosition position = {.rank = 0, .num_ranks = 2};
      EXPECT_THAT(PlaceProcess({.numa = numa, .position = position}, folder.path()),
                  IsOkAndHolds(0));
      EXPECT_EQ(*AllowedCpus(), *cpus);
    }
  });
  if (!forbidden) {
    GTEST_SKIP() << "this system takes no seccomp filter";
  }
}

TEST(PlaceProcess, BrokenFilesAreAnErrorAndMissingOnesAreNot) {
  const NodeFolder folder("nonsense", {});
  OnThread([&] {
    EXPECT_THAT(PlaceProcess(Request("bind", 0, 2), folder.path()), StatusIs(kInvalid));
    EXPECT_THAT(PlaceProcess(Request("off", 0, 2), folder.path()), IsOkAndHolds(0));
    EXPECT_THAT(PlaceProcess(Request("bind", 0, 2), "/no/such/folder"), IsOkAndHolds(0));
  });
}

TEST(CheckPlacement, AsksForEveryRankAndChangesNothing) {
  const auto before = AllowedCpus();
  ASSERT_THAT(before, IsOk());
  PlacementRequest request = Request("off", 0, static_cast<int>(before->size()) + 1);
  EXPECT_THAT(CheckPlacement(request, kNumaNodeFolder), IsOk());
  request.pin_threads = true;
  EXPECT_THAT(CheckPlacement(request, kNumaNodeFolder), StatusIs(kInvalid));
  request.position.num_ranks = 1;
  EXPECT_THAT(CheckPlacement(request, kNumaNodeFolder), IsOk());
  EXPECT_EQ(*AllowedCpus(), *before);
}

TEST(PositionOnHost, IsWhatTheLauncherSays) {
  const auto position = [](const char* rank, const char* size) {
    ::setenv("OMPI_COMM_WORLD_SIZE", "8", 1);
    ::setenv("OMPI_COMM_WORLD_LOCAL_RANK", rank, 1);
    ::setenv("OMPI_COMM_WORLD_LOCAL_SIZE", size, 1);
    const auto result = PositionOnHost();
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                             "OMPI_COMM_WORLD_LOCAL_SIZE"}) {
      ::unsetenv(name);
    }
    return result;
  };
  const auto third = position("2", "4");
  ASSERT_THAT(third, IsOk());
  EXPECT_EQ(third->rank, 2);
  EXPECT_EQ(third->num_ranks, 4);
  EXPECT_THAT(position("4", "4"), StatusIs(kInvalid));
  EXPECT_THAT(position("", "4"), StatusIs(kInvalid));
  EXPECT_THAT(position("0", "x"), StatusIs(kInvalid));
  const auto alone = PositionOnHost();
  ASSERT_THAT(alone, IsOk());
  EXPECT_EQ(alone->num_ranks, 1);
}

}  // namespace
}  // namespace tessera::cli
