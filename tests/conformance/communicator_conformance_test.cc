// The contract of Communicator, case by case, on every group size that the linked harness
// offers. Each body runs on all ranks at once and states what its own rank must see.
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

#include "tests/conformance/group_harness.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/communicator.h"

namespace tessera::worker {
namespace {

using kernels::DType;
using kernels::TensorView;
using testing::IsOk;
using testing::StatusIs;

const CommOptions kGenerous = {.timeout = absl::Seconds(60)};
// Long enough that ranks on a busy machine do reach the call, short enough for a unit
// test.
const CommOptions kShort = {.timeout = absl::Milliseconds(150)};

// The same value on every rank and machine: of `rank`, element `i`, in a wide range of
// magnitudes, so that another order of the additions rounds differently.
template <typename T>
T Value(int rank, int64_t i) {
  const auto mixed = (static_cast<uint64_t>(rank) * 1000003 + static_cast<uint64_t>(i)) *
                     0x9e3779b97f4a7c15;
  const auto mantissa =
      static_cast<T>(static_cast<int64_t>(mixed >> 11) - (int64_t{1} << 52));
  return std::ldexp(mantissa, static_cast<int>(mixed % 24) - 60);
}

template <typename T>
T TreeSum(int first, int num_ranks, int64_t i) {
  if (num_ranks == 1) {
    return Value<T>(first, i);
  }
  const int half = num_ranks / 2;
  return TreeSum<T>(first, half, i) + TreeSum<T>(first + half, half, i);
}

template <typename T>
T SumInRankOrder(int num_ranks, int64_t i) {
  T sum = Value<T>(0, i);
  for (int rank = 1; rank < num_ranks; ++rank) {
    sum += Value<T>(rank, i);
  }
  return sum;
}

bool IsPowerOfTwo(int n) { return (n & (n - 1)) == 0; }

std::vector<std::byte> Pattern(int from, int to, size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>(i * 7 + static_cast<size_t>(from * 31 + to * 101));
  }
  return bytes;
}

// On a group that another rank may already have ended, both are right.
void ExpectRefused(const absl::Status& status) {
  EXPECT_TRUE(status.code() == absl::StatusCode::kInvalidArgument ||
              status.code() == absl::StatusCode::kAborted)
      << status;
}

class CommunicatorConformance : public ::testing::TestWithParam<int> {
 protected:
  void Run(const std::function<void(Communicator&)>& body,
           const CommOptions& options = kGenerous) {
    testing::Harness().Run(GetParam(), options, body);
  }
};

template <typename T>
void ExpectTreeSum(Communicator& comm, int64_t n) {
  std::vector<T> x(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    x[static_cast<size_t>(i)] = Value<T>(comm.rank(), i);
  }
  ASSERT_THAT(comm.AllReduceSum(TensorView(x.data(), kernels::kDTypeOf<T>, {n})), IsOk());
  int64_t other_order_differs = 0;
  for (int64_t i = 0; i < n; ++i) {
    const T expected = TreeSum<T>(0, comm.size(), i);
    other_order_differs += SumInRankOrder<T>(comm.size(), i) != expected ? 1 : 0;
    ASSERT_EQ(x[static_cast<size_t>(i)], expected) << "element " << i << " of " << n;
  }
  if (comm.size() >= 4 && n >= 1000) {
    EXPECT_GT(other_order_differs, 0) << "the values do not tell the orders apart";
  }
}

TEST_P(CommunicatorConformance, KnowsItsRankAndSize) {
  Run([&](Communicator& comm) {
    EXPECT_EQ(comm.size(), GetParam());
    EXPECT_GE(comm.rank(), 0);
    EXPECT_LT(comm.rank(), comm.size());
    EXPECT_EQ(comm.name(), "test");
  });
}

TEST_P(CommunicatorConformance, AllReduceAddsInTheOrderOfTheTree) {
  if (!IsPowerOfTwo(GetParam())) {
    return;
  }
  Run([](Communicator& comm) {
    for (const int64_t n : {1, 2, 15, 16, 17, 513, 1000, 4099}) {
      ExpectTreeSum<float>(comm, n);
      ExpectTreeSum<double>(comm, n);
    }
  });
}

TEST_P(CommunicatorConformance, AllReduceOfATensorLargerThanAnyScratchIsExact) {
  if (!IsPowerOfTwo(GetParam())) {
    return;
  }
  Run([](Communicator& comm) { ExpectTreeSum<float>(comm, 300'007); });
}

TEST_P(CommunicatorConformance, AllReduceOfNothingSucceeds) {
  if (!IsPowerOfTwo(GetParam())) {
    return;
  }
  Run([](Communicator& comm) {
    EXPECT_THAT(comm.AllReduceSum(TensorView(nullptr, DType::kF32, {0})), IsOk());
  });
}

TEST_P(CommunicatorConformance, AllReduceRefusesWhatTheTreeCannotAdd) {
  if (!IsPowerOfTwo(GetParam())) {
    Run([](Communicator& comm) {
      float x = 1;
      ExpectRefused(comm.AllReduceSum(TensorView(&x, DType::kF32, {1})));
      EXPECT_THAT(comm.Barrier(), StatusIs(absl::StatusCode::kAborted));
    });
    return;
  }
  if (GetParam() == 1) {
    Run([](Communicator& comm) {
      int32_t x = 1;
      EXPECT_THAT(comm.AllReduceSum(TensorView(&x, DType::kI32, {1})),
                  StatusIs(absl::StatusCode::kInvalidArgument));
      EXPECT_THAT(comm.Barrier(), StatusIs(absl::StatusCode::kAborted));
    });
  }
}

TEST_P(CommunicatorConformance, AllGatherConcatenatesInRankOrder) {
  Run([](Communicator& comm) {
    for (const size_t unit : std::initializer_list<size_t>{0, 1, 3, 64, 4097}) {
      std::vector<int64_t> counts;
      std::vector<std::byte> expected;
      for (int rank = 0; rank < comm.size(); ++rank) {
        // Rank 1 has nothing to give.
        const size_t count = rank == 1 ? 0 : unit * static_cast<size_t>(rank + 1);
        counts.push_back(static_cast<int64_t>(count));
        const auto part = Pattern(rank, 0, count);
        expected.insert(expected.end(), part.begin(), part.end());
      }
      const auto own = Pattern(
          comm.rank(), 0, static_cast<size_t>(counts[static_cast<size_t>(comm.rank())]));
      std::vector<std::byte> received(expected.size());
      ASSERT_THAT(comm.AllGather(own, counts, received), IsOk());
      ASSERT_EQ(received, expected);
    }
  });
}

TEST_P(CommunicatorConformance, AllGatherMaySendFromItsOwnPlaceInTheResult) {
  Run([](Communicator& comm) {
    constexpr size_t kPart = 100;
    const auto at = static_cast<size_t>(comm.rank()) * kPart;
    const std::vector<int64_t> counts(static_cast<size_t>(comm.size()), kPart);
    std::vector<std::byte> all(kPart * counts.size());
    const auto own = Pattern(comm.rank(), 0, kPart);
    std::memcpy(all.data() + at, own.data(), kPart);
    ASSERT_THAT(comm.AllGather(std::span(all).subspan(at, kPart), counts, all), IsOk());
    for (int rank = 0; rank < comm.size(); ++rank) {
      const auto part = Pattern(rank, 0, kPart);
      EXPECT_EQ(
          std::memcmp(all.data() + static_cast<size_t>(rank) * kPart, part.data(), kPart),
          0);
    }
  });
}

TEST_P(CommunicatorConformance, AllToAllDeliversEveryPartInRankOrder) {
  Run([](Communicator& comm) {
    const auto count = [](int from, int to, int round) {
      return static_cast<size_t>((from * 5 + to * 3) % 7 * round);
    };
    for (const int round : {1, 0, 13, 2000, 1}) {
      std::vector<std::byte> send;
      std::vector<std::byte> expected;
      std::vector<int64_t> send_counts;
      std::vector<int64_t> expected_counts;
      for (int peer = 0; peer < comm.size(); ++peer) {
        const auto out = Pattern(comm.rank(), peer, count(comm.rank(), peer, round));
        send.insert(send.end(), out.begin(), out.end());
        send_counts.push_back(static_cast<int64_t>(out.size()));
        const auto in = Pattern(peer, comm.rank(), count(peer, comm.rank(), round));
        expected.insert(expected.end(), in.begin(), in.end());
        expected_counts.push_back(static_cast<int64_t>(in.size()));
      }
      std::vector<std::byte> received(expected.size() + 5, std::byte{0xee});
      std::vector<int64_t> recv_counts(send_counts.size(), -1);
      ASSERT_THAT(comm.AllToAllV(send, send_counts, received, recv_counts), IsOk());
      EXPECT_EQ(recv_counts, expected_counts);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), received.begin()));
      EXPECT_EQ(received.back(), std::byte{0xee});
    }
  });
}

// One rank alone has no room: a rank that a peer has told of its own error first would
// answer kAborted instead.
TEST_P(CommunicatorConformance, AllToAllIntoTooSmallABufferIsInternalAndEndsTheGroup) {
  Run([](Communicator& comm) {
    const bool has_room = comm.rank() != comm.size() - 1;
    const std::vector<int64_t> counts(static_cast<size_t>(comm.size()), 10);
    const std::vector<std::byte> send(10 * counts.size());
    std::vector<std::byte> recv(10 * counts.size() - (has_room ? 0 : 1));
    std::vector<int64_t> recv_counts(counts.size());
    const absl::Status status = comm.AllToAllV(send, counts, recv, recv_counts);
    if (has_room) {  // it may finish the call, or hear of the other's error within it
      EXPECT_THAT(status, ::testing::AnyOf(IsOk(), StatusIs(absl::StatusCode::kAborted)));
    } else {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal));
    }
    EXPECT_THAT(comm.Barrier(), StatusIs(absl::StatusCode::kAborted));
  });
}

