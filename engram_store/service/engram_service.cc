#include "engram_store/service/engram_service.h"

#include <utility>
#include <vector>

#include "grpcpp/server_context.h"
#include <openssl/crypto.h>

#include "engram_store/table/crc32c.h"
#include "engram_store/table/manifest_convert.h"
#include "engram_store/table/sha256.h"
#include "proto/engram.grpc.pb.h"
#include "proto/status_convert.h"

namespace tessera::engram_store {
namespace {

constexpr std::string_view kBearer = "Bearer ";

Sha256Digest DigestOf(std::string_view text) {
  return Sha256::Of(std::as_bytes(std::span(text)));
}

class EngramService final : public engram::v1::EngramShardService::CallbackService {
 public:
  EngramService(std::shared_ptr<const EngramShard> shard, std::string_view auth_token)
      : shard_(std::move(shard)),
        needs_token_(!auth_token.empty()),
        token_digest_(DigestOf(auth_token)) {}

  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const engram::v1::DescribeRequest*,
                                     engram::v1::DescribeResponse* response) override {
    return Finish(context, [&] {
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
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* Lookup(grpc::CallbackServerContext* context,
                                   const engram::v1::LookupRequest* request,
                                   engram::v1::LookupResponse* response) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    if (!IsAuthorized(*context)) {
      reactor->Finish(Unauthenticated());
      return reactor;
    }
    std::vector<uint32_t> row_ids;
    const absl::Status status = RowIdsFromBytes(request->row_ids(), &row_ids);
    if (!status.ok()) {
      reactor->Finish(proto::ToGrpcStatus(status));
      return reactor;
    }
    // The ids are only read within the call; the response lives until Finish.
    shard_->StartLookup(
        request->shard_id(), request->table(), row_ids, response->mutable_rows(),
        [reactor, response](const absl::Status& outcome) {
          response->set_crc32c(Crc32c(std::as_bytes(std::span(response->rows()))));
          reactor->Finish(proto::ToGrpcStatus(outcome));
        });
    return reactor;
  }

  grpc::ServerUnaryReactor* Health(grpc::CallbackServerContext* context,
                                   const engram::v1::HealthRequest*,
                                   engram::v1::HealthResponse* response) override {
    return Finish(context, [&] {
      const EngramShardStats stats = shard_->stats();
      response->set_serving(true);
      response->set_lookups(stats.lookups);
      response->set_rows(stats.rows);
      if (shard_->disk() != nullptr) {
        const DiskRowsStats disk = shard_->disk()->stats();
        response->set_cache_hits(disk.hits);
        response->set_cache_misses(disk.misses);
        response->set_cache_evictions(disk.evictions);
        response->set_disk_reads(disk.reads);
        response->set_disk_read_bytes(disk.read_bytes);
        response->set_failed_reads(disk.failed_reads);
      }
      return absl::OkStatus();
    });
  }

 private:
  static grpc::Status Unauthenticated() {
    return {grpc::StatusCode::UNAUTHENTICATED, "the call carries no valid engram token"};
  }

  // Calls that are answered at once: without the token nothing of `work` runs.
  template <typename Work>
  grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context,
                                   const Work& work) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (!IsAuthorized(*context)) {
      reactor->Finish(Unauthenticated());
    } else {
      reactor->Finish(proto::ToGrpcStatus(work()));
    }
    return reactor;
  }

  bool IsAuthorized(const grpc::CallbackServerContext& context) const {
    if (!needs_token_) {
      return true;
    }
    const auto found = context.client_metadata().find("authorization");
    if (found == context.client_metadata().end()) {
      return false;
    }
    std::string_view value(found->second.data(), found->second.size());
    if (!value.starts_with(kBearer)) {
      return false;
    }
    // Digests have equal lengths, so the time tells nothing about the token.
    const Sha256Digest digest = DigestOf(value.substr(kBearer.size()));
    return CRYPTO_memcmp(digest.data(), token_digest_.data(), digest.size()) == 0;
  }

  const std::shared_ptr<const EngramShard> shard_;
  const bool needs_token_;
  const Sha256Digest token_digest_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeEngramService(std::shared_ptr<const EngramShard> shard,
                                                 std::string_view auth_token) {
  return std::make_unique<EngramService>(std::move(shard), auth_token);
}

}  // namespace tessera::engram_store
