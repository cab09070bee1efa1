#include "engram_store/table/table_reader.h"

#include <algorithm>
#include <span>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/parallel.h"
#include "engram_store/table/sha256.h"
#include "engram_store/table/table_file_header.h"

namespace tessera::engram_store {

absl::StatusOr<std::unique_ptr<EngramTable>> OpenTableFile(const std::string& path,
                                                           int num_threads) {
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<RowMemory> memory, RowMemory::MapFile(path));
  absl::StatusOr<TableFileHeader> header =
      DecodeTableFileHeader(memory->bytes(), memory->bytes().size());
  if (!header.ok()) {
    return WithContext(header.status(), path);
  }
  const std::span<const std::byte> rows = memory->bytes().subspan(header->header_bytes);
  TESSERA_RETURN_IF_ERROR(
      ParallelFor(header->blocks.size(), num_threads, [&](size_t i) -> absl::Status {
        const uint64_t begin = i * kFileBlockBytes;
        const auto block =
            rows.subspan(begin, std::min(kFileBlockBytes, rows.size() - begin));
        if (Sha256::Of(block) != header->blocks[i]) {
          return DataLossF("{}: block {} of {} has another checksum than the header says",
                           path, i, header->blocks.size());
        }
        return absl::OkStatus();
      }));
  return EngramTable::Wrap(header->layout, header->shard, header->digest,
                           std::move(memory), header->header_bytes);
}

}  // namespace tessera::engram_store
