#include "engram_store/service/engram_server.h"

#include "gtest/gtest.h"
#include <unistd.h>

#include "common/status.h"
#include "engram_store/client/shard_client.h"
#include "engram_store/service/loopback_shards.h"

namespace tessera::engram_store {
namespace {

TEST(EngramServer, RefusesAddressesBeyondLoopbackWithoutLeave) {
  const RandomModel model(1);
  for (const char* address : {"0.0.0.0:0", "[::]:0", "10.0.0.1:0", "example:0",
                              "127.example.org:0", "127.0.0.1"}) {
    EngramServerOptions options;
    options.address = address;
    EXPECT_EQ(
        EngramServer::Create(options, Clock::Real(), model.Shard({})).status().code(),
        absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST(EngramServer, ListensOnASocketFile) {
  const RandomModel model(1);
  EngramServerOptions options;
  options.address =
      fmt::format("unix:{}engram_server_test.{}", ::testing::TempDir(), ::getpid());
  const auto server =
      EngramServer::Create(options, Clock::Real(), model.Shard({})).value();
  EXPECT_EQ(server->address(), options.address);
  const auto client = ShardClient::Create(server->address(), "", uint64_t{1} << 20);
  EXPECT_TRUE(client->CheckHealth(absl::Now() + absl::Seconds(20)).ok());
}

TEST(EngramServer, ATakenPortIsUnavailable) {
  const RandomModel model(1);
  const auto first = EngramServer::Create({}, Clock::Real(), model.Shard({})).value();
  EXPECT_GT(first->port(), 0);
  EngramServerOptions options;
  options.address = first->address();
  EXPECT_EQ(EngramServer::Create(options, Clock::Real(), model.Shard({})).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(EngramServer, ShutdownIsIdempotent) {
  const RandomModel model(1);
  const auto server = EngramServer::Create({}, Clock::Real(), model.Shard({})).value();
  server->Shutdown(absl::ZeroDuration());
  server->Shutdown(absl::ZeroDuration());
}

}  // namespace
}  // namespace tessera::engram_store
