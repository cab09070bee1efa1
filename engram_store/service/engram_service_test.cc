#include "engram_store/service/engram_service.h"

#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"

#include "engram_store/service/loopback_shards.h"
#include "proto/engram.grpc.pb.h"

namespace tessera::engram_store {
namespace {

class EngramServiceTest : public ::testing::Test {
 protected:
  EngramServiceTest()
      : model_(1),
        shards_(model_, 1, 1, "secret", {.max_rows_per_request = 10}),
        stub_(engram::v1::EngramShardService::NewStub(grpc::CreateChannel(
            shards_.server(0).address(), grpc::InsecureChannelCredentials()))) {}

  grpc::StatusCode Lookup(const engram::v1::LookupRequest& request,
                          const std::string& authorization) {
    grpc::ClientContext context;
    if (!authorization.empty()) {
      context.AddMetadata("authorization", authorization);
    }
    engram::v1::LookupResponse response;
    return stub_->Lookup(&context, request, &response).error_code();
  }

  engram::v1::LookupRequest Request() {
    engram::v1::LookupRequest request;
    request.set_shard_id(shards_.server(0).shard().shard_id());
    request.set_row_ids(std::string(8, '\0'));
    return request;
  }

  RandomModel model_;
  LoopbackShards shards_;
  std::unique_ptr<engram::v1::EngramShardService::Stub> stub_;
};

TEST_F(EngramServiceTest, OnlyTheTokenOpensIt) {
  EXPECT_EQ(Lookup(Request(), "Bearer secret"), grpc::StatusCode::OK);
  for (const char* wrong : {"", "secret", "Bearer secre", "Bearer secrets", "Bearer "}) {
    EXPECT_EQ(Lookup(Request(), wrong), grpc::StatusCode::UNAUTHENTICATED) << wrong;
  }
  grpc::ClientContext describe;
  engram::v1::DescribeResponse description;
  EXPECT_EQ(stub_->Describe(&describe, {}, &description).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_FALSE(description.has_manifest());
  grpc::ClientContext health;
  engram::v1::HealthResponse serving;
  EXPECT_EQ(stub_->Health(&health, {}, &serving).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(EngramServiceTest, HostileRequestsAreRefused) {
  const std::string token = "Bearer secret";
  engram::v1::LookupRequest request = Request();
  request.set_row_ids("abc");
  EXPECT_EQ(Lookup(request, token), grpc::StatusCode::INVALID_ARGUMENT);
  request.set_row_ids(std::string(4, '\xFF'));
  EXPECT_EQ(Lookup(request, token), grpc::StatusCode::INVALID_ARGUMENT);
  request.set_row_ids(std::string(44, '\0'));
  EXPECT_EQ(Lookup(request, token), grpc::StatusCode::RESOURCE_EXHAUSTED);
  request.set_row_ids(std::string(1 << 20, '\0'));
  EXPECT_EQ(Lookup(request, token), grpc::StatusCode::RESOURCE_EXHAUSTED);
  request = Request();
  request.set_table(7);
  EXPECT_EQ(Lookup(request, token), grpc::StatusCode::INVALID_ARGUMENT);
  request = Request();
  request.set_shard_id("");
  EXPECT_EQ(Lookup(request, token), grpc::StatusCode::FAILED_PRECONDITION);
}

}  // namespace
}  // namespace tessera::engram_store
