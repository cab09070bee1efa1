// Registrations are shared by who asks for the same memory, and nobody waits for those of
// other memory.
#include "kernels/cuda/engram_rows/host_registrations.h"

#include <array>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "common/mutex.h"

namespace tessera::kernels::cuda {
namespace {

using Registration = HostRegistrations::Registration;

// A machine whose calls for one memory take as long as the test says.
class SlowMachine {
 public:
  HostRegistrations::Calls calls() {
    return {.add = [this](auto memory) { return Add(memory); },
            .remove = [this](auto* memory) { Remove(memory); }};
  }
  // Calls for `memory` wait until `may_go_on`; `called`: the first of them has come.
  const std::byte* slow = nullptr;
  Notification called;
  Notification may_go_on;
  absl::Status answer;

  int num_added() {
    MutexLock lock(&mutex_);
    return num_added_;
  }
  std::set<const std::byte*> registered() {
    MutexLock lock(&mutex_);
    return registered_;
  }

 private:
  absl::StatusOr<const void*> Add(std::span<const std::byte> memory) {
    WaitFor(memory.data());
    MutexLock lock(&mutex_);
    ++num_added_;
    if (!answer.ok()) {
      return answer;
    }
    EXPECT_TRUE(registered_.insert(memory.data()).second) << "twice";
    return memory.data();
  }
  void Remove(const std::byte* memory) {
    WaitFor(memory);
    MutexLock lock(&mutex_);
    EXPECT_EQ(registered_.erase(memory), 1U);
  }
  void WaitFor(const std::byte* memory) {
    if (memory != slow) {
      return;
    }
    if (!called.HasBeenNotified()) {
      called.Notify();
    }
    may_go_on.WaitForNotification();
  }

  Mutex mutex_;
  int num_added_ ABSL_GUARDED_BY(mutex_) = 0;
  std::set<const std::byte*> registered_ ABSL_GUARDED_BY(mutex_);
};

class HostRegistrationsTest : public ::testing::Test {
 protected:
  std::unique_ptr<const Registration> Acquire(std::span<const std::byte> memory) {
    auto registration = registrations_->Acquire(memory);
    EXPECT_TRUE(registration.ok()) << registration.status();
    return registration.ok() ? *std::move(registration) : nullptr;
  }

  const std::array<std::byte, 64> one_ = {};
  const std::array<std::byte, 64> other_ = {};
  SlowMachine machine_;
  const std::shared_ptr<HostRegistrations> registrations_ =
      HostRegistrations::Create(machine_.calls());
};

TEST_F(HostRegistrationsTest, HoldersOfOneMemoryShareIt) {
  auto first = Acquire(one_);
  auto second = Acquire(one_);
  EXPECT_EQ(machine_.num_added(), 1);
  EXPECT_EQ(static_cast<const void*>(second->on_device().data), one_.data());
  EXPECT_EQ(second->on_device().size, 64);
  first = nullptr;
  EXPECT_EQ(machine_.registered().size(), 1U);
  second = nullptr;
  EXPECT_TRUE(machine_.registered().empty());
  Acquire(one_);
  EXPECT_EQ(machine_.num_added(), 2);
}

TEST_F(HostRegistrationsTest, OtherMemoryIsRegisteredMeanwhile) {
  machine_.slow = one_.data();
  std::thread slow([&] { Acquire(one_); });
  machine_.called.WaitForNotification();
  Acquire(other_);  // and unregistered
  EXPECT_EQ(machine_.num_added(), 1);
  machine_.may_go_on.Notify();
  slow.join();
}

TEST_F(HostRegistrationsTest, OtherMemoryIsRegisteredWhileAnotherIsUnregistered) {
  auto leaving = Acquire(one_);
  machine_.slow = one_.data();
  std::thread slow([&] { leaving = nullptr; });
  machine_.called.WaitForNotification();
  Acquire(other_);
  machine_.may_go_on.Notify();
  slow.join();
  EXPECT_TRUE(machine_.registered().empty());
}

TEST_F(HostRegistrationsTest, MemoryThatGoesIsNotHandedOut) {
  auto leaving = Acquire(one_);
  machine_.slow = one_.data();
  std::thread slow([&] { leaving = nullptr; });
  machine_.called.WaitForNotification();
  Notification has_come;
  std::unique_ptr<const Registration> next;
  std::thread coming([&] {
    next = Acquire(one_);
    has_come.Notify();
  });
  EXPECT_FALSE(has_come.WaitForNotificationWithTimeout(absl::Milliseconds(20)));
  machine_.may_go_on.Notify();
  slow.join();
  coming.join();
  EXPECT_EQ(machine_.registered().size(), 1U) << "anew";
  EXPECT_EQ(machine_.num_added(), 2);
}

// Many ranks start at once, and leave at once.
TEST_F(HostRegistrationsTest, WhoAsksForMemoryThatComesOrGoesWaitsForIt) {
  machine_.slow = one_.data();
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 8; ++rank) {
    ranks.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        const auto registration = Acquire(one_);
        EXPECT_EQ(machine_.registered().count(one_.data()), 1U);
      }
    });
  }
  machine_.called.WaitForNotification();
  machine_.may_go_on.Notify();
  for (std::thread& rank : ranks) {
    rank.join();
  }
  EXPECT_TRUE(machine_.registered().empty());
}

TEST_F(HostRegistrationsTest, ARefusalIsNotKept) {
  machine_.answer = absl::ResourceExhaustedError("no pages");
  EXPECT_EQ(registrations_->Acquire(one_).status().code(),
            absl::StatusCode::kResourceExhausted);
  machine_.answer = absl::OkStatus();
  Acquire(one_);
  EXPECT_EQ(machine_.num_added(), 2);
}

TEST_F(HostRegistrationsTest, PartOfARegistrationIsRefused) {
  const auto whole = Acquire(one_);
  EXPECT_EQ(registrations_->Acquire(std::span(one_).first(8)).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace tessera::kernels::cuda
