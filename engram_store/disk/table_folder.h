// A folder of table files made from a checkpoint: where the rows of a shard are served
// from when they shall not lie in memory. A file is packed once and used again as long as
// it holds the rows of the checkpoint; one that does not is written anew.
#ifndef TESSERA_ENGRAM_STORE_DISK_TABLE_FOLDER_H_
#define TESSERA_ENGRAM_STORE_DISK_TABLE_FOLDER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engram_store/disk/disk_table.h"
#include "engram_store/hashing/engram_hash.h"
#include "engram_store/table/engram_manifest.h"
#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"

namespace tessera::engram_store {

struct TableFolderOptions {
  std::string folder;  // made if it is not there
  ShardIndex shard;
  int num_threads = 1;
};

struct OpenedTables {
  EngramManifest manifest;                         // with digests
  std::vector<std::unique_ptr<DiskTable>> tables;  // one per Engram layer, in order
};

// Reads all rows of the checkpoint, to know the digests, and all of the files; their
// pages do not stay in memory. Processes that share the folder take turns. kUnavailable,
// kResourceExhausted: the folder cannot be written, the disk is full; errors of
// LoadExpectedManifest, DigestTable, PackTableFile and DiskTable::Open.
absl::StatusOr<OpenedTables> OpenTableFolder(const model::ModelConfig& config,
                                             const EngramHash& hash,
                                             const model::Checkpoint& checkpoint,
                                             const TableFolderOptions& options);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_DISK_TABLE_FOLDER_H_
