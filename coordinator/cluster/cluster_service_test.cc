// Registration over loopback: server, client and state together.
#include "coordinator/cluster/cluster_service.h"

#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

#include "common/mutex.h"
#include "proto/cluster_client.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using proto::ClusterClient;
using proto::ClusterMember;
using proto::ClusterRole;
using testing::IsOk;
using testing::StatusIs;

constexpr char kToken[] = "cell secret";
const absl::Duration kLong = absl::Seconds(30);

ClusterOptions Options() {
  ClusterOptions options;
  options.heartbeat_period = absl::Milliseconds(20);
  options.dead_after = kLong;
  options.build_version = "1.0";
  return options;
}

ClusterMember Member(const std::string& build) {
  return {ClusterRole::kWorker, 3, 0, "127.0.0.1:1", build, "cpu/f32", "abc", {"t"}};
}

class ClusterServiceTest : public ::testing::Test {
 protected:
  ClusterServiceTest() { server_ = Serve("127.0.0.1:0"); }

  std::unique_ptr<ClusterServer> Serve(const std::string& address) {
    auto server = ClusterServer::Create(
        {.address = address, .auth_token = kToken, .max_message_bytes = 64 << 10},
        &state_);
    EXPECT_THAT(server, IsOk());
    return std::move(server).value();
  }
  std::unique_ptr<ClusterClient> Join(const ClusterMember& member,
                                      const std::string& token = kToken,
                                      ClusterClient::RefusedHook refused = nullptr) {
    proto::ClusterClientOptions options;
    options.coordinator_address = server_->address();
    options.auth_token = token;
    auto client = ClusterClient::Create(options, member, std::move(refused));
    EXPECT_THAT(client, IsOk());
    return std::move(client).value();
  }

  ClusterState state_{Options(), Clock::Real()};
  std::unique_ptr<ClusterServer> server_;
};

TEST_F(ClusterServiceTest, AMemberArrivesAsItWasDescribedAndBeats) {
  const auto client = Join(Member("1.0"));
  ASSERT_THAT(client->AwaitRegistered(absl::Now() + kLong), IsOk());
  ASSERT_EQ(state_.View()->members.size(), 1u);
  EXPECT_EQ(state_.View()->members[0].member, Member("1.0"));
  const absl::Time registered = state_.View()->members[0].last_heartbeat;
  const absl::Time limit = absl::Now() + kLong;
  absl::Time beat = registered;
  while (beat == registered && absl::Now() < limit) {
    // Any change publishes the beats with it.
    ClusterMember other = Member("1.0");
    other.role = ClusterRole::kEngram;
    ASSERT_THAT(state_.Register(other), IsOk());
    beat = state_.View()->members[0].last_heartbeat;
  }
  EXPECT_GT(beat, registered);
}

TEST_F(ClusterServiceTest, AnotherBuildIsRefusedWithATypedError) {
  Notification refused;
  const auto client = Join(Member("0.9"), kToken, [&](const absl::Status& status) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition));
    refused.Notify();
  });
  const absl::Status status = client->AwaitRegistered(absl::Now() + kLong);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_NE(status.message().find("0.9"), std::string::npos) << status;
  EXPECT_TRUE(refused.WaitForNotificationWithTimeout(kLong));
}

TEST_F(ClusterServiceTest, AWrongTokenIsRefused) {
  const auto client = Join(Member("1.0"), "guess");
  EXPECT_THAT(client->AwaitRegistered(absl::Now() + kLong),
              StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_TRUE(state_.View()->members.empty());
}

TEST_F(ClusterServiceTest, AForgottenMemberRegistersAgain) {
  const auto client = Join(Member("1.0"));
  ASSERT_THAT(client->AwaitRegistered(absl::Now() + kLong), IsOk());
  const uint64_t first = state_.View()->members[0].member_id;
  state_.MarkDead(first);
  const absl::Time limit = absl::Now() + kLong;
  while (state_.View()->members[0].member_id == first && absl::Now() < limit) {
    std::this_thread::yield();
  }
  EXPECT_NE(state_.View()->members[0].member_id, first);
}

TEST_F(ClusterServiceTest, StaysOnLoopback) {
  EXPECT_THAT(
      ClusterServer::Create(
          {.address = "0.0.0.0:0", .auth_token = kToken, .max_message_bytes = 1 << 10},
          &state_),
      StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace tessera::coordinator
