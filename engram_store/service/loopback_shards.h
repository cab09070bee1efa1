// LoopbackShards: all shards of a made-up model on loopback, with replicas that can be
// stopped, for tests and benchmarks. Not used by the product.
#ifndef TESSERA_ENGRAM_STORE_SERVICE_LOOPBACK_SHARDS_H_
#define TESSERA_ENGRAM_STORE_SERVICE_LOOPBACK_SHARDS_H_

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "fmt/format.h"
#include <unistd.h>

#include "common/status_macros.h"
#include "engram_store/disk/disk_rows.h"
#include "engram_store/service/engram_server.h"
#include "engram_store/table/random_tensors.h"
#include "engram_store/table/table_writer.h"

namespace tessera::engram_store {

// The tables of a model with two Engram layers, one per row format, and their manifest.
class RandomModel {
 public:
  explicit RandomModel(uint32_t seed,
                       std::vector<uint32_t> column_rows = {53, 59, 61, 67}) {
    manifest_ = EngramManifest{.contract = "v41",
                               .max_ngram = 3,
                               .num_heads = 2,
                               .compressed_vocab_size = 100,
                               .pad_token_id = 2,
                               .seed = 0,
                               .tables = {}};
    AddTable({.layer_id = 1,
              .column_rows = column_rows,
              .width = 32,
              .format = model::DType::kF8E4M3},
             seed);
    AddTable({.layer_id = 3,
              .column_rows = std::move(column_rows),
              .width = 64,
              .format = model::DType::kBF16},
             seed + 1);
  }

  const EngramManifest& manifest() const { return manifest_; }
  const RandomTensors& tensors(size_t table) const { return tensors_[table]; }

  std::unique_ptr<EngramTable> Table(size_t table, ShardIndex shard = {}) const {
    const ManifestTable& described = manifest_.tables[table];
    PackOptions options;
    options.shard = shard;
    options.digest = described.digest;
    return EngramTable::Pack(described.layout, tensors_[table].view(), options).value();
  }

  // Rows of every table, in files of a test's folder that are gone when this returns.
  absl::StatusOr<std::shared_ptr<DiskRows>> OnDisk(ShardIndex shard,
                                                   const DiskRowsOptions& options) const {
    std::vector<std::unique_ptr<DiskTable>> tables;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const ManifestTable& table = manifest_.tables[i];
      const std::string path = (std::filesystem::temp_directory_path() /
                                fmt::format("random_model.{}.{}", getpid(), i))
                                   .string();
      TESSERA_RETURN_IF_ERROR(
          PackTableFile(table.layout, tensors_[i].view(), shard, table.digest, path, 1));
      absl::StatusOr<std::unique_ptr<BlockFile>> file = OpenBlockFile(path);
      unlink(path.c_str());
      TESSERA_RETURN_IF_ERROR(file.status());
      TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<DiskTable> opened,
                               DiskTable::Open(*std::move(file), 1));
      tables.push_back(std::move(opened));
    }
    return DiskRows::Create(options, std::move(tables));
  }

  std::shared_ptr<EngramShard> ShardOnDisk(ShardIndex shard,
                                           const EngramShardOptions& options,
                                           const DiskRowsOptions& disk) const {
    return EngramShard::CreateOnDisk(options, manifest_, OnDisk(shard, disk).value())
        .value();
  }

  std::shared_ptr<EngramShard> Shard(ShardIndex shard,
                                     const EngramShardOptions& options = {}) const {
    std::vector<std::unique_ptr<EngramTable>> tables;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      tables.push_back(Table(i, shard));
    }
    return EngramShard::Create(options, manifest_, std::move(tables)).value();
  }

 private:
  void AddTable(const TableLayout& layout, uint32_t seed) {
    tensors_.emplace_back(layout, seed);
    manifest_.tables.push_back(
        {.layout = layout,
         .multipliers = {3, 5, 7},
         .digest = DigestTable(layout, tensors_.back().view(), 1).value()});
  }

  EngramManifest manifest_;
  std::vector<RandomTensors> tensors_;
};

// Servers of every shard of a RandomModel. External synchronisation.
class LoopbackShards {
 public:
  LoopbackShards(const RandomModel& model, uint32_t num_shards, size_t num_replicas,
                 const std::string& auth_token = "",
                 const EngramShardOptions& options = {},
                 const DiskRowsOptions* disk = nullptr) {
    for (uint32_t i = 0; i < num_shards; ++i) {
      const ShardIndex index = {.shard = i, .num_shards = num_shards};
      auto shard = disk == nullptr ? model.Shard(index, options)
                                   : model.ShardOnDisk(index, options, *disk);
      std::vector<std::unique_ptr<EngramServer>>& replicas = servers_.emplace_back();
      for (size_t r = 0; r < num_replicas; ++r) {
        EngramServerOptions server;
        server.auth_token = auth_token;
        replicas.push_back(EngramServer::Create(server, Clock::Real(), shard).value());
      }
    }
  }

  // Of running and stopped servers alike.
  std::vector<std::vector<std::string>> Addresses() const {
    std::vector<std::vector<std::string>> addresses;
    for (const auto& replicas : servers_) {
      std::vector<std::string>& of_shard = addresses.emplace_back();
      for (const auto& server : replicas) {
        of_shard.push_back(server->address());
      }
    }
    return addresses;
  }

  EngramServer& server(uint32_t shard, size_t replica = 0) {
    return *servers_[shard][replica];
  }

  // Cuts its connections at once.
  void Stop(uint32_t shard, size_t replica) {
    servers_[shard][replica]->Shutdown(absl::ZeroDuration());
  }

 private:
  std::vector<std::vector<std::unique_ptr<EngramServer>>> servers_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_SERVICE_LOOPBACK_SHARDS_H_
