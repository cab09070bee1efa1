// From a checkpoint to what the memory service needs: the hash, the manifest and packed
// tables. A table is `….engram.embed.weight` of its layer, with `.scale` where it is F8;
// where the token map comes from is token_map.h.
#ifndef TESSERA_ENGRAM_STORE_TABLE_CHECKPOINT_TABLES_H_
#define TESSERA_ENGRAM_STORE_TABLE_CHECKPOINT_TABLES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engram_store/hashing/engram_hash.h"
#include "engram_store/table/engram_manifest.h"
#include "engram_store/table/engram_table.h"
#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"

namespace tessera::engram_store {

// The hash of the token map of the checkpoint in `directory`; the config must have an
// Engram. Errors of LoadTokenMap and EngramHash::Create.
absl::StatusOr<EngramHash> LoadEngramHash(const model::ModelConfig& config,
                                          const model::Checkpoint& checkpoint,
                                          const std::string& directory);

// The manifest without digests: what a worker expects of shards whose rows it has not
// read. Only the dtype of the tables is looked at. kNotFound, and kDataLoss for tables of
// different formats.
absl::StatusOr<EngramManifest> LoadExpectedManifest(const model::ModelConfig& config,
                                                    const EngramHash& hash,
                                                    const model::Checkpoint& checkpoint);

// The tensors of one table of the manifest, in place. kNotFound, kDataLoss where dtype or
// shape differ.
absl::StatusOr<TableTensors> FindTableTensors(const model::ModelConfig& config,
                                              const TableLayout& layout,
                                              const model::Checkpoint& checkpoint);

struct LoadedTables {
  EngramManifest manifest;  // with digests
  std::vector<std::unique_ptr<EngramTable>> tables;
};

// Packs one shard of every layer's table; `options.digest` is not used. It reads all
// rows, to know the digests. For an EngramShard set shared_memory and prefix_bytes =
// kSegmentHeaderBytes. Errors of the calls above and of EngramTable::Pack.
absl::StatusOr<LoadedTables> LoadEngramTables(const model::ModelConfig& config,
                                              const EngramHash& hash,
                                              const model::Checkpoint& checkpoint,
                                              const PackOptions& options);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_CHECKPOINT_TABLES_H_
