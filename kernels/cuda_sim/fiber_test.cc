#include "kernels/cuda_sim/fiber.h"

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::kernels::cuda_sim {
namespace {

constexpr size_t kStack = 64 * 1024;

struct Counting {
  Fiber* fiber = nullptr;
  int steps = 0;
  int reached = 0;
  double sum = 0;
};

void Count(void* argument) {
  auto& counting = *static_cast<Counting*>(argument);
  double local = 0;
  for (int i = 0; i < counting.steps; ++i) {
    local += std::sqrt(static_cast<double>(i));  // kept in a register over the switch
    counting.reached = i + 1;
    counting.fiber->Suspend();
  }
  counting.sum = local;
}

TEST(Fiber, GoesOnWhereItWasSuspended) {
  auto fiber = Fiber::Create(kStack);
  ASSERT_TRUE(fiber.ok());
  Counting counting{.fiber = fiber->get(), .steps = 3};
  (*fiber)->Start(&Count, &counting);
  for (int step = 1; step <= 3; ++step) {
    EXPECT_FALSE((*fiber)->Resume());
    EXPECT_EQ(counting.reached, step);
  }
  EXPECT_TRUE((*fiber)->Resume());
  EXPECT_DOUBLE_EQ(counting.sum, std::sqrt(1.0) + std::sqrt(2.0));
}

TEST(Fiber, StartsAgainAfterItReturnedAndAfterItWasDropped) {
  auto fiber = Fiber::Create(kStack);
  ASSERT_TRUE(fiber.ok());
  Counting dropped{.fiber = fiber->get(), .steps = 5};
  (*fiber)->Start(&Count, &dropped);
  EXPECT_FALSE((*fiber)->Resume());
  for (int round = 0; round < 3; ++round) {
    Counting counting{.fiber = fiber->get(), .steps = 1};
    (*fiber)->Start(&Count, &counting);
    EXPECT_FALSE((*fiber)->Resume());
    EXPECT_TRUE((*fiber)->Resume());
    EXPECT_EQ(counting.reached, 1);
  }
  EXPECT_EQ(dropped.reached, 1);
}

TEST(Fiber, ManyTakeTurns) {
  constexpr size_t kFibers = 200;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Counting> states(kFibers);
  for (size_t i = 0; i < kFibers; ++i) {
    auto fiber = Fiber::Create(kStack);
    ASSERT_TRUE(fiber.ok());
    fibers.push_back(std::move(*fiber));
    states[i] = {.fiber = fibers[i].get(), .steps = 10};
    fibers[i]->Start(&Count, &states[i]);
  }
  for (int step = 1; step <= 10; ++step) {
    for (size_t i = 0; i < kFibers; ++i) {
      EXPECT_FALSE(fibers[i]->Resume());
      EXPECT_EQ(states[i].reached, step);
    }
  }
  for (size_t i = 0; i < kFibers; ++i) {
    EXPECT_TRUE(fibers[i]->Resume());
  }
}

struct Deep {
  Fiber* fiber = nullptr;
  int64_t result = 0;
};

int64_t Descend(Fiber* fiber, int depth) {
  volatile int64_t here = depth;
  if (depth == 0) {
    fiber->Suspend();
    return 0;
  }
  return Descend(fiber, depth - 1) + here;
}

TEST(Fiber, SuspendsInTheMiddleOfDeepCalls) {
  auto fiber = Fiber::Create(kStack);
  ASSERT_TRUE(fiber.ok());
  Deep deep{.fiber = fiber->get()};
  (*fiber)->Start(
      [](void* argument) {
        auto& state = *static_cast<Deep*>(argument);
        state.result = Descend(state.fiber, 100);
      },
      &deep);
  EXPECT_FALSE((*fiber)->Resume());
  EXPECT_TRUE((*fiber)->Resume());
  EXPECT_EQ(deep.result, 5050);
}

}  // namespace
}  // namespace tessera::kernels::cuda_sim
