// The same properties of Abseil's locks and of their twins for the thread sanitizer.
#include "common/mutex.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "common/instrumented_mutex.h"

namespace tessera {
namespace {

struct AbseilLocks {
  using Mutex = absl::Mutex;
  using MutexLock = absl::MutexLock;
  using ReaderMutexLock = absl::ReaderMutexLock;
  using Notification = absl::Notification;
};

struct InstrumentedLocks {
  using Mutex = InstrumentedMutex;
  using MutexLock = InstrumentedMutexLock;
  using ReaderMutexLock = InstrumentedReaderMutexLock;
  using Notification = InstrumentedNotification;
};

// The sanitizer cannot follow Abseil's, so there is nothing to test under it.
#ifdef ABSL_HAVE_THREAD_SANITIZER
using TestedLocks = testing::Types<InstrumentedLocks>;
#else
using TestedLocks = testing::Types<AbseilLocks, InstrumentedLocks>;
#endif

template <typename Locks>
class MutexTest : public testing::Test {};
TYPED_TEST_SUITE(MutexTest, TestedLocks, );

TYPED_TEST(MutexTest, OneThreadAtATimeHoldsIt) {
  typename TypeParam::Mutex mutex;
  int count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) {
        typename TypeParam::MutexLock lock(&mutex);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(count, 40000);
}

TYPED_TEST(MutexTest, ReadersHoldItTogether) {
  typename TypeParam::Mutex mutex;
  typename TypeParam::Notification both;
  typename TypeParam::ReaderMutexLock lock(&mutex);
  std::thread other([&] {
    typename TypeParam::ReaderMutexLock other_lock(&mutex);
    both.Notify();
  });
  both.WaitForNotification();
  other.join();
}

// Each thread waits for the other's turn: an Unlock, and a wait that lets go, must wake
// it.
TYPED_TEST(MutexTest, WaitersSeeWhatChangedBeforeAnUnlockOrAWait) {
  typename TypeParam::Mutex mutex;
  int turn = 0;
  const auto play = [&](int self) {
    const auto mine = [&] { return turn % 2 == self; };
    typename TypeParam::MutexLock lock(&mutex);
    for (int i = 0; i < 500; ++i) {
      mutex.Await(absl::Condition(&mine));
      ++turn;
    }
  };
  std::thread first([&] { play(0); });
  std::thread second([&] { play(1); });
  first.join();
  second.join();
  EXPECT_EQ(turn, 1000);
}

TYPED_TEST(MutexTest, EveryWaiterWakes) {
  typename TypeParam::Mutex mutex;
  bool open = false;
  std::atomic<int> through = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      typename TypeParam::MutexLock lock(&mutex);
      mutex.Await(absl::Condition(&open));
      ++through;
    });
  }
  {
    typename TypeParam::MutexLock lock(&mutex);
    open = true;
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(through, 4);
}

TYPED_TEST(MutexTest, AWaitEndsAtItsDeadlineAndSaysSo) {
  typename TypeParam::Mutex mutex;
  bool never = false;
  typename TypeParam::MutexLock lock(&mutex);
  const absl::Time deadline = absl::Now() + absl::Milliseconds(5);
  EXPECT_FALSE(mutex.AwaitWithDeadline(absl::Condition(&never), deadline));
  EXPECT_GE(absl::Now(), deadline);
  EXPECT_FALSE(mutex.AwaitWithTimeout(absl::Condition(&never), absl::ZeroDuration()));
  EXPECT_FALSE(mutex.AwaitWithDeadline(absl::Condition(&never), absl::InfinitePast()));
}

TYPED_TEST(MutexTest, AConditionThatHoldsNeedsNoTime) {
  typename TypeParam::Mutex mutex;
  bool always = true;
  typename TypeParam::MutexLock lock(&mutex);
  EXPECT_TRUE(mutex.AwaitWithDeadline(absl::Condition(&always), absl::InfinitePast()));
  EXPECT_TRUE(mutex.AwaitWithTimeout(absl::Condition(&always), absl::InfiniteDuration()));
}

TYPED_TEST(MutexTest, TheWaiterMayDestroyIt) {
  struct Shared {
    typename TypeParam::Mutex mutex;
    bool done = false;
  };
  for (int i = 0; i < 200; ++i) {
    auto shared = std::make_unique<Shared>();
    std::thread other([raw = shared.get()] {
      typename TypeParam::MutexLock lock(&raw->mutex);
      raw->done = true;
    });
    {
      typename TypeParam::MutexLock lock(&shared->mutex);
      shared->mutex.Await(absl::Condition(&shared->done));
    }
    shared.reset();
    other.join();
  }
}

TYPED_TEST(MutexTest, ANotificationHappensOnce) {
  typename TypeParam::Notification notification;
  EXPECT_FALSE(notification.HasBeenNotified());
  EXPECT_FALSE(notification.WaitForNotificationWithTimeout(absl::Milliseconds(1)));
  int before = 0;
  std::thread other([&] {
    before = 7;
    notification.Notify();
  });
  notification.WaitForNotification();
  EXPECT_EQ(before, 7);
  EXPECT_TRUE(notification.HasBeenNotified());
  EXPECT_TRUE(notification.WaitForNotificationWithDeadline(absl::InfinitePast()));
  other.join();
}

}  // namespace
}  // namespace tessera
