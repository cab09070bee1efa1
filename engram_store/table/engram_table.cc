#include "engram_store/table/engram_table.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/parallel.h"
#include "engram_store/table/row_gather.h"
#include "engram_store/table/row_packer.h"
#include "engram_store/table/sha256.h"

namespace tessera::engram_store {
namespace {

// Rows that are packed into scratch and hashed at once: 256 KiB or so, to stay in L2.
constexpr uint64_t kDigestBytes = uint64_t{256} << 10;

absl::StatusOr<Sha256Digest> DigestColumn(const RowPacker& packer, uint64_t first_row,
                                          uint64_t count, size_t row_bytes) {
  const uint64_t step = std::max<uint64_t>(1, kDigestBytes / row_bytes);
  std::vector<std::byte> scratch(std::min(step, count) * row_bytes);
  Sha256 hash;
  for (uint64_t done = 0; done < count; done += step) {
    const uint64_t rows = std::min(step, count - done);
    TESSERA_RETURN_IF_ERROR(packer.Pack(first_row + done, rows, scratch.data()));
    hash.Update(std::span<const std::byte>(scratch).first(rows * row_bytes));
  }
  return hash.Finish();
}

// The table digest from the digests of its columns.
std::string CombineDigests(const TableLayout& layout,
                           const std::vector<Sha256Digest>& columns) {
  Sha256 hash;
  constexpr std::string_view kDomain = "tessera.engram.table.1";
  hash.Update(std::as_bytes(std::span(kDomain)));
  hash.UpdateNumber(static_cast<uint64_t>(layout.layer_id));
  hash.UpdateNumber(static_cast<uint64_t>(layout.width));
  hash.UpdateNumber(layout.format == model::DType::kF8E4M3 ? 1 : 2);
  hash.UpdateNumber(static_cast<uint64_t>(layout.row_bytes()));
  hash.UpdateNumber(columns.size());
  for (size_t column = 0; column < columns.size(); ++column) {
    hash.UpdateNumber(layout.column_rows[column]);
    hash.Update(std::as_bytes(std::span(columns[column])));
  }
  return ToHex(hash.Finish());
}

}  // namespace

absl::StatusOr<std::string> DigestTable(const TableLayout& layout,
                                        const TableTensors& tensors, int num_threads) {
  TESSERA_RETURN_IF_ERROR(CheckLayout(layout));
  TESSERA_ASSIGN_OR_RETURN(const RowPacker packer,
                           RowPacker::Create(layout, tensors.weights, tensors.scales));
  std::vector<uint64_t> offsets;
  uint64_t offset = 0;
  for (const uint32_t rows : layout.column_rows) {
    offsets.push_back(offset);
    offset += rows;
  }
  std::vector<Sha256Digest> digests(layout.column_rows.size());
  const size_t row_bytes = static_cast<size_t>(layout.row_bytes());
  TESSERA_RETURN_IF_ERROR(
      ParallelFor(digests.size(), num_threads, [&](size_t column) -> absl::Status {
        TESSERA_ASSIGN_OR_RETURN(
            digests[column],
            DigestColumn(packer, offsets[column], layout.column_rows[column], row_bytes));
        return absl::OkStatus();
      }));
  return CombineDigests(layout, digests);
}

absl::StatusOr<std::unique_ptr<EngramTable>> EngramTable::Pack(
    const TableLayout& layout, const TableTensors& tensors, const PackOptions& options) {
  TESSERA_RETURN_IF_ERROR(CheckLayout(layout));
  TESSERA_ASSIGN_OR_RETURN(const RowPacker packer,
                           RowPacker::Create(layout, tensors.weights, tensors.scales));
  TESSERA_ASSIGN_OR_RETURN(
      ShardMap map, ShardMap::Create(layout.column_rows, options.shard.num_shards));
  if (options.shard.shard >= options.shard.num_shards) {
    return InvalidArgumentF("engram shard {} of {}", options.shard.shard,
                            options.shard.num_shards);
  }
  std::string digest = options.digest;
  if (digest.empty()) {
    TESSERA_ASSIGN_OR_RETURN(digest, DigestTable(layout, tensors, options.num_threads));
  }
  const uint64_t row_bytes = static_cast<uint64_t>(layout.row_bytes());
  const uint64_t rows = map.num_local_rows(options.shard.shard);
  const uint64_t bytes = options.prefix_bytes + rows * row_bytes;
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<RowMemory> memory,
                           options.shared_memory ? RowMemory::AllocateShared(bytes)
                                                 : RowMemory::AllocatePrivate(bytes));
  std::byte* const base = memory->mutable_bytes().data() + options.prefix_bytes;
  TESSERA_RETURN_IF_ERROR(
      ParallelFor(map.num_columns(), options.num_threads, [&](size_t column) {
        const RowRange range =
            map.Range(options.shard.shard, static_cast<uint32_t>(column));
        return packer.Pack(range.first_row, range.count,
                           base + range.local_base * row_bytes);
      }));
  if (options.prefix_bytes == 0) {
    TESSERA_RETURN_IF_ERROR(memory->Seal());
  }
  return Wrap(layout, options.shard, std::move(digest), std::move(memory),
              options.prefix_bytes);
}

absl::StatusOr<std::unique_ptr<EngramTable>> EngramTable::Wrap(
    const TableLayout& layout, ShardIndex shard, std::string digest,
    std::unique_ptr<RowMemory> memory, uint64_t rows_offset) {
  TESSERA_RETURN_IF_ERROR(CheckLayout(layout));
  TESSERA_ASSIGN_OR_RETURN(ShardMap map,
                           ShardMap::Create(layout.column_rows, shard.num_shards));
  if (shard.shard >= shard.num_shards) {
    return InvalidArgumentF("engram shard {} of {}", shard.shard, shard.num_shards);
  }
  // Rows are below 2^32 and row_bytes below 2^18, so the product cannot wrap.
  const uint64_t bytes =
      map.num_local_rows(shard.shard) * static_cast<uint64_t>(layout.row_bytes());
  const uint64_t size = memory->bytes().size();
  if (rows_offset > size || bytes > size - rows_offset) {
    return InvalidArgumentF("{} bytes of engram rows at {}, the memory has {}", bytes,
                            rows_offset, size);
  }
  TableInfo info = layout.Info(std::move(digest));
  return std::unique_ptr<EngramTable>(new EngramTable(
      layout, std::move(info), std::move(map), shard, std::move(memory), rows_offset));
}

std::span<const std::byte> EngramTable::rows() const {
  return memory_->bytes().subspan(
      rows_offset_, num_local_rows() * static_cast<uint64_t>(info_.row_bytes));
}

absl::Status EngramTable::Gather(std::span<const uint32_t> local_row_ids,
                                 std::span<std::byte> destination) const {
  const size_t row_bytes = static_cast<size_t>(info_.row_bytes);
  if (destination.size() != local_row_ids.size() * row_bytes) {
    return InvalidArgumentF("{} bytes for {} engram rows of {}", destination.size(),
                            local_row_ids.size(), row_bytes);
  }
  TESSERA_RETURN_IF_ERROR(CheckRowIds(local_row_ids, num_local_rows()));
  GatherRows(rows().data(), row_bytes, local_row_ids, destination.data());
  return absl::OkStatus();
}

}  // namespace tessera::engram_store
