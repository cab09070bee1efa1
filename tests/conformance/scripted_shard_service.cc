#include "tests/conformance/scripted_shard_service.h"

#include <utility>
#include <vector>

#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/server_context.h"

#include "common/check.h"
#include "common/mutex.h"
#include "common/status.h"
#include "engram_store/table/crc32c.h"
#include "engram_store/table/manifest_convert.h"
#include "proto/engram.grpc.pb.h"
#include "proto/status_convert.h"

namespace tessera::engram_store {
namespace {

class ScriptedService final : public engram::v1::EngramShardService::CallbackService {
 public:
  explicit ScriptedService(std::shared_ptr<const EngramShard> shard)
      : shard_(std::move(shard)) {}

  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const engram::v1::DescribeRequest*,
                                     engram::v1::DescribeResponse* response) override {
    ManifestToProto(shard_->manifest(), response->mutable_manifest());
    response->set_shard(shard_->shard().shard);
    response->set_num_shards(shard_->shard().num_shards);
    response->set_max_rows_per_request(shard_->max_rows_per_request());
    for (const SharedSegment& segment : shard_->segments()) {
      response->set_process_id(segment.process);
      engram::v1::Segment* out = response->add_segments();
      out->set_file(segment.file);
      out->set_nonce(segment.nonce.data(), segment.nonce.size());
    }
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerUnaryReactor* Lookup(grpc::CallbackServerContext* context,
                                   const engram::v1::LookupRequest* request,
                                   engram::v1::LookupResponse* response) override {
    const HeldLookup lookup = {context->DefaultReactor(), request, response};
    bool corrupt = false;
    {
      MutexLock lock(&mutex_);
      if (holding_) {
        held_.push_back(lookup);
        return lookup.reactor;
      }
      corrupt = corrupting_;
    }
    Answer(lookup, corrupt);
    return lookup.reactor;
  }

  void Hold() {
    MutexLock lock(&mutex_);
    holding_ = true;
  }

  void AwaitHeld(size_t count) {
    MutexLock lock(&mutex_);
    const auto enough = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return held_.size() >= count;
    };
    mutex_.Await(Condition(&enough));
  }

  void Release() {
    std::vector<HeldLookup> held;
    bool corrupt = false;
    {
      MutexLock lock(&mutex_);
      holding_ = false;
      held.swap(held_);
      corrupt = corrupting_;
    }
    for (const HeldLookup& lookup : held) {
      Answer(lookup, corrupt);
    }
  }

  void Corrupt() {
    MutexLock lock(&mutex_);
    corrupting_ = true;
  }

 private:
  // What it points to lives until the reactor is finished, though the client be gone.
  struct HeldLookup {
    grpc::ServerUnaryReactor* reactor = nullptr;
    const engram::v1::LookupRequest* request = nullptr;
    engram::v1::LookupResponse* response = nullptr;
  };

  void Answer(const HeldLookup& lookup, bool corrupt) const {
    std::vector<uint32_t> row_ids;
    absl::Status status = RowIdsFromBytes(lookup.request->row_ids(), &row_ids);
    if (status.ok()) {
      status = shard_->Lookup(lookup.request->shard_id(), lookup.request->table(),
                              row_ids, lookup.response->mutable_rows());
    }
    std::string* rows = lookup.response->mutable_rows();
    lookup.response->set_crc32c(Crc32c(std::as_bytes(std::span(*rows))));
    if (corrupt && !rows->empty()) {
      rows->back() = static_cast<char>(rows->back() ^ 1);
    }
    lookup.reactor->Finish(proto::ToGrpcStatus(status));
  }

  const std::shared_ptr<const EngramShard> shard_;
  Mutex mutex_;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  bool corrupting_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<HeldLookup> held_ ABSL_GUARDED_BY(mutex_);
};

class GrpcScriptedShard final : public ScriptedShard {
 public:
  explicit GrpcScriptedShard(std::shared_ptr<const EngramShard> shard)
      : service_(std::move(shard)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    TESSERA_CHECK(server_ != nullptr && port_ != 0);
  }
  ~GrpcScriptedShard() override {
    service_.Release();
    server_->Shutdown();
    server_->Wait();
  }

  std::string address() const override { return fmt::format("127.0.0.1:{}", port_); }
  void Hold() override { service_.Hold(); }
  void AwaitHeld(size_t count) override { service_.AwaitHeld(count); }
  void Release() override { service_.Release(); }
  void Corrupt() override { service_.Corrupt(); }

 private:
  ScriptedService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

std::unique_ptr<ScriptedShard> ScriptedShard::Create(
    std::shared_ptr<const EngramShard> shard) {
  return std::make_unique<GrpcScriptedShard>(std::move(shard));
}

}  // namespace tessera::engram_store
