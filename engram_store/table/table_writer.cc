// An Engram table file, version 1, little-endian (docs/formats/engram_table.md):
//
//   0    8  magic "TSRENGT1"            48   4  shard i
//   8    4  version 1                   52   4  number of shards S
//   12   4  header bytes H (pages)      56   4  block bytes, 2 MiB
//   16   8  layer id                    60   4  number of blocks B
//   24   8  rows in this file R         64  32  SHA-256 of the whole table (DigestTable)
//   32   4  width W                     96  32  SHA-256 of the header, these 32 bytes
//   zero 36   4  format: 1 F8+E8M0, 2 BF16   128  4C rows of each column of the whole
//   table 40   4  row bytes                   ...  32B SHA-256 of each block of rows 44
//   4  number of columns C         ...     zero up to H H    R * row bytes: rows of range
//   i of column 0, of column 1, ... (ShardMap)
#include "engram_store/table/table_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <span>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/parallel.h"
#include "engram_store/table/row_packer.h"
#include "engram_store/table/sha256.h"
#include "engram_store/table/table_file_header.h"

namespace tessera::engram_store {
namespace {

absl::Status FileError(const std::string& path) {
  const absl::StatusCode code = errno == ENOSPC || errno == EDQUOT
                                    ? absl::StatusCode::kResourceExhausted
                                    : absl::StatusCode::kUnavailable;
  return StatusF(code, "{} cannot be written: {}", path,
                 std::generic_category().message(errno));
}

bool WriteAll(int file, std::span<const std::byte> bytes, uint64_t offset) {
  // The kernel takes at most 2 GiB at once.
  constexpr size_t kChunk = size_t{256} << 20;
  while (!bytes.empty()) {
    const ssize_t written = pwrite(file, bytes.data(), std::min(bytes.size(), kChunk),
                                   static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      return false;
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return true;
}

// The rows of one block, [begin, begin + bytes) of the file's rows; thread-safe. It may
// use the scratch, which is the caller's until it has written what is returned.
using BlockOf = std::function<absl::StatusOr<std::span<const std::byte>>(
    uint64_t begin, uint64_t bytes, std::vector<std::byte>* scratch)>;

// All but the name of the file.
absl::Status WriteRows(int file, const std::string& path, const BlockOf& block_of,
                       int num_threads, TableFileHeader* header) {
  const uint64_t row_data_bytes = header->row_data_bytes;
  header->blocks.resize((row_data_bytes + kFileBlockBytes - 1) / kFileBlockBytes);
  EncodeTableFileHeader(header);  // Says how long it is.
  TESSERA_RETURN_IF_ERROR(
      ParallelFor(header->blocks.size(), num_threads, [&](size_t i) -> absl::Status {
        const uint64_t begin = i * kFileBlockBytes;
        std::vector<std::byte> scratch;
        TESSERA_ASSIGN_OR_RETURN(
            const std::span<const std::byte> block,
            block_of(begin, std::min(kFileBlockBytes, row_data_bytes - begin), &scratch));
        header->blocks[i] = Sha256::Of(block);
        return WriteAll(file, block, header->header_bytes + begin) ? absl::OkStatus()
                                                                   : FileError(path);
      }));
  const std::vector<std::byte> head = EncodeTableFileHeader(header);
  return WriteAll(file, head, 0) && fsync(file) == 0 ? absl::OkStatus() : FileError(path);
}

absl::Status WriteFile(const std::string& path, const BlockOf& block_of, int num_threads,
                       TableFileHeader* header) {
  Sha256Digest unused;
  if (!FromHex(header->digest, &unused)) {
    return InvalidArgumentF("engram table digest {} is no SHA-256", header->digest);
  }
  const std::string temporary = path + ".partial";
  const int file =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) {
    return FileError(temporary);
  }
  absl::Status status = WriteRows(file, temporary, block_of, num_threads, header);
  close(file);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) {
    status = FileError(path);
  }
  if (!status.ok()) {
    unlink(temporary.c_str());
  }
  return status;
}

// Packs local rows [first, first + count) of a shard.
absl::Status PackLocalRows(const RowPacker& packer, const ShardMap& map, uint32_t shard,
                           uint64_t first, uint64_t count, size_t row_bytes,
                           std::byte* destination) {
  for (uint32_t column = 0; column < map.num_columns(); ++column) {
    const RowRange range = map.Range(shard, column);
    const uint64_t begin = std::max<uint64_t>(first, range.local_base);
    const uint64_t end =
        std::min<uint64_t>(first + count, uint64_t{range.local_base} + range.count);
    if (begin < end) {
      TESSERA_RETURN_IF_ERROR(packer.Pack(range.first_row + (begin - range.local_base),
                                          end - begin,
                                          destination + (begin - first) * row_bytes));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteTableFile(const EngramTable& table, const std::string& path,
                            int num_threads) {
  const std::span<const std::byte> rows = table.rows();
  TableFileHeader header;
  header.layout = table.layout();
  header.shard = table.shard();
  header.digest = table.info().digest;
  header.row_data_bytes = rows.size();
  const BlockOf block_of = [rows](uint64_t begin, uint64_t bytes,
                                  std::vector<std::byte>*) {
    return absl::StatusOr<std::span<const std::byte>>(rows.subspan(begin, bytes));
  };
  return WriteFile(path, block_of, num_threads, &header);
}

absl::Status PackTableFile(const TableLayout& layout, const TableTensors& tensors,
                           ShardIndex shard, const std::string& digest,
                           const std::string& path, int num_threads) {
  TESSERA_RETURN_IF_ERROR(CheckLayout(layout));
  TESSERA_ASSIGN_OR_RETURN(const RowPacker packer,
                           RowPacker::Create(layout, tensors.weights, tensors.scales));
  TESSERA_ASSIGN_OR_RETURN(const ShardMap map,
                           ShardMap::Create(layout.column_rows, shard.num_shards));
  if (shard.shard >= shard.num_shards) {
    return InvalidArgumentF("engram shard {} of {}", shard.shard, shard.num_shards);
  }
  const size_t row_bytes = static_cast<size_t>(layout.row_bytes());
  TableFileHeader header;
  header.layout = layout;
  header.shard = shard;
  header.digest = digest;
  header.row_data_bytes = map.num_local_rows(shard.shard) * row_bytes;
  const BlockOf block_of =
      [&](uint64_t begin, uint64_t bytes,
          std::vector<std::byte>* scratch) -> absl::StatusOr<std::span<const std::byte>> {
    // A block begins and ends inside rows.
    const uint64_t first = begin / row_bytes;
    const uint64_t count = (begin + bytes + row_bytes - 1) / row_bytes - first;
    scratch->resize(count * row_bytes);
    TESSERA_RETURN_IF_ERROR(PackLocalRows(packer, map, shard.shard, first, count,
                                          row_bytes, scratch->data()));
    return std::span<const std::byte>(*scratch).subspan(begin - first * row_bytes, bytes);
  };
  return WriteFile(path, block_of, num_threads, &header);
}

}  // namespace tessera::engram_store
