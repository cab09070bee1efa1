#include "cli/numa/numa_topology.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include <sched.h>

#include "common/small_file.h"
#include "tests/testing/node_folder.h"
#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::IsOkAndHolds;
using testing::NodeFolder;
using testing::StatusIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
using Numbers = std::vector<int>;

TEST(NumberList, ReadsNumbersAndRanges) {
  EXPECT_THAT(ParseNumberList("0-3,8-11", 12),
              IsOkAndHolds(Numbers{0, 1, 2, 3, 8, 9, 10, 11}));
  EXPECT_THAT(ParseNumberList("7", 8), IsOkAndHolds(Numbers{7}));
  EXPECT_THAT(ParseNumberList("", 8), IsOkAndHolds(Numbers{}));
}

TEST(NumberList, RefusesWhatTheKernelNeverWrites) {
  for (const char* text : {"a",
                           "-1",
                           "--1",
                           "1-",
                           "1-a",
                           "1--2",
                           "1,",
                           ",1",
                           "1,,2",
                           "1 2",
                           "0x1",
                           "+1",
                           "3-1",
                           "1,1",
                           "0-3,2",
                           "2,1",
                           "8",
                           "0-8",
                           "99999999999999999999",
                           "0-99999999999999999999",
                           "0-2147483647",
                           "1\n",
                           "0-6:2/4"}) {
    EXPECT_THAT(ParseNumberList(text, 8), StatusIs(kInvalid)) << text;
  }
  EXPECT_THAT(ParseNumberList(std::string("1\0,2", 4), 8), StatusIs(kInvalid));
}

TEST(NumberList, IsShownAsItWasRead) {
  for (const char* text : {"", "0", "0-1", "0-3,8-11", "1,3,5-7,4095"}) {
    EXPECT_EQ(ShowNumberList(*ParseNumberList(text, kMaxCpus)), text);
  }
}

TEST(NumaTopology, OneNodeHasAllCpus) {
  const NodeFolder folder("0", {{0, "0-3"}});
  EXPECT_THAT(ReadNumaTopology(folder.path()),
              IsOkAndHolds(NumaTopology{{{.id = 0, .cpus = {0, 1, 2, 3}}}}));
}

TEST(NumaTopology, TwoSocketsWithHyperthreadsHaveTwoRunsOfCpusEach) {
  const NodeFolder folder("0-1", {{0, "0-1,4-5"}, {1, "2-3,6-7"}});
  folder.Write("has_memory", "0-1\n");
  EXPECT_THAT(ReadNumaTopology(folder.path()),
              IsOkAndHolds(NumaTopology{
                  {{.id = 0, .cpus = {0, 1, 4, 5}}, {.id = 1, .cpus = {2, 3, 6, 7}}}}));
}

TEST(NumaTopology, NodesMayHaveGapsNoCpusAndNoMemory) {
  const NodeFolder folder("0,2,8", {{0, "0-1"}, {2, "2-3"}, {8, ""}});
  folder.Write("has_memory", "0,8\n");
  EXPECT_THAT(ReadNumaTopology(folder.path()),
              IsOkAndHolds(NumaTopology{{{.id = 0, .cpus = {0, 1}},
                                         {.id = 2, .cpus = {2, 3}, .has_memory = false},
                                         {.id = 8, .cpus = {}}}}));
}

TEST(NumaTopology, ASystemThatShowsNoNodesHasNone) {
  EXPECT_THAT(ReadNumaTopology("/no/such/folder"), StatusIs(absl::StatusCode::kNotFound));
  const NodeFolder folder("0-1", {{0, "0"}});
  EXPECT_THAT(ReadNumaTopology(folder.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("node1/cpulist")));
}

TEST(NumaTopology, HostileFilesAreRefusedByName) {
  const NodeFolder folder("0-1", {{0, "0-3"}, {1, "3-5"}});
  EXPECT_THAT(ReadNumaTopology(folder.path()),
              StatusIs(kInvalid, HasSubstr("node1/cpulist: cpu 3")));
  folder.Write("node1/cpulist", "4-8192\n");
  EXPECT_THAT(ReadNumaTopology(folder.path()),
              StatusIs(kInvalid, HasSubstr("node1/cpulist")));
  folder.Write("node1/cpulist", std::string(kMaxSmallFileBytes + 1, '0'));
  EXPECT_THAT(ReadNumaTopology(folder.path()),
              StatusIs(kInvalid, HasSubstr("node1/cpulist is over")));
  folder.Write("node1/cpulist", "4-8191\n");
  EXPECT_THAT(ReadNumaTopology(folder.path()), IsOk());
  folder.Write("has_memory", "yes\n");
  EXPECT_THAT(ReadNumaTopology(folder.path()),
              StatusIs(kInvalid, HasSubstr("has_memory")));
  folder.Write("has_memory", "0\n");
  folder.Write("online", "0-1024\n");
  EXPECT_THAT(ReadNumaTopology(folder.path()), StatusIs(kInvalid, HasSubstr("online")));
}

TEST(NumaTopology, OfThisMachineHasTheCpuThatThisRunsOn) {
  const auto topology = ReadNumaTopology(kNumaNodeFolder);
  if (topology.status().code() == absl::StatusCode::kNotFound) {
    GTEST_SKIP() << topology.status();
  }
  ASSERT_THAT(topology, IsOk());
  EXPECT_EQ(NodesOfCpus(*topology, Numbers{::sched_getcpu()}).nodes.size(), 1u);
}

TEST(NodesOfCpus, LeavesNodesOutOfWhichThisProcessHasNoCpu) {
  const NumaTopology all = {{{.id = 0, .cpus = {0, 1}},
                             {.id = 1, .cpus = {2, 3}, .has_memory = false},
                             {.id = 2, .cpus = {}},
                             {.id = 3, .cpus = {4, 5}}}};
  EXPECT_EQ(NodesOfCpus(all, Numbers{1, 2, 3, 9}),
            (NumaTopology{{{.id = 0, .cpus = {1}},
                           {.id = 1, .cpus = {2, 3}, .has_memory = false}}}));
  EXPECT_EQ(NodesOfCpus(all, Numbers{}), NumaTopology{});
}

}  // namespace
}  // namespace tessera::cli
