#include "engram_store/table/shared_segment.h"

#include <cstring>
#include <utility>

#include <sys/random.h>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::engram_store {
namespace {

constexpr std::array<char, 8> kMagic = {'T', 'S', 'R', 'E', 'N', 'G', 'S', '1'};

struct SegmentHeader {
  std::array<char, 8> magic{};
  SegmentNonce nonce{};
  int64_t layer_id = 0;
  uint64_t num_rows = 0;
  uint64_t row_bytes = 0;
  uint32_t shard = 0;
  uint32_t num_shards = 0;
  uint64_t zero = 0;
  std::array<char, 64> digest{};
};
static_assert(sizeof(SegmentHeader) == 128);

SegmentHeader MakeHeader(const EngramTable& table, const SegmentNonce& nonce) {
  SegmentHeader header;
  header.magic = kMagic;
  header.nonce = nonce;
  header.layer_id = table.info().layer_id;
  header.num_rows = table.num_local_rows();
  header.row_bytes = static_cast<uint64_t>(table.info().row_bytes);
  header.shard = table.shard().shard;
  header.num_shards = table.shard().num_shards;
  table.info().digest.copy(header.digest.data(), header.digest.size());
  return header;
}

}  // namespace

absl::StatusOr<SegmentNonce> RandomSegmentNonce() {
  SegmentNonce nonce;
  // Below 256 bytes getrandom is never cut short.
  if (getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
    return InternalF("no random bytes from the kernel");
  }
  return nonce;
}

absl::StatusOr<std::unique_ptr<EngramTable>> ShareTable(
    std::unique_ptr<EngramTable> table, const SegmentNonce& nonce) {
  const SegmentHeader header = MakeHeader(*table, nonce);
  const bool in_place =
      table->memory()->file() >= 0 &&
      table->rows().data() == table->memory()->bytes().data() + kSegmentHeaderBytes;
  if (!in_place) {
    TESSERA_ASSIGN_OR_RETURN(
        std::unique_ptr<RowMemory> memory,
        RowMemory::AllocateShared(kSegmentHeaderBytes + table->rows().size()));
    std::memcpy(memory->mutable_bytes().data() + kSegmentHeaderBytes,
                table->rows().data(), table->rows().size());
    TESSERA_ASSIGN_OR_RETURN(
        table, EngramTable::Wrap(table->layout(), table->shard(), table->info().digest,
                                 std::move(memory), kSegmentHeaderBytes));
  }
  std::memcpy(table->memory()->mutable_bytes().data(), &header, sizeof(header));
  TESSERA_RETURN_IF_ERROR(table->memory()->Seal());
  return table;
}

absl::StatusOr<std::unique_ptr<EngramTable>> MapSharedTable(const SharedSegment& segment,
                                                            const TableLayout& layout,
                                                            const std::string& digest) {
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<RowMemory> memory,
                           RowMemory::MapShared(segment.process, segment.file));
  if (memory->bytes().size() < kSegmentHeaderBytes) {
    return DataLossF("engram segment of {} bytes has no header", memory->bytes().size());
  }
  SegmentHeader found;
  std::memcpy(&found, memory->bytes().data(), sizeof(found));
  const size_t size = memory->bytes().size();
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<EngramTable> table,
                           EngramTable::Wrap(layout, segment.shard, digest,
                                             std::move(memory), kSegmentHeaderBytes));
  const SegmentHeader expected = MakeHeader(*table, segment.nonce);
  // The nonce also tells a process id of another container from the shard's.
  if (std::memcmp(&found, &expected, sizeof(found)) != 0 ||
      size != kSegmentHeaderBytes + table->rows().size()) {
    return DataLossF(
        "engram segment of process {} is not that of layer {}, shard {} of {}",
        segment.process, layout.layer_id, segment.shard.shard, segment.shard.num_shards);
  }
  return table;
}

}  // namespace tessera::engram_store
