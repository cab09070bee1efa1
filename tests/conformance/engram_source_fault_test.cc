// What the contract of EngramSource promises when the other side misbehaves without
// dying: it hangs, answers too late, or sends rows that were damaged on the way. With and
// without a cache in front. What dies or is of another model is in
// engram_source_conformance_test.cc.
#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "engram_store/client/cached_source.h"
#include "engram_store/client/remote_source.h"
#include "engram_store/service/loopback_shards.h"
#include "tests/conformance/scripted_shard_service.h"
#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

constexpr size_t kRowBytes = 33;  // of table 0
const std::byte kUntouched{0xAA};
const std::byte kMark{0x55};

// The parameter: whether a cache stands in front.
class EngramSourceFaultTest : public ::testing::TestWithParam<bool> {
 protected:
  // One shard, its replicas asked in the order of `addresses`.
  void Connect(std::vector<std::string> addresses, absl::Duration attempt_timeout) {
    RemoteSourceOptions options;
    options.endpoints.replicas = {std::move(addresses)};
    options.endpoints.expected = model_.manifest();
    options.endpoints.timeout = absl::Seconds(20);
    options.attempt_timeout = attempt_timeout;
    auto remote = RemoteSource::Create(options, Clock::Real());
    ASSERT_THAT(remote.status(), IsOk());
    remote_ = remote->get();
    source_ = *std::move(remote);
    if (GetParam()) {
      auto cached = CachedSource::Create({.capacity_bytes = 1 << 16}, std::move(source_));
      ASSERT_THAT(cached.status(), IsOk());
      source_ = *std::move(cached);
    }
  }

  PendingRows Issue() {
    out_.assign(ids_.size() * kRowBytes, kUntouched);
    return source_->Issue(0, ids_, out_);
  }

  void ExpectRows() const {
    for (size_t i = 0; i < ids_.size(); ++i) {
      const std::vector<std::byte> row = model_.tensors(0).PackedRow(ids_[i]);
      EXPECT_TRUE(std::equal(row.begin(), row.end(),
                             out_.begin() + static_cast<ptrdiff_t>(i * kRowBytes)));
    }
  }

  bool AllBytesAre(std::byte value) const {
    return std::ranges::all_of(out_, [value](std::byte byte) { return byte == value; });
  }

  const RandomModel model_{20261};
  const std::unique_ptr<ScriptedShard> bad_ = ScriptedShard::Create(model_.Shard({}));
  const std::unique_ptr<ScriptedShard> good_ = ScriptedShard::Create(model_.Shard({}));
  const std::vector<uint32_t> ids_ = {0, 100, 239};
  std::vector<std::byte> out_;
  std::unique_ptr<EngramSource> source_;
  RemoteSource* remote_ = nullptr;  // behind source_
};

TEST_P(EngramSourceFaultTest, AReplicaThatHangsIsLeftForTheNextInsideTheDeadline) {
  Connect({bad_->address(), good_->address()}, absl::Milliseconds(200));
  bad_->Hold();
  const absl::Time start = absl::Now();
  const PendingRows pending = Issue();
  bad_->AwaitHeld(1);  // It was asked, and says nothing.
  EXPECT_THAT(source_->Wait(pending, start + absl::Seconds(20)), IsOk());
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  ExpectRows();
  EXPECT_GE(remote_->failovers(), 1u);
}

TEST_P(EngramSourceFaultTest, AReplicaThatHangedServesAgainOnceItAnswers) {
  Connect({bad_->address()}, absl::Seconds(20));
  bad_->Hold();
  const PendingRows pending = Issue();
  bad_->AwaitHeld(1);
  EXPECT_THAT(source_->Wait(pending, absl::Now()),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  bad_->Release();
  EXPECT_THAT(source_->Wait(Issue(), absl::Now() + absl::Seconds(20)), IsOk());
  ExpectRows();
}

TEST_P(EngramSourceFaultTest, RowsThatDoNotFitTheirChecksumAreDataLossAndDropped) {
  Connect({bad_->address()}, absl::Seconds(20));
  bad_->Corrupt();
  EXPECT_THAT(source_->Wait(Issue(), absl::Now() + absl::Seconds(20)),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_TRUE(AllBytesAre(kUntouched));
  // Nor does a cache remember them.
  EXPECT_THAT(source_->Wait(Issue(), absl::Now() + absl::Seconds(20)),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_TRUE(AllBytesAre(kUntouched));
}

TEST_P(EngramSourceFaultTest, DamagedRowsAreAskedOfTheNextReplica) {
  Connect({bad_->address(), good_->address()}, absl::Seconds(20));
  bad_->Corrupt();
  EXPECT_THAT(source_->Wait(Issue(), absl::Now() + absl::Seconds(20)), IsOk());
  ExpectRows();
  EXPECT_GE(remote_->failovers(), 1u);
}

// In even rounds the answer sets out after Wait gave up, in odd ones at that moment, so
// that it may get past a call that is being cancelled. The end of the source waits for
// whatever is still to come.
TEST_P(EngramSourceFaultTest, AnAnswerAfterAFailedWaitTouchesNothing) {
  constexpr int kRounds = 60;
  for (int round = 0; round < kRounds; ++round) {
    Connect({bad_->address()}, absl::Seconds(20));
    bad_->Hold();
    const PendingRows pending = Issue();
    bad_->AwaitHeld(1);
    std::thread answers;
    if (round % 2 == 1) {
      answers = std::thread([this] { bad_->Release(); });
    }
    const absl::Time deadline = absl::Now() + absl::Microseconds(3 * (round % 20));
    const absl::Status status = source_->Wait(pending, deadline);
    if (!status.ok()) {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded));
      std::ranges::fill(out_, kMark);  // The caller's again.
    } else {
      EXPECT_EQ(round % 2, 1) << "an answer that was held has come";
    }
    if (answers.joinable()) {
      answers.join();
    }
    bad_->Release();
    source_.reset();
    if (!status.ok()) {
      EXPECT_TRUE(AllBytesAre(kMark)) << "round " << round;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sources, EngramSourceFaultTest, ::testing::Bool(),
                         [](const ::testing::TestParamInfo<bool>& cached) {
                           return cached.param ? "CachedRemote" : "Remote";
                         });

}  // namespace
}  // namespace tessera::engram_store
