#include "engram_store/client/shard_client.h"

#include "gtest/gtest.h"

#include "common/mutex.h"
#include "engram_store/service/loopback_shards.h"

namespace tessera::engram_store {
namespace {

constexpr uint64_t kResponseBytes = uint64_t{1} << 20;

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

TEST(ShardClient, DescribesTheShardAndItsHealth) {
  const RandomModel model(1);
  LoopbackShards shards(model, 2, 1, "secret");
  const auto client =
      ShardClient::Create(shards.server(1).address(), "secret", kResponseBytes);
  const ShardDescription description = client->Describe(Soon()).value();
  EXPECT_EQ(description.manifest, model.manifest());
  EXPECT_EQ(description.shard, (ShardIndex{.shard = 1, .num_shards = 2}));
  EXPECT_EQ(description.segments.size(), 2u);
  EXPECT_TRUE(client->CheckHealth(Soon()).ok());
}

TEST(ShardClient, AWrongTokenIsUnauthenticated) {
  const RandomModel model(1);
  LoopbackShards shards(model, 1, 1, "secret");
  const auto client =
      ShardClient::Create(shards.server(0).address(), "guess", kResponseBytes);
  EXPECT_EQ(client->Describe(Soon()).status().code(), absl::StatusCode::kUnauthenticated);
}

TEST(ShardClient, ACancelledLookupEndsWithoutRows) {
  const RandomModel model(1);
  LoopbackShards shards(model, 1, 1);
  const auto client = ShardClient::Create(shards.server(0).address(), "", kResponseBytes);
  const auto call =
      client->NewLookup({.shard_id = "x", .local_rows = {}, .deadline = Soon()});
  call->Cancel();
  Notification ended;
  absl::Status status;
  call->Start([&](const absl::Status& seen, std::span<const std::byte> rows) {
    status = seen;
    EXPECT_TRUE(rows.empty());
    ended.Notify();
  });
  ended.WaitForNotification();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace tessera::engram_store
