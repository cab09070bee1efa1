// Writes a packed table, or one shard of it, as a table file.
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

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_TABLE_WRITER_H_
