// Writes a table, or one shard of it, as a table file: packed already, or straight from
// the tensors of a checkpoint.
#ifndef TESSERA_ENGRAM_STORE_TABLE_TABLE_WRITER_H_
#define TESSERA_ENGRAM_STORE_TABLE_TABLE_WRITER_H_

#include <string>

#include "absl/status/status.h"

#include "engram_store/table/engram_table.h"

namespace tessera::engram_store {

// Writes `path` anew: first under a temporary name beside it, synced, then renamed, so
// that a reader never sees half a file. kInvalidArgument when the digest is not SHA-256
// in hex, kResourceExhausted when the disk is full, kUnavailable for other errors of the
// file system.
absl::Status WriteTableFile(const EngramTable& table, const std::string& path,
                            int num_threads);

// Packs `shard` of the tensors into a file, a block at a time, and so in no more memory
// than a block or two per thread. `digest` is that of the whole table (DigestTable).
// Errors as above, and those of EngramTable::Pack.
absl::Status PackTableFile(const TableLayout& layout, const TableTensors& tensors,
                           ShardIndex shard, const std::string& digest,
                           const std::string& path, int num_threads);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_TABLE_WRITER_H_
