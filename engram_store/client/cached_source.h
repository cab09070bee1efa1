// CachedSource: a bounded cache of hot rows in front of another source. Rows that it
// holds are copied by Issue; the others are fetched from the source behind it, each once
// however often the request names it, and kept for later requests when they have landed.
//
// The cache never changes what is served: rows of a table do not change, and the source
// behind answers only from the tables it had at creation. A request whose rows are all
// here needs no other side, and is served while every shard is down.
#ifndef TESSERA_ENGRAM_STORE_CLIENT_CACHED_SOURCE_H_
#define TESSERA_ENGRAM_STORE_CLIENT_CACHED_SOURCE_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "engram_store/client/engram_source.h"
#include "engram_store/client/hot_row_cache.h"
#include "engram_store/client/pending_table.h"
#include "engram_store/client/shard_router.h"

namespace tessera::engram_store {

struct CachedSourceOptions {
  // For rows and keys. Beside it, every slot of max_pending keeps buffers as large as the
  // largest request it has served.
  uint64_t capacity_bytes = uint64_t{1} << 30;
  // Not more than the source behind allows, or its refusals come through.
  size_t max_pending = 64;
};

// Owns the source behind it. Step thread only; stats() from any thread only between
// steps.
class CachedSource final : public EngramSource {
 public:
  // kInvalidArgument: no source or one without tables, a capacity below eight rows,
  // max_pending outside 1..65535. kResourceExhausted: no memory.
  static absl::StatusOr<std::unique_ptr<CachedSource>> Create(
      const CachedSourceOptions& options, std::unique_ptr<EngramSource> source);

  std::string_view name() const override { return "cached"; }
  std::span<const TableInfo> tables() const override { return source_->tables(); }
  // Copies the rows that are here; the time is that of a lookup per distinct row.
  PendingRows Issue(size_t table, std::span<const uint32_t> row_ids,
                    std::span<std::byte> destination) override;
  // Errors of the source behind come through as they are; then some rows of the
  // destination may have been written by Issue.
  absl::Status Wait(PendingRows pending, absl::Time deadline) override;
  EngramSourceStats stats() const override;

 private:
  // Buffers are kept from request to request.
  struct Request {
    size_t table = 0;
    std::span<std::byte> destination;
    absl::Status status;
    RoutedRows distinct;
    // Places in distinct.local_rows(0), and the row; valid within Issue.
    std::vector<std::pair<size_t, const std::byte*>> hits;
    std::vector<size_t> missing_places;
    std::vector<uint32_t> missing;  // rows that are fetched
    std::vector<std::byte> fetched;
    PendingRows fetch;  // only if rows are missing
  };

  CachedSource(const CachedSourceOptions& options, std::unique_ptr<HotRowCache> cache,
               std::vector<ShardMap> maps, std::unique_ptr<EngramSource> source);

  size_t row_bytes(size_t table) const {
    return static_cast<size_t>(tables()[table].row_bytes);
  }
  // Splits the distinct rows into those that are here and those that are missing.
  void LookUp(Request* request);
  void CopyHits(const Request& request) const;
  void TakeFetched(const Request& request);

  const size_t max_pending_;
  const std::unique_ptr<HotRowCache> cache_;
  const std::vector<ShardMap> maps_;  // one per table, of one shard
  EngramSourceStats stats_;
  PendingTable<Request> pending_;
  // Last: it ends what it has in flight before the buffers go.
  const std::unique_ptr<EngramSource> source_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_CACHED_SOURCE_H_
