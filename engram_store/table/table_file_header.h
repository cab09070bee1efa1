// The header of a table file: who the rows are, and a checksum of every block of them.
// The layout is drawn in table_writer.cc and specified in docs/formats/engram_table.md.
#ifndef TESSERA_ENGRAM_STORE_TABLE_TABLE_FILE_HEADER_H_
#define TESSERA_ENGRAM_STORE_TABLE_TABLE_FILE_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engram_store/table/engram_table.h"
#include "engram_store/table/sha256.h"
#include "engram_store/table/table_info.h"

namespace tessera::engram_store {

// Rows are checked in blocks of this size, the last one shorter.
inline constexpr uint64_t kFileBlockBytes = uint64_t{2} << 20;
// The header and the rows start on page boundaries.
inline constexpr uint64_t kFilePageBytes = 4096;

struct TableFileHeader {
  TableLayout layout;
  ShardIndex shard;
  std::string digest;                // of the whole table, hex
  std::vector<Sha256Digest> blocks;  // of this file's rows
  uint64_t header_bytes = 0;         // where the rows start
  uint64_t row_data_bytes = 0;       // of this file
};

// The header's bytes, padded to whole pages; sets header->header_bytes. The digest must
// be 64 hex digits (checked).
std::vector<std::byte> EncodeTableFileHeader(TableFileHeader* header);

// How many bytes the header of a file of `file_bytes` has, from its first page (or all of
// a smaller file). kDataLoss: not a table file, another version, sizes that the file
// cannot have.
absl::StatusOr<uint64_t> TableFileHeaderBytes(std::span<const std::byte> first_page,
                                              uint64_t file_bytes);

// Reads the header of a file of `file_bytes`, of which `head` are the first bytes, the
// header's at least. Every size is checked against the file before it is used. kDataLoss:
// as above, or a header that contradicts itself, its own checksum or the file's size.
absl::StatusOr<TableFileHeader> DecodeTableFileHeader(std::span<const std::byte> head,
                                                      uint64_t file_bytes);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_TABLE_FILE_HEADER_H_
