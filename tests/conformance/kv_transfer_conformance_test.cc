// The contract of KvTransfer over every Communicator: blocks arrive as they were sent, in
// order, or the step fails with a name.
#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"

#include "tests/conformance/group_harness.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/kv_transfer.h"

namespace tessera::worker {
namespace {

using testing::IsOk;
using testing::StatusIs;

const CommOptions kGenerous = {.timeout = absl::Seconds(60)};
constexpr int64_t kMaxBytes = 5000;
constexpr int64_t kMaxMessages = 64;
constexpr KvTransferOptions kOptions = {.max_messages = kMaxMessages,
                                        .max_payload_bytes = kMaxBytes};
// Where a message's checksum ends; zeros and the payload follow.
constexpr size_t kCheckedHeader = 36;
constexpr size_t kHeader = 64;

// Passes calls on, and damages one byte of what arrives.
class DamagingCommunicator final : public Communicator {
 public:
  DamagingCommunicator(Communicator* group, size_t at) : group_(group), at_(at) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::string_view name() const override { return group_->name(); }
  absl::Status AllReduceSum(kernels::TensorView x) override {
    return group_->AllReduceSum(x);
  }
  absl::Status AllGather(std::span<const std::byte> send, std::span<const int64_t> counts,
                         std::span<std::byte> recv) override {
    return group_->AllGather(send, counts, recv);
  }
  absl::Status AllToAllV(std::span<const std::byte> send,
                         std::span<const int64_t> send_counts, std::span<std::byte> recv,
                         std::span<int64_t> recv_counts) override {
    const absl::Status status = group_->AllToAllV(send, send_counts, recv, recv_counts);
    recv[at_] ^= std::byte{0x10};
    return status;
  }
  absl::Status Broadcast(std::span<std::byte> data, int root) override {
    return group_->Broadcast(data, root);
  }
  absl::Status Barrier() override { return group_->Barrier(); }
  void Abort(std::string_view reason) override { group_->Abort(reason); }

 private:
  Communicator* const group_;
  const size_t at_;
};

// Equal on every rank: what `from` sends to `to` as its message `i` of a step.
std::vector<std::byte> Payload(uint64_t step, int from, int to, int64_t i) {
  const auto size = static_cast<size_t>((from * 31 + to * 17 + i * 997) % kMaxBytes);
  std::vector<std::byte> bytes(size);
  for (size_t at = 0; at < size; ++at) {
    bytes[at] = static_cast<std::byte>((at * 7 + step) ^ static_cast<size_t>(from + i));
  }
  return bytes;
}

int64_t NumMessages(uint64_t step, int from, int to) {
  return from == to ? 0 : static_cast<int64_t>((step + static_cast<size_t>(from)) % 4);
}

uint64_t IdOf(uint64_t step, int from, int to, int64_t i) {
  return step * 1000 + static_cast<uint64_t>(from * 100 + to * 10 + i);
}

std::unique_ptr<KvTransfer> Create(Communicator* group) {
  auto transfer = KvTransfer::Create(kOptions, group);
  EXPECT_THAT(transfer, IsOk());
  return std::move(transfer).value();
}

absl::Status Stage(KvTransfer& transfer, int to, uint64_t id,
                   const std::vector<std::byte>& bytes) {
  const auto room = transfer.Stage(to, id, std::ssize(bytes));
  if (room.ok()) {
    std::copy(bytes.begin(), bytes.end(), room->begin());
  }
  return room.status();
}

class KvTransferConformance : public ::testing::TestWithParam<int> {
 protected:
  static int size() { return GetParam(); }

  static void Run(const std::function<void(Communicator&)>& body) {
    testing::Harness().Run(GetParam(), kGenerous, body);
  }

  // Every rank sends one block of `bytes` to the next one.
  static void SendToNext(KvTransfer& transfer, const Communicator& comm, uint64_t id,
                         const std::vector<std::byte>& bytes) {
    transfer.Begin(1, 1);
    // Rank 0 is the next of the last one; each stages one message, so that none falls.
    ASSERT_THAT(Stage(transfer, (comm.rank() + 1) % comm.size(), id, bytes), IsOk());
    ASSERT_THAT(transfer.Exchange(), IsOk());
  }

