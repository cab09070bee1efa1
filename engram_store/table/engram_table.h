// EngramTable: the packed rows of one layer, or one shard's share of them. A packed row
// is the F8 values followed by their E8M0 scales (or the BF16 values), so that a lookup
// is one contiguous read. Tables are immutable: built once from the tensors of a
// checkpoint or read from a table file (table_reader.h), then only gathered from.
#ifndef TESSERA_ENGRAM_STORE_TABLE_ENGRAM_TABLE_H_
#define TESSERA_ENGRAM_STORE_TABLE_ENGRAM_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

#include "engram_store/table/row_memory.h"
#include "engram_store/table/shard_map.h"
#include "engram_store/table/table_info.h"

namespace tessera::engram_store {

// The tensors of one table as a checkpoint holds them; they need not outlive the call.
struct TableTensors {
  std::span<const std::byte> weights;  // [R, W] F8 or BF16
  std::span<const std::byte> scales;   // [R, W/32] E8M0; empty for BF16
};

// Which share of every column to hold.
struct ShardIndex {
  uint32_t shard = 0;
  uint32_t num_shards = 1;

  friend bool operator==(const ShardIndex&, const ShardIndex&) = default;
};

struct PackOptions {
  ShardIndex shard;
  // In a memfd that other processes may map (EngramShard), or in private memory.
  bool shared_memory = false;
  // Bytes kept free in front of the rows, a multiple of 64: the segment header of a
  // shared table.
  uint64_t prefix_bytes = 0;
  // Of all rows, where it is known (a publisher made it); empty: computed, which reads
  // all rows.
  std::string digest;
  int num_threads = 1;
};

// SHA-256 in hex over layer id, format, row bytes, columns and every packed row: per
// column, in parallel, then over the columns' digests. The same for every sharding.
// kInvalidArgument and kDataLoss as EngramTable::Pack.
absl::StatusOr<std::string> DigestTable(const TableLayout& layout,
                                        const TableTensors& tensors, int num_threads);

// Immutable and thread-safe after its construction.
class EngramTable {
 public:
  // Packs one shard of the tensors. kInvalidArgument: a layout that CheckLayout refuses,
  // tensors of another size, a shard out of range. kDataLoss: a scale byte 0 or 255 (zero
  // and NaN to the bit trick that kernels decode scales with). kResourceExhausted: no
  // memory.
  static absl::StatusOr<std::unique_ptr<EngramTable>> Pack(const TableLayout& layout,
                                                           const TableTensors& tensors,
                                                           const PackOptions& options);

  // Rows that already lie packed in `memory` from `rows_offset` on. kInvalidArgument when
  // the memory is too small. It trusts the bytes: the caller has verified them.
  static absl::StatusOr<std::unique_ptr<EngramTable>> Wrap(
      const TableLayout& layout, ShardIndex shard, std::string digest,
      std::unique_ptr<RowMemory> memory, uint64_t rows_offset);

  // Of the whole table, not of this shard.
  const TableInfo& info() const { return info_; }
  const TableLayout& layout() const { return layout_; }
  const ShardMap& shard_map() const { return shard_map_; }
  ShardIndex shard() const { return shard_; }

  uint64_t num_local_rows() const { return shard_map_.num_local_rows(shard_.shard); }
  // Packed, [num_local_rows, row_bytes]; lives as long as the table.
  std::span<const std::byte> rows() const;

  // Where the rows lie; a shared table is sealed by its shard after the header was
  // written.
  RowMemory* memory() { return memory_.get(); }
  const RowMemory* memory() const { return memory_.get(); }

  // Copies local rows in the order asked for. kInvalidArgument for an id out of range or
  // a destination of another size; nothing is copied then.
  absl::Status Gather(std::span<const uint32_t> local_row_ids,
                      std::span<std::byte> destination) const;

 private:
  EngramTable(TableLayout layout, TableInfo info, ShardMap shard_map, ShardIndex shard,
              std::unique_ptr<RowMemory> memory, uint64_t rows_offset)
      : layout_(std::move(layout)),
        info_(std::move(info)),
        shard_map_(std::move(shard_map)),
        shard_(shard),
        memory_(std::move(memory)),
        rows_offset_(rows_offset) {}

  TableLayout layout_;
  TableInfo info_;
  ShardMap shard_map_;
  ShardIndex shard_;
  std::unique_ptr<RowMemory> memory_;
  uint64_t rows_offset_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_ENGRAM_TABLE_H_
