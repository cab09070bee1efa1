#include "cli/client/interrupt.h"

#include "gtest/gtest.h"
#include <poll.h>
#include <signal.h>

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

bool IsReadable(int descriptor) {
  pollfd wait{descriptor, POLLIN, 0};
  return ::poll(&wait, 1, 0) == 1;
}

TEST(Interrupt, IsReadableFromTheSignalUntilItIsTaken) {
  const auto interrupt = Interrupt::Create();
  ASSERT_THAT(interrupt, tessera::testing::IsOk());
  EXPECT_FALSE(IsReadable((*interrupt)->descriptor()));
  EXPECT_FALSE((*interrupt)->Take());
  ::raise(SIGINT);
  EXPECT_TRUE(IsReadable((*interrupt)->descriptor()));
  EXPECT_TRUE((*interrupt)->Take());
  EXPECT_FALSE(IsReadable((*interrupt)->descriptor()));
  EXPECT_FALSE((*interrupt)->Take());
}

}  // namespace
}  // namespace tessera::cli
