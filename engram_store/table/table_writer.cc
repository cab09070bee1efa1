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
#include <span>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/parallel.h"
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

bool WriteAll(int file, std::span<const std::byte> bytes) {
  // The kernel takes at most 2 GiB at once.
  constexpr size_t kChunk = size_t{256} << 20;
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), std::min(bytes.size(), kChunk));
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      return false;
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return true;
}

}  // namespace

absl::Status WriteTableFile(const EngramTable& table, const std::string& path,
                            int num_threads) {
  Sha256Digest unused;
  if (!FromHex(table.info().digest, &unused)) {
    return InvalidArgumentF("engram table digest {} is no SHA-256", table.info().digest);
  }
  const std::span<const std::byte> rows = table.rows();
  TableFileHeader header;
  header.layout = table.layout();
  header.shard = table.shard();
  header.digest = table.info().digest;
  header.row_data_bytes = rows.size();
  header.blocks.resize((rows.size() + kFileBlockBytes - 1) / kFileBlockBytes);
  TESSERA_RETURN_IF_ERROR(ParallelFor(header.blocks.size(), num_threads, [&](size_t i) {
    const uint64_t begin = i * kFileBlockBytes;
    header.blocks[i] =
        Sha256::Of(rows.subspan(begin, std::min(kFileBlockBytes, rows.size() - begin)));
    return absl::OkStatus();
  }));
  const std::vector<std::byte> head = EncodeTableFileHeader(&header);

  const std::string temporary = path + ".partial";
  const int file =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) {
    return FileError(temporary);
  }
  const bool written = WriteAll(file, head) && WriteAll(file, rows) && fsync(file) == 0;
  const absl::Status status = written ? absl::OkStatus() : FileError(temporary);
  close(file);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) {
    return FileError(path);
  }
  if (!status.ok()) {
    unlink(temporary.c_str());
  }
  return status;
}

}  // namespace tessera::engram_store
