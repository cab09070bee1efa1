// From a checkpoint to what the memory service needs: the hash, the manifest and packed
// tables. The names and shapes of the tensors are those of the V4-MLA family:
// `engram.compressed_ids` and, per layer, `model.layers.I.engram.embed.weight` with
// `.scale` where it is F8.
#ifndef TESSERA_ENGRAM_STORE_TABLE_CHECKPOINT_TABLES_H_
#define TESSERA_ENGRAM_STORE_TABLE_CHECKPOINT_TABLES_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "engram_store/hashing/engram_hash.h"
#include "engram_store/table/engram_manifest.h"
#include "engram_store/table/engram_table.h"
#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"

namespace tessera::engram_store {

// The hash of the checkpoint's token map. kNotFound or kDataLoss for the tensor, else as
// EngramHash::Create.
absl::StatusOr<EngramHash> LoadEngramHash(const model::EngramConfig& config,
                                          const model::Checkpoint& checkpoint);

// The manifest without digests: what a worker expects of shards whose rows it has not
// read. Only the dtype of the tables is looked at. kNotFound, and kDataLoss for tables of
// different formats.
absl::StatusOr<EngramManifest> LoadExpectedManifest(const model::EngramConfig& config,
                                                    const EngramHash& hash,
                                                    const model::Checkpoint& checkpoint);

struct LoadedTables {
  EngramManifest manifest;  // with digests
  std::vector<std::unique_ptr<EngramTable>> tables;
};

// Packs one shard of every layer's table; `options.digest` is not used. It reads all
// rows, to know the digests. For an EngramShard set shared_memory and prefix_bytes =
// kSegmentHeaderBytes. Errors of the calls above and of EngramTable::Pack.
absl::StatusOr<LoadedTables> LoadEngramTables(const model::EngramConfig& config,
                                              const EngramHash& hash,
                                              const model::Checkpoint& checkpoint,
                                              const PackOptions& options);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_CHECKPOINT_TABLES_H_
