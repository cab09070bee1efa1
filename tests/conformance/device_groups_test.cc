// AgreeOnGroupId between ranks that are threads (in-process) and processes (MPI): all
// come to the same verdict, on rank 0's id or on what is wrong with whom.
#include "worker/comm/nccl/device_groups.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/conformance/group_harness.h"
#include "tests/testing/status_matchers.h"

namespace tessera::testing {
namespace {

using kernels::DeviceGroupId;
using kernels::DeviceIdentity;
using ::testing::AllOf;
using ::testing::HasSubstr;
using worker::CommOptions;
using worker::Communicator;

constexpr uint64_t kEpoch = 5;
constexpr CommOptions kShort = {.timeout = absl::Milliseconds(300)};

DeviceGroupId IdOf(int rank) {
  DeviceGroupId id;
  for (size_t i = 0; i < id.bytes.size(); ++i) {
    id.bytes[i] = static_cast<std::byte>(7 * i + static_cast<size_t>(rank) + 1);
  }
  return id;
}

DeviceIdentity DeviceOf(int number) {
  DeviceIdentity device = {};
  std::memcpy(device.data(), &number, sizeof(number));
  return device;
}

// What a rank says of itself, in turn sent to each rank.
using Change = std::function<void(std::vector<std::byte>& record)>;

// Another build, or a process that is damaged: sends something else.
class Altered final : public Communicator {
 public:
  Altered(Communicator* inner, Change change)
      : inner_(inner), change_(std::move(change)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::string_view name() const override { return inner_->name(); }
  absl::Status AllToAllV(std::span<const std::byte> send,
                         std::span<const int64_t> send_counts, std::span<std::byte> recv,
                         std::span<int64_t> recv_counts) override {
    std::vector<std::byte> record(send.begin(), send.begin() + send_counts[0]);
    change_(record);
    std::vector<std::byte> all;
    for (int i = 0; i < size(); ++i) {
      all.insert(all.end(), record.begin(), record.end());
    }
    const std::vector<int64_t> counts(send_counts.size(), std::ssize(record));
    return inner_->AllToAllV(all, counts, recv, recv_counts);
  }
  absl::Status AllReduceSum(kernels::TensorView x) override {
    return inner_->AllReduceSum(x);
  }
  absl::Status AllGather(std::span<const std::byte> send, std::span<const int64_t> counts,
                         std::span<std::byte> recv) override {
    return inner_->AllGather(send, counts, recv);
  }
  absl::Status Broadcast(std::span<std::byte> data, int root) override {
    return inner_->Broadcast(data, root);
  }
  absl::Status Barrier() override { return inner_->Barrier(); }
  void Abort(std::string_view reason) override { inner_->Abort(reason); }

 private:
  Communicator* const inner_;
  const Change change_;
};

absl::StatusOr<std::optional<DeviceGroupId>> Agree(Communicator& control,
                                                   uint64_t epoch = kEpoch) {
  return worker::AgreeOnGroupId(
      control, epoch, DeviceOf(control.rank()),
      [&]() -> absl::StatusOr<DeviceGroupId> { return IdOf(control.rank()); });
}

class GroupIdConformance : public ::testing::TestWithParam<int> {
 protected:
  void Run(const std::function<void(Communicator&)>& body,
           const CommOptions& options = {}) {
    Harness().Run(GetParam(), options, body);
  }
  // The last rank's record is changed: what every rank says of it.
  void ExpectDamage(const Change& change, std::string_view what) {
    Run([&](Communicator& control) {
      Altered altered(&control, change);
      const bool is_last = control.rank() == control.size() - 1;
      EXPECT_THAT(Agree(is_last ? static_cast<Communicator&>(altered) : control).status(),
                  AllOf(StatusIs(absl::StatusCode::kDataLoss),
                        StatusIs(absl::StatusCode::kDataLoss, HasSubstr(what))));
    });
  }
};

TEST_P(GroupIdConformance, EveryRankHasTheIdOfRankZero) {
  Run([](Communicator& control) {
    const auto id = Agree(control);
    ASSERT_THAT(id, IsOk());
    ASSERT_TRUE(id->has_value());
    EXPECT_EQ((*id)->bytes, IdOf(0).bytes);
    EXPECT_THAT(control.Barrier(), IsOk()) << "control is not used up";
  });
}

TEST_P(GroupIdConformance, RankZeroAloneMakesAnId) {
  Run([](Communicator& control) {
    int made = 0;
    ASSERT_THAT(worker::AgreeOnGroupId(control, kEpoch, DeviceOf(control.rank()),
                                       [&]() -> absl::StatusOr<DeviceGroupId> {
                                         ++made;
                                         return IdOf(0);
                                       }),
                IsOk());
    EXPECT_EQ(made, control.rank() == 0 ? 1 : 0);
  });
}

TEST_P(GroupIdConformance, AnIdOfAnOldEpochIsRefusedByAll) {
  if (GetParam() == 1) {
    return;
  }
  for (const int old : {0, GetParam() - 1}) {
    Run([old](Communicator& control) {
      EXPECT_THAT(Agree(control, control.rank() == old ? kEpoch - 1 : kEpoch).status(),
                  StatusIs(absl::StatusCode::kFailedPrecondition,
                           AllOf(HasSubstr("epoch 4"), HasSubstr("epoch 5"))));
    });
  }
}

TEST_P(GroupIdConformance, ARankThatDoesNotComeIsADeadline) {
  if (GetParam() == 1) {
    return;
  }
  Run(
      [](Communicator& control) {
        ASSERT_THAT(control.Barrier(), IsOk());
        if (control.rank() == control.size() - 1) {
          return;
        }
        const absl::StatusCode code = Agree(control).status().code();
        EXPECT_TRUE(code == absl::StatusCode::kDeadlineExceeded ||
                    code == absl::StatusCode::kAborted)
            << absl::StatusCodeToString(code);
        EXPECT_THAT(control.Barrier(), StatusIs(absl::StatusCode::kAborted));
      },
      kShort);
}

TEST_P(GroupIdConformance, RanksThatShareADeviceHaveNone) {
  if (GetParam() == 1) {
    return;
  }
  Run([](Communicator& control) {
    const int device = control.rank() == control.size() - 1 ? 0 : control.rank();
    const auto id =
        worker::AgreeOnGroupId(control, kEpoch, DeviceOf(device),
                               []() -> absl::StatusOr<DeviceGroupId> { return IdOf(0); });
    ASSERT_THAT(id, IsOk());
    EXPECT_FALSE(id->has_value());
  });
}

TEST_P(GroupIdConformance, WithoutAnIdAllAreTold) {
  Run([](Communicator& control) {
    const auto id = worker::AgreeOnGroupId(control, kEpoch, DeviceOf(control.rank()),
                                           []() -> absl::StatusOr<DeviceGroupId> {
                                             return absl::InternalError("no network");
                                           });
    if (control.rank() == 0) {
      EXPECT_THAT(id.status(),
                  StatusIs(absl::StatusCode::kInternal, HasSubstr("no network")));
    } else {
      EXPECT_THAT(id.status(), StatusIs(absl::StatusCode::kUnavailable,
                                        HasSubstr("rank 0 made no id")));
    }
  });
}

TEST_P(GroupIdConformance, ARecordOfAnotherSizeIsRefused) {
  for (const size_t bytes : {size_t{0}, size_t{16}, worker::kGroupRecordBytes - 1}) {
    ExpectDamage([bytes](std::vector<std::byte>& record) { record.resize(bytes); },
                 fmt::format("sent {} bytes", bytes));
  }
}

// Longer than there is room for: the transport refuses it.
TEST_P(GroupIdConformance, ALongRecordIsRefused) {
  Run([](Communicator& control) {
    Altered altered(&control,
                    [](std::vector<std::byte>& record) { record.resize(1 << 20); });
    const bool is_last = control.rank() == control.size() - 1;
    const absl::StatusCode code =
        Agree(is_last ? static_cast<Communicator&>(altered) : control).status().code();
    EXPECT_TRUE(code == absl::StatusCode::kInternal || code == absl::StatusCode::kAborted)
        << absl::StatusCodeToString(code);
  });
}

// A process that joins twice says the rank of another one.
TEST_P(GroupIdConformance, ARecordOfAnotherRankSizeNameOrKindIsRefused) {
  for (const size_t offset : std::initializer_list<size_t>{0, 4, 8, 24, 31}) {
    ExpectDamage(
        [offset](std::vector<std::byte>& record) { record[offset] ^= std::byte{64}; },
        "of another group or none");
  }
  ExpectDamage(  // more than an id
      [](std::vector<std::byte>& record) { record[12] = std::byte{2}; },
      "of another group or none");
}

TEST_P(GroupIdConformance, NobodyButRankZeroNamesAnId) {
  if (GetParam() > 1) {
    ExpectDamage([](std::vector<std::byte>& record) { record[12] = std::byte{1}; },
                 "of another group or none");
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, GroupIdConformance,
                         ::testing::ValuesIn(Harness().sizes()));

}  // namespace
}  // namespace tessera::testing
