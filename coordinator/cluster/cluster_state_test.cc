#include "coordinator/cluster/cluster_state.h"

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using proto::ClusterMember;
using proto::ClusterRole;
using testing::IsOk;
using testing::StatusIs;

constexpr absl::StatusCode kRefused = absl::StatusCode::kFailedPrecondition;

class ClusterStateTest : public ::testing::Test {
 protected:
  static ClusterOptions Options() {
    ClusterOptions options;
    options.build_version = "1.0";
    options.numerics_id = "cpu/f32";
    options.model_digest = "abc";
    options.table_digests = {"t0", "t1"};
    return options;
  }
  static ClusterMember Worker(uint32_t rank) {
    return {ClusterRole::kWorker, rank, 0, "127.0.0.1:1", "1.0", "cpu/f32", "abc",
            {"t0", "t1"}};
  }
  Liveness LivenessOf(size_t i) { return state_.View()->members.at(i).liveness; }

  SimulatedClock clock_;
  ClusterState state_{Options(), &clock_};
};

TEST_F(ClusterStateTest, MembersAreListedByRoleAndRank) {
  ClusterMember shard = Worker(0);
  shard.role = ClusterRole::kEngram;
  shard.numerics_id = "";
  ASSERT_THAT(state_.Register(shard), IsOk());
  ASSERT_THAT(state_.Register(Worker(2)), IsOk());
  ASSERT_THAT(state_.Register(Worker(1)), IsOk());
  const auto view = state_.View();
  ASSERT_EQ(view->members.size(), 3u);
  EXPECT_EQ(view->members[0].member, Worker(1));
  EXPECT_EQ(view->members[1].member, Worker(2));
  EXPECT_EQ(view->members[2].member, shard);
  EXPECT_EQ(view->version, 3u);
}

TEST_F(ClusterStateTest, RefusesWhoeverDoesNotMatch) {
  const auto refuses = [&](auto change) {
    ClusterMember member = Worker(0);
    change(member);
    return state_.Register(member).status().code() == kRefused;
  };
  EXPECT_TRUE(refuses([](auto& m) { m.build_version = "1.1"; }));
  EXPECT_TRUE(refuses([](auto& m) { m.numerics_id = "cuda/fp8"; }));
  EXPECT_TRUE(refuses([](auto& m) { m.model_digest = ""; }));
  EXPECT_TRUE(refuses([](auto& m) { m.table_digests = {"t0"}; }));
  EXPECT_TRUE(refuses([](auto& m) { m.epoch = 1; }));
  EXPECT_EQ(state_.View()->version, 0u);
  EXPECT_THAT(state_.Register(Worker(1u << 20)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  ClusterMember nowhere = Worker(0);
  nowhere.address = "";
  EXPECT_THAT(state_.Register(nowhere), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(ClusterStateTest, ARefusalSaysWhichSettingsDifferAndBothValues) {
  ClusterOptions options = Options();
  options.settings = {{"block-size", "16"}, {"num-kv-blocks", "100"}, {"weights", "a"}};
  ClusterState state(options, &clock_);
  const auto answer = [&](std::vector<proto::MemberSetting> settings) {
    ClusterMember member = Worker(0);
    member.settings = std::move(settings);
    return state.Register(member).status();
  };
  EXPECT_EQ(answer({{"block-size", "32"}, {"num-kv-blocks", "50"}, {"weights", "a"}}),
            absl::FailedPreconditionError(
                "block-size 32, expected 16; num-kv-blocks 50, expected 100"));
  EXPECT_EQ(answer({{"block-size", "16"}, {"num-kv-blocks", "100"}}),
            absl::FailedPreconditionError("weights nothing, expected a"));
  EXPECT_EQ(answer({{"block-size", "16"},
                    {"num-kv-blocks", "100"},
                    {"weights", "a"},
                    {"new", "1"}}),
            absl::FailedPreconditionError("new 1, expected nothing"));
  EXPECT_EQ(answer({}).code(), kRefused);
  EXPECT_THAT(answer({{"weights", "a"}, {"num-kv-blocks", "100"}, {"block-size", "16"}}),
              IsOk());
}

TEST_F(ClusterStateTest, AShardHasNoSettingsToAgreeOn) {
  ClusterOptions options = Options();
  options.settings = {{"block-size", "16"}};
  ClusterState state(options, &clock_);
  ClusterMember shard = Worker(0);
  shard.role = ClusterRole::kEngram;
  EXPECT_THAT(state.Register(shard), IsOk());
}

TEST_F(ClusterStateTest, SilenceMakesAMemberSuspectThenDeadForGood) {
  const auto id = state_.Register(Worker(0));
  ASSERT_THAT(id, IsOk());
  EXPECT_FALSE(state_.Sweep());
  clock_.Advance(Options().suspect_after);
  EXPECT_TRUE(state_.Sweep());
  EXPECT_EQ(LivenessOf(0), Liveness::kSuspect);
  ASSERT_THAT(state_.Heartbeat(*id), IsOk());
  EXPECT_TRUE(state_.Sweep());
  EXPECT_EQ(LivenessOf(0), Liveness::kAlive);
  clock_.Advance(Options().dead_after);
  EXPECT_THAT(state_.Heartbeat(*id), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_TRUE(state_.Sweep());
  EXPECT_EQ(LivenessOf(0), Liveness::kDead);
  EXPECT_THAT(state_.Heartbeat(*id), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_FALSE(state_.Sweep());
}

TEST_F(ClusterStateTest, ADeadMembersPlaceCanBeTaken) {
  const auto first = state_.Register(Worker(0));
  ASSERT_THAT(first, IsOk());
  ClusterMember other = Worker(0);
  other.address = "127.0.0.1:2";
  EXPECT_THAT(state_.Register(other), StatusIs(kRefused));
  state_.MarkDead(*first);
  const auto second = state_.Register(other);
  ASSERT_THAT(second, IsOk());
  EXPECT_NE(*first, *second);
  EXPECT_THAT(state_.Heartbeat(*first), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(state_.Heartbeat(*second), IsOk());
  EXPECT_EQ(state_.View()->members.size(), 1u);
}

TEST_F(ClusterStateTest, ANewEpochForgetsWorkersAndKeepsShards) {
  ClusterMember shard = Worker(0);
  shard.role = ClusterRole::kEngram;
  const auto shard_id = state_.Register(shard);
  ASSERT_THAT(state_.Register(Worker(0)), IsOk());
  ASSERT_THAT(state_.StartEpoch(1), IsOk());
  EXPECT_EQ(state_.View()->members.size(), 1u);
  EXPECT_THAT(state_.Heartbeat(*shard_id), IsOk());
  EXPECT_THAT(state_.Register(Worker(0)), StatusIs(kRefused));
  ClusterMember fresh = Worker(0);
  fresh.epoch = 1;
  EXPECT_THAT(state_.Register(fresh), IsOk());
  EXPECT_THAT(state_.StartEpoch(1), StatusIs(kRefused));
}

TEST_F(ClusterStateTest, ASnapshotDoesNotChange) {
  ASSERT_THAT(state_.Register(Worker(0)), IsOk());
  const auto before = state_.View();
  ASSERT_THAT(state_.Register(Worker(1)), IsOk());
  EXPECT_EQ(before->members.size(), 1u);
  EXPECT_LT(before->version, state_.View()->version);
}

}  // namespace
}  // namespace tessera::coordinator
