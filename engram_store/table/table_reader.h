// Opens a table file: mapped, and every block verified before the first row is served.
#ifndef TESSERA_ENGRAM_STORE_TABLE_TABLE_READER_H_
#define TESSERA_ENGRAM_STORE_TABLE_TABLE_READER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "engram_store/table/engram_table.h"

namespace tessera::engram_store {

// The rows stay in the page cache, mapped read-only; the file must not change while the
// table lives. kNotFound; kDataLoss for a header or a block that is not what it says,
// with the file and the block; kInvalidArgument for anything but a regular file. Reads
// the whole file on `num_threads` threads.
absl::StatusOr<std::unique_ptr<EngramTable>> OpenTableFile(const std::string& path,
                                                           int num_threads);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_TABLE_READER_H_
