#include "engram_store/disk/disk_table.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/crc32c.h"
#include "engram_store/table/parallel.h"
#include "engram_store/table/row_memory.h"
#include "engram_store/table/sha256.h"

namespace tessera::engram_store {
namespace {

uint64_t WholePages(uint64_t bytes) {
  return (bytes + kFilePageBytes - 1) / kFilePageBytes;
}

// Reads `bytes` from the start of the file.
absl::StatusOr<std::unique_ptr<RowMemory>> ReadHead(const BlockFile& file,
                                                    uint64_t bytes) {
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<RowMemory> head,
      RowMemory::AllocatePrivate(WholePages(bytes) * kFilePageBytes));
  TESSERA_RETURN_IF_ERROR(file.Read(0, head->mutable_bytes()));
  return head;
}

absl::StatusOr<TableFileHeader> ReadHeader(const BlockFile& file) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<RowMemory> page,
                           ReadHead(file, kFilePageBytes));
  const uint64_t first = std::min(file.size(), kFilePageBytes);
  TESSERA_ASSIGN_OR_RETURN(const uint64_t header_bytes,
                           TableFileHeaderBytes(page->bytes().first(first), file.size()));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<RowMemory> head,
                           ReadHead(file, header_bytes));
  return DecodeTableFileHeader(head->bytes(), file.size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<DiskTable>> DiskTable::Open(
    std::unique_ptr<BlockFile> file, int num_threads) {
  absl::StatusOr<TableFileHeader> header = ReadHeader(*file);
  if (!header.ok()) {
    return WithContext(header.status(), file->name());
  }
  TESSERA_ASSIGN_OR_RETURN(
      const ShardMap map,
      ShardMap::Create(header->layout.column_rows, header->shard.num_shards));
  std::unique_ptr<DiskTable> table(
      new DiskTable(std::move(file), *header, map.num_local_rows(header->shard.shard)));
  TESSERA_RETURN_IF_ERROR(table->Verify(*header, num_threads));
  return table;
}

DiskTable::DiskTable(std::unique_ptr<BlockFile> file, TableFileHeader header,
                     uint64_t num_local_rows)
    : file_(std::move(file)),
      layout_(std::move(header.layout)),
      info_(layout_.Info(std::move(header.digest))),
      shard_(header.shard),
      num_local_rows_(num_local_rows),
      rows_offset_(header.header_bytes),
      row_data_bytes_(header.row_data_bytes),
      page_sums_(WholePages(header.row_data_bytes)) {}

std::span<const std::byte> DiskTable::Content(uint64_t page,
                                              const std::byte* bytes) const {
  return {bytes, std::min(kFilePageBytes, row_data_bytes_ - page * kFilePageBytes)};
}

absl::Status DiskTable::Verify(const TableFileHeader& header, int num_threads) {
  constexpr uint64_t kBlockPages = kFileBlockBytes / kFilePageBytes;
  return ParallelFor(header.blocks.size(), num_threads, [&](size_t i) -> absl::Status {
    const uint64_t begin = i * kFileBlockBytes;
    const uint64_t bytes = std::min(kFileBlockBytes, row_data_bytes_ - begin);
    TESSERA_ASSIGN_OR_RETURN(
        const std::unique_ptr<RowMemory> block,
        RowMemory::AllocatePrivate(WholePages(bytes) * kFilePageBytes));
    TESSERA_RETURN_IF_ERROR(file_->Read(rows_offset_ + begin, block->mutable_bytes()));
    if (Sha256::Of(block->bytes().first(bytes)) != header.blocks[i]) {
      return DataLossF("{}: block {} of {} has another checksum than the header says",
                       file_->name(), i, header.blocks.size());
    }
    for (uint64_t page = i * kBlockPages; page < i * kBlockPages + WholePages(bytes);
         ++page) {
      const std::byte* const at =
          block->bytes().data() + (page - i * kBlockPages) * kFilePageBytes;
      page_sums_[page] = Crc32c(Content(page, at));
    }
    return absl::OkStatus();
  });
}

PageRun DiskTable::PagesOf(uint32_t row) const {
  const uint64_t begin = uint64_t{row} * row_bytes();
  const uint64_t first = begin / kFilePageBytes;
  return {.first = first, .count = WholePages(begin + row_bytes()) - first};
}

uint64_t DiskTable::max_row_pages() const { return WholePages(row_bytes()) + 1; }

absl::Status DiskTable::Read(PageRun run, std::span<std::byte> pages) const {
  TESSERA_CHECK_LE(run.end(), page_sums_.size());
  TESSERA_CHECK_EQ(pages.size(), run.count * kFilePageBytes);
  TESSERA_RETURN_IF_ERROR(file_->Read(rows_offset_ + run.first * kFilePageBytes, pages));
  for (uint64_t page = run.first; page < run.end(); ++page) {
    const std::byte* const at = pages.data() + (page - run.first) * kFilePageBytes;
    if (Crc32c(Content(page, at)) != page_sums_[page]) {
      return DataLossF("{}: page {} of the rows is not what it was when it was opened",
                       file_->name(), page);
    }
  }
  return absl::OkStatus();
}

std::span<const std::byte> DiskTable::RowIn(PageRun run, std::span<const std::byte> pages,
                                            uint32_t row) const {
  return pages.subspan(uint64_t{row} * row_bytes() - run.first * kFilePageBytes,
                       row_bytes());
}

}  // namespace tessera::engram_store