  static int Before(const Communicator& comm) {
    return (comm.rank() + comm.size() - 1) % comm.size();
  }
};

TEST_P(KvTransferConformance, EveryBlockArrivesAsItWasSentInEveryStep) {
  Run([](Communicator& comm) {
    const auto transfer = Create(&comm);
    for (uint64_t step = 1; step <= 12; ++step) {
      transfer->Begin(3, step);
      int64_t sent = 0;
      for (int to = 0; to < comm.size(); ++to) {
        for (int64_t i = 0; i < NumMessages(step, comm.rank(), to); ++i) {
          const auto bytes = Payload(step, comm.rank(), to, i);
          ASSERT_THAT(Stage(*transfer, to, IdOf(step, comm.rank(), to, i), bytes),
                      IsOk());
          sent += std::ssize(bytes);
        }
      }
      EXPECT_EQ(transfer->sent_bytes(), sent);
      ASSERT_THAT(transfer->Exchange(), IsOk());
      // In any order of the ranks.
      for (int from = comm.size() - 1; from >= 0; --from) {
        for (int64_t i = 0; i < NumMessages(step, from, comm.rank()); ++i) {
          const auto expected = Payload(step, from, comm.rank(), i);
          const auto came = transfer->Take(from, IdOf(step, from, comm.rank(), i),
                                           std::ssize(expected));
          ASSERT_THAT(came, IsOk());
          ASSERT_TRUE(std::equal(came->bytes.begin(), came->bytes.end(), expected.begin(),
                                 expected.end()));
        }
      }
      ASSERT_THAT(transfer->Finish(), IsOk());
    }
  });
}

TEST_P(KvTransferConformance, AnyDamagedByteIsDataLoss) {
  if (size() == 1) {
    return;
  }
  const std::vector<std::byte> bytes(100, std::byte{42});
  for (size_t at = 0; at < kHeader + bytes.size(); ++at) {
    if (at >= kCheckedHeader && at < kHeader) {
      continue;  // zeros that nobody reads
    }
    Run([&](Communicator& comm) {
      DamagingCommunicator damaging(&comm, at);
      const auto transfer = Create(&damaging);
      SendToNext(*transfer, comm, 7, bytes);
      EXPECT_THAT(transfer->Take(Before(comm), 7, std::ssize(bytes)).status(),
                  StatusIs(absl::StatusCode::kDataLoss))
          << "byte " << at;
    });
  }
}

TEST_P(KvTransferConformance, WhatPlansDoNotAgreeOnIsDataLoss) {
  if (size() == 1) {
    return;
  }
  Run([](Communicator& comm) {
    const std::vector<std::byte> bytes(100, std::byte{42});
    const auto transfer = Create(&comm);
    SendToNext(*transfer, comm, 7, bytes);
    const auto loses = [&](uint64_t id, int64_t num_bytes) {
      EXPECT_THAT(transfer->Take(Before(comm), id, num_bytes).status(),
                  StatusIs(absl::StatusCode::kDataLoss));
    };
    loses(8, 100);
    loses(7, 99);
    loses(7, 101);
    EXPECT_THAT(transfer->Finish(), StatusIs(absl::StatusCode::kDataLoss));
    EXPECT_THAT(transfer->Take(Before(comm), 7, 100), IsOk());
    EXPECT_THAT(transfer->Finish(), IsOk());
    loses(7, 100);  // It was taken.
  });
}

TEST_P(KvTransferConformance, ABlockOfAnotherStepIsDataLoss) {
  if (size() == 1) {
    return;
  }
  Run([](Communicator& comm) {
    const std::vector<std::byte> bytes(10, std::byte{1});
    const auto transfer = Create(&comm);
    transfer->Begin(1, comm.rank() == 0 ? 5 : 6);
    ASSERT_THAT(Stage(*transfer, comm.rank() == 0 ? 1 : 0, 7, bytes), IsOk());
    ASSERT_THAT(transfer->Exchange(), IsOk());
    if (comm.rank() < 2) {
      EXPECT_THAT(transfer->Take(1 - comm.rank(), 7, 10).status(),
                  StatusIs(absl::StatusCode::kDataLoss));
    }
  });
}

TEST_P(KvTransferConformance, WhatTheOptionsDoNotAllowIsRefused) {
  Run([](Communicator& comm) {
    const auto transfer = Create(&comm);
    transfer->Begin(1, 1);
    const auto refused = [&](int to, int64_t num_bytes) {
      EXPECT_THAT(transfer->Stage(to, 1, num_bytes).status(),
                  StatusIs(absl::StatusCode::kInvalidArgument));
    };
    refused(comm.rank(), 1);
    refused(comm.size(), 1);
    refused(-1, 1);
    if (comm.size() > 1) {
      const int to = comm.rank() == comm.size() - 1 ? 0 : comm.size() - 1;
      refused(to, kMaxBytes + 1);
      for (int64_t i = 0; i < kMaxMessages; ++i) {
        ASSERT_THAT(transfer->Stage(to, 1, kMaxBytes), IsOk());
      }
      refused(to, 1);
    }
    if (comm.size() > 2 && comm.rank() == 2) {
      transfer->Begin(1, 2);
      ASSERT_THAT(transfer->Stage(1, 1, 1), IsOk());
      refused(0, 1);
    }
    EXPECT_THAT(transfer->Take(comm.size(), 1, 1).status(),
                StatusIs(absl::StatusCode::kInvalidArgument));
  });
}

TEST_P(KvTransferConformance, MoreThanARankTakesIsInternal) {
  if (size() < 3) {
    return;
  }
  Run([](Communicator& comm) {
    const auto transfer = Create(&comm);
    transfer->Begin(1, 1);
    for (int64_t i = 0; i < kMaxMessages && comm.rank() > 0; ++i) {
      ASSERT_THAT(transfer->Stage(0, 1, kMaxBytes), IsOk());
    }
    EXPECT_FALSE(transfer->Exchange().ok() && comm.rank() == 0);
  });
}

TEST(KvTransferOptions, SizesThatCannotBeAreRefused) {
  testing::Harness().Run(testing::Harness().sizes().front(), kGenerous,
                         [](Communicator& comm) {
                           for (const KvTransferOptions& options :
                                {KvTransferOptions{0, 1}, KvTransferOptions{1, 0},
                                 KvTransferOptions{int64_t{1} << 40, int64_t{1} << 40}}) {
                             EXPECT_THAT(KvTransfer::Create(options, &comm).status(),
                                         StatusIs(absl::StatusCode::kInvalidArgument));
                           }
                         });
}

INSTANTIATE_TEST_SUITE_P(Sizes, KvTransferConformance,
                         ::testing::ValuesIn(testing::Harness().sizes()));

}  // namespace
}  // namespace tessera::worker
