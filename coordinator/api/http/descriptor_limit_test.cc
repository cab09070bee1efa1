#include "coordinator/api/http/descriptor_limit.h"

#include "gtest/gtest.h"
#include <sys/resource.h>

namespace tessera::coordinator {
namespace {

// Gives the process its limit back.
class DescriptorLimit : public testing::Test {
 protected:
  DescriptorLimit() { getrlimit(RLIMIT_NOFILE, &before_); }
  ~DescriptorLimit() override { setrlimit(RLIMIT_NOFILE, &before_); }

  static rlimit Now() {
    rlimit limit = {};
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit;
  }

  rlimit before_ = {};
};

TEST_F(DescriptorLimit, TheSoftLimitIsRaisedToWhatIsNeeded) {
  const rlimit low = {600, before_.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(ReserveConnections(200), 200);
  EXPECT_EQ(Now().rlim_cur, static_cast<rlim_t>(200 + kReservedDescriptors));
}

TEST_F(DescriptorLimit, AHardLimitThatIsTooLowLeavesFewerConnections) {
  if (before_.rlim_max == RLIM_INFINITY) {
    GTEST_SKIP() << "there is no hard limit";
  }
  const auto hard = static_cast<int64_t>(before_.rlim_max);
  EXPECT_EQ(ReserveConnections(hard), hard - kReservedDescriptors);
  EXPECT_EQ(Now().rlim_cur, before_.rlim_max);
}

TEST_F(DescriptorLimit, AnAmpleLimitStaysAsItIs) {
  EXPECT_EQ(ReserveConnections(1), 1);
  EXPECT_EQ(Now().rlim_cur, before_.rlim_cur);
}

}  // namespace
}  // namespace tessera::coordinator
