#include "engram_store/client/remote_source.h"

#include "gtest/gtest.h"

#include "engram_store/service/loopback_shards.h"

namespace tessera::engram_store {
namespace {

constexpr size_t kRowBytes = 33;  // of table 0

class RemoteSourceTest : public ::testing::Test {
 protected:
  void Connect(LoopbackShards* shards) {
    RemoteSourceOptions options;
    options.endpoints.replicas = shards->Addresses();
    options.endpoints.expected = model_.manifest();
    options.attempt_timeout = absl::Seconds(20);
    source_ = RemoteSource::Create(options, Clock::Real()).value();
  }

  absl::Status Fetch(const std::vector<uint32_t>& ids) {
    out_.assign(ids.size() * kRowBytes, std::byte{0xAA});
    return source_->Wait(source_->Issue(0, ids, out_), absl::Now() + absl::Seconds(20));
  }

  RandomModel model_{1};
  std::unique_ptr<RemoteSource> source_;
  std::vector<std::byte> out_;
};

TEST_F(RemoteSourceTest, ARepeatedRowTravelsOnce) {
  LoopbackShards shards(model_, 1, 1);
  Connect(&shards);
  ASSERT_TRUE(Fetch(std::vector<uint32_t>(500, 7)).ok());
  EXPECT_EQ(shards.server(0).shard().stats().rows, 1u);
  EXPECT_EQ(source_->stats().lookups, 500u);
}

TEST_F(RemoteSourceTest, RequestsAboveTheShardsLimitAreCut) {
  LoopbackShards shards(model_, 1, 1, "", {.max_rows_per_request = 10});
  Connect(&shards);
  std::vector<uint32_t> ids;
  for (uint32_t id = 0; id < 25; ++id) {
    ids.push_back(id * 9);
  }
  ASSERT_TRUE(Fetch(ids).ok());
  EXPECT_EQ(shards.server(0).shard().stats().lookups, 3u);
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_TRUE(std::equal(out_.begin() + static_cast<ptrdiff_t>(i * kRowBytes),
                           out_.begin() + static_cast<ptrdiff_t>((i + 1) * kRowBytes),
                           model_.tensors(0).PackedRow(ids[i]).begin()));
  }
}

TEST_F(RemoteSourceTest, AReplicaThatDiedIsLeftForTheNext) {
  LoopbackShards shards(model_, 2, 2);
  Connect(&shards);
  ASSERT_TRUE(Fetch({0, 100, 239}).ok());
  shards.Stop(0, 0);
  shards.Stop(1, 0);
  ASSERT_TRUE(Fetch({0, 100, 239}).ok());
  EXPECT_GE(source_->failovers(), 2u);
  const uint64_t before = source_->failovers();
  ASSERT_TRUE(Fetch({0, 100, 239}).ok());
  EXPECT_EQ(source_->failovers(), before);  // The one that answered is asked first.
}

TEST_F(RemoteSourceTest, AShardRestartedWithOtherRowsIsDataLoss) {
  auto shards = std::make_unique<LoopbackShards>(model_, 1, 1);
  Connect(shards.get());
  EngramServerOptions options;
  options.address = shards->server(0).address();
  shards->Stop(0, 0);
  const RandomModel other(2);
  const auto restarted =
      EngramServer::Create(options, Clock::Real(), other.Shard({})).value();
  EXPECT_EQ(Fetch({5}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(out_, std::vector<std::byte>(kRowBytes, std::byte{0xAA}));
}

TEST_F(RemoteSourceTest, ConnectingAndLeavingOftenIsClean) {
  // The last holder of gRPC's threads going away on one of them aborts: connect and leave
  // often.
  for (int i = 0; i < 100; ++i) {
    LoopbackShards shards(model_, 1, 1);
    Connect(&shards);
    ASSERT_TRUE(Fetch({0, 100, 239}).ok());
    source_.reset();
  }
}

TEST_F(RemoteSourceTest, DestructionEndsWhatIsInFlight) {
  LoopbackShards shards(model_, 2, 1);
  Connect(&shards);
  const std::vector<uint32_t> ids = {0, 100, 239};
  std::vector<std::byte> out(ids.size() * kRowBytes);
  for (int i = 0; i < 10; ++i) {
    (void)source_->Issue(0, ids, out);
  }
  source_.reset();
}

}  // namespace
}  // namespace tessera::engram_store
