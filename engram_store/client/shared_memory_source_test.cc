#include "engram_store/client/shared_memory_source.h"

#include "gtest/gtest.h"

#include "engram_store/service/loopback_shards.h"

namespace tessera::engram_store {
namespace {

TEST(SharedMemorySource, KeepsServingWhenItsShardsAreGone) {
  const RandomModel model(1);
  auto shards = std::make_unique<LoopbackShards>(model, 2, 1);
  ShardEndpoints endpoints;
  endpoints.replicas = shards->Addresses();
  endpoints.expected = model.manifest();
  const auto source = CreateSharedMemorySource(endpoints, 4, Clock::Real()).value();
  shards.reset();
  const std::vector<uint32_t> ids = {239};
  std::vector<std::byte> out(33);
  EXPECT_TRUE(source->Wait(source->Issue(0, ids, out), absl::InfiniteFuture()).ok());
  EXPECT_EQ(out, model.tensors(0).PackedRow(239));
}

}  // namespace
}  // namespace tessera::engram_store