TEST_P(CommunicatorConformance, BroadcastGivesTheRootsBytesToAll) {
  Run([](Communicator& comm) {
    for (int root = 0; root < comm.size(); ++root) {
      for (const size_t size : std::initializer_list<size_t>{0, 1, 1000, 70'001}) {
        auto bytes = Pattern(comm.rank(), 1, size);
        ASSERT_THAT(comm.Broadcast(bytes, root), IsOk());
        ASSERT_EQ(bytes, Pattern(root, 1, size));
      }
    }
  });
}

TEST_P(CommunicatorConformance, BadArgumentsAreRefusedAndEndTheGroup) {
  Run([](Communicator& comm) {
    std::array<std::byte, 4> bytes = {};
    ExpectRefused(comm.Broadcast(bytes, comm.size()));
    EXPECT_THAT(comm.Broadcast(bytes, 0), StatusIs(absl::StatusCode::kAborted));
  });
}

TEST_P(CommunicatorConformance, CountsThatDoNotFitTheBuffersAreRefused) {
  Run([](Communicator& comm) {
    const std::vector<int64_t> counts(static_cast<size_t>(comm.size()), 4);
    std::vector<std::byte> bytes(4 * counts.size() + 1);
    ExpectRefused(comm.AllGather(std::span(bytes).first(4), counts, bytes));
  });
  Run([](Communicator& comm) {
    std::vector<int64_t> counts(static_cast<size_t>(comm.size()), 4);
    counts.back() = -4;
    std::vector<std::byte> bytes(4 * counts.size());
    std::vector<int64_t> recv_counts(counts.size());
    ExpectRefused(comm.AllToAllV(bytes, counts, bytes, recv_counts));
  });
}

TEST_P(CommunicatorConformance, ManyMixedCallsStayInStep) {
  if (!IsPowerOfTwo(GetParam())) {
    return;
  }
  Run([](Communicator& comm) {
    for (int round = 0; round < 100; ++round) {
      float x = static_cast<float>(round);
      ASSERT_THAT(comm.AllReduceSum(TensorView(&x, DType::kF32, {1})), IsOk());
      ASSERT_EQ(x, static_cast<float>(round * comm.size()));
      ASSERT_THAT(comm.Barrier(), IsOk());
      auto bytes = Pattern(comm.rank(), round, 33);
      ASSERT_THAT(comm.Broadcast(bytes, round % comm.size()), IsOk());
      ASSERT_EQ(bytes, Pattern(round % comm.size(), round, 33));
    }
    EXPECT_EQ(comm.stats().calls, 300u);
    EXPECT_GT(comm.stats().bytes, 0u);
  });
}

TEST_P(CommunicatorConformance, ARankThatDoesNotComeEndsTheGroupAtTheDeadline) {
  if (GetParam() == 1) {
    return;
  }
  Run(
      [&](Communicator& comm) {
        ASSERT_THAT(comm.Barrier(), IsOk());
        if (comm.rank() == comm.size() - 1) {
          return;
        }
        const absl::Status status = comm.Barrier();
        EXPECT_TRUE(status.code() == absl::StatusCode::kDeadlineExceeded ||
                    status.code() == absl::StatusCode::kAborted)
            << status;
        EXPECT_THAT(comm.Barrier(), StatusIs(absl::StatusCode::kAborted));
      },
      kShort);
}

TEST_P(CommunicatorConformance, TheLateRankFindsTheGroupDead) {
  if (GetParam() == 1) {
    return;
  }
  Run(
      [&](Communicator& comm) {
        if (comm.rank() == 0) {
          const absl::Time late = absl::Now() + 2 * kShort.timeout;
          while (absl::Now() < late) {
            std::this_thread::yield();
          }
        }
        // Its peers may have sent their part of the first call before they gave up, never
        // of a second.
        EXPECT_FALSE(comm.Barrier().ok() && comm.Barrier().ok());
        EXPECT_THAT(comm.Barrier(), StatusIs(absl::StatusCode::kAborted));
      },
      kShort);
}

TEST_P(CommunicatorConformance, AbortWakesTheWaitingRanks) {
  if (GetParam() == 1) {
    return;
  }
  const absl::Time start = absl::Now();
  Run([](Communicator& comm) {
    const absl::Status entered = comm.Barrier();
    if (comm.rank() == 0) {
      ASSERT_THAT(entered, IsOk());
      comm.Abort("told to");
    } else {
      // Rank 0 may have gone on, and aborted, before this rank was out of it.
      EXPECT_TRUE(entered.ok() || absl::IsAborted(entered)) << entered;
    }
    const absl::Status status = comm.Barrier();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted));
    if (comm.rank() == 0) {
      EXPECT_NE(status.message().find("told to"), std::string::npos) << status;
    }
  });
  EXPECT_LT(absl::Now() - start, kGenerous.timeout / 2);
}

TEST_P(CommunicatorConformance, AbortFromAnotherThreadEndsAWaitingCall) {
  Run([](Communicator& comm) {
    comm.Abort("first");
    comm.Abort("second");
    std::thread other([&comm] { comm.Abort("third"); });
    EXPECT_THAT(comm.Barrier(), StatusIs(absl::StatusCode::kAborted));
    other.join();
    float x = 1;
    EXPECT_THAT(comm.AllReduceSum(TensorView(&x, DType::kF32, {1})),
                StatusIs(absl::StatusCode::kAborted));
    std::array<std::byte, 1> bytes = {};
    EXPECT_THAT(comm.Broadcast(bytes, 0), StatusIs(absl::StatusCode::kAborted));
    EXPECT_EQ(x, 1);
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, CommunicatorConformance,
                         ::testing::ValuesIn(testing::Harness().sizes()));

}  // namespace
}  // namespace tessera::worker
