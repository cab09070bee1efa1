// DiskTable: the packed rows of one layer, or one shard's share of them, in a table file
// that stays on disk. Opening it reads the file once: every block against the header's
// checksums, and of every page a CRC-32C is kept, so that a page that is read later is
// known to be what it was, at 4 bytes of memory per 4 KiB of rows.
#ifndef TESSERA_ENGRAM_STORE_DISK_DISK_TABLE_H_
#define TESSERA_ENGRAM_STORE_DISK_DISK_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engram_store/disk/block_file.h"
#include "engram_store/table/shard_map.h"
#include "engram_store/table/table_file_header.h"
#include "engram_store/table/table_info.h"

namespace tessera::engram_store {

// A run of pages of rows; page 0 holds the first row's first byte.
struct PageRun {
  uint64_t first = 0;
  uint64_t count = 0;

  uint64_t end() const { return first + count; }
  friend bool operator==(const PageRun&, const PageRun&) = default;
};

// Immutable and thread-safe.
class DiskTable {
 public:
  // kDataLoss for a header or a block that is not what it says, with the file and the
  // block; errors of BlockFile::Read. Takes two blocks of memory per thread for the time
  // of the call.
  static absl::StatusOr<std::unique_ptr<DiskTable>> Open(std::unique_ptr<BlockFile> file,
                                                         int num_threads);

  // Of the whole table, not of this shard.
  const TableInfo& info() const { return info_; }
  const TableLayout& layout() const { return layout_; }
  ShardIndex shard() const { return shard_; }
  uint64_t num_local_rows() const { return num_local_rows_; }
  size_t row_bytes() const { return static_cast<size_t>(info_.row_bytes); }

  // The pages that hold local row `row`, which must be below num_local_rows().
  PageRun PagesOf(uint32_t row) const;
  // Most pages that a row may touch.
  uint64_t max_row_pages() const;

  // Reads pages to `pages`, whole pages at a page boundary of memory, and checks each.
  // kDataLoss, with the file and the page, for one that has changed; errors of
  // BlockFile::Read.
  absl::Status Read(PageRun run, std::span<std::byte> pages) const;

  // Row `row` inside what Read of a run that holds it gave.
  std::span<const std::byte> RowIn(PageRun run, std::span<const std::byte> pages,
                                   uint32_t row) const;

  // Memory that it keeps.
  uint64_t num_bytes() const { return page_sums_.size() * sizeof(page_sums_[0]); }

 private:
  DiskTable(std::unique_ptr<BlockFile> file, TableFileHeader header,
            uint64_t num_local_rows);

  // Checks the blocks and notes the sums of their pages.
  absl::Status Verify(const TableFileHeader& header, int num_threads);
  // The bytes of page `page` that are rows, of the page at `bytes`.
  std::span<const std::byte> Content(uint64_t page, const std::byte* bytes) const;

  const std::unique_ptr<BlockFile> file_;
  const TableLayout layout_;
  const TableInfo info_;
  const ShardIndex shard_;
  const uint64_t num_local_rows_;
  const uint64_t rows_offset_;  // in the file, a page boundary
  const uint64_t row_data_bytes_;
  std::vector<uint32_t> page_sums_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_DISK_DISK_TABLE_H_
