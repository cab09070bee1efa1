#include "engram_store/client/shard_handshake.h"

#include "gtest/gtest.h"

#include "engram_store/service/loopback_shards.h"

namespace tessera::engram_store {
namespace {

class ShardHandshakeTest : public ::testing::Test {
 protected:
  ShardHandshakeTest() : model_(1), shards_(model_, 2, 2) {
    endpoints_.replicas = shards_.Addresses();
    endpoints_.expected = model_.manifest();
  }

  absl::StatusCode Code() {
    return ConnectShards(endpoints_, Clock::Real()).status().code();
  }

  RandomModel model_;
  LoopbackShards shards_;
  ShardEndpoints endpoints_;
};

TEST_F(ShardHandshakeTest, LearnsTheDigestsThatItDidNotKnow) {
  for (ManifestTable& table : endpoints_.expected.tables) {
    table.digest.clear();
  }
  const ConnectedShards connected = ConnectShards(endpoints_, Clock::Real()).value();
  EXPECT_EQ(connected.manifest, model_.manifest());
}

TEST_F(ShardHandshakeTest, OneReplicaOfEveryShardIsEnough) {
  shards_.Stop(0, 0);
  shards_.Stop(1, 1);
  const ConnectedShards connected = ConnectShards(endpoints_, Clock::Real()).value();
  EXPECT_EQ(connected.shards[0][0].description, nullptr);
  EXPECT_NE(connected.shards[0][1].description, nullptr);
  shards_.Stop(0, 1);
  EXPECT_EQ(Code(), absl::StatusCode::kUnavailable);
}

TEST_F(ShardHandshakeTest, ShardsInTheWrongPlaceAreRefused) {
  std::swap(endpoints_.replicas[0], endpoints_.replicas[1]);
  EXPECT_EQ(Code(), absl::StatusCode::kFailedPrecondition);
  endpoints_.replicas.pop_back();
  EXPECT_EQ(Code(), absl::StatusCode::kFailedPrecondition);
  endpoints_.replicas.clear();
  EXPECT_EQ(Code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ShardHandshakeTest, ReplicasMustAgreeOnDigestsThatNobodyExpected) {
  const RandomModel other(2);
  LoopbackShards other_shards(other, 2, 1);
  for (ManifestTable& table : endpoints_.expected.tables) {
    table.digest.clear();
  }
  endpoints_.replicas[1][1] = other_shards.Addresses()[1][0];
  EXPECT_EQ(Code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tessera::engram_store
