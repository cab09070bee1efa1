// The header of a shared segment: the first page of a memfd that holds one shard of one
// table. It lets a client see that what it mapped is what the shard described. Layout
// (this host's byte order, since nobody else reads it):
//
//   0   8  magic "TSRENGS1"        48   4  shard
//   8  16  nonce                   52   4  number of shards
//   24  8  layer id                56   8  zero
//   32  8  rows in this segment    64  64  digest of the table, hex
//   40  8  row bytes              128      zero up to 4096, then the rows
#ifndef TESSERA_ENGRAM_STORE_TABLE_SHARED_SEGMENT_H_
#define TESSERA_ENGRAM_STORE_TABLE_SHARED_SEGMENT_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engram_store/table/engram_table.h"

namespace tessera::engram_store {

// Where the rows of a segment start; the prefix_bytes of tables packed for sharing.
inline constexpr uint64_t kSegmentHeaderBytes = 4096;

using SegmentNonce = std::array<uint8_t, 16>;

// 16 bytes that nobody can guess, from the kernel's generator. kInternal.
absl::StatusOr<SegmentNonce> RandomSegmentNonce();

// `table` in a sealed segment with its header: the same memory where it was packed shared
// with kSegmentHeaderBytes in front, else a copy. kResourceExhausted, kInternal.
absl::StatusOr<std::unique_ptr<EngramTable>> ShareTable(
    std::unique_ptr<EngramTable> table, const SegmentNonce& nonce);

// A segment as its shard describes it.
struct SharedSegment {
  int64_t process = 0;
  int file = -1;
  SegmentNonce nonce{};
  ShardIndex shard;
};

// Maps a segment as the table of `layout` with `digest`. kUnavailable when it cannot be
// opened, kDataLoss when its size or header say anything else.
absl::StatusOr<std::unique_ptr<EngramTable>> MapSharedTable(const SharedSegment& segment,
                                                            const TableLayout& layout,
                                                            const std::string& digest);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_SHARED_SEGMENT_H_
