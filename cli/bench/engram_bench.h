// EngramBench: made-up Engram tables of V4.1's shape behind every EngramSource of this
// machine, and the rows that made-up tokens ask of them.
//
// It stands under `tessera bench engram`, which times it. Shards serve on loopback inside
// this process; what is measured is the client's time, as a worker's step sees it.
#ifndef TESSERA_CLI_BENCH_ENGRAM_BENCH_H_
#define TESSERA_CLI_BENCH_ENGRAM_BENCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "engram_store/client/engram_source.h"
#include "engram_store/hashing/engram_hash.h"
#include "engram_store/service/engram_server.h"
#include "engram_store/table/table_info.h"

namespace tessera::cli {

struct EngramBenchOptions {
  // Of one layer's packed rows.
  uint64_t table_bytes = uint64_t{512} << 20;
  // What the rows are cut into behind shared memory and gRPC.
  uint32_t num_shards = 2;
  // In front of the remote source.
  uint64_t cache_bytes = uint64_t{64} << 20;
  // Which tokens: "random" (hardly a row twice), "text" (few tokens often, as Zipf has
  // it), "repeated" (one token only).
  std::string tokens = "random";
};

// Owns tables, servers and sources. External synchronisation.
class EngramBench {
 public:
  // `clock` must outlive it. kInvalidArgument: tables too small for the hash's columns;
  // kResourceExhausted: no memory; errors of servers and handshakes.
  static absl::StatusOr<std::unique_ptr<EngramBench>> Create(
      const EngramBenchOptions& options, Clock* clock);

  int64_t num_columns() const { return hash_->num_columns(); }
  size_t row_bytes() const;
  uint64_t num_rows() const { return hash_->num_rows(0); }

  // resident, shm, remote, cached; each serves the rows of the first layer.
  const std::vector<std::unique_ptr<engram_store::EngramSource>>& sources() const {
    return sources_;
  }

  // The rows of the first layer for `count` requests of `tokens` tokens, other ones for
  // every call.
  std::vector<std::vector<uint32_t>> Requests(int64_t count, int64_t tokens);

  // Serves the requests, one after the other, and returns the seconds of all.
  absl::StatusOr<double> Serve(engram_store::EngramSource* source,
                               const std::vector<std::vector<uint32_t>>& requests);
  // The same, and looks whether the rows are the right ones: kDataLoss.
  absl::Status Check(engram_store::EngramSource* source,
                     const std::vector<uint32_t>& request);

  // Seconds that EngramHash takes for `tokens` tokens and both of V4.1's layers.
  double HashSeconds(int64_t tokens);

  // Of the distinct rows of a request, those of each shard.
  absl::StatusOr<std::vector<uint64_t>> RowsByShard(
      const std::vector<uint32_t>& request) const;

  // Where Serve lets the rows land; room for `rows` of them.
  std::byte* Destination(size_t rows);

 private:
  EngramBench(const EngramBenchOptions& options, Clock* clock)
      : options_(options), clock_(clock) {}

  absl::Status MakeTables();
  absl::Status MakeSources();
  std::vector<int32_t> Tokens(int64_t count);

  const EngramBenchOptions options_;
  Clock* const clock_;
  uint32_t seed_ = 0;
  std::optional<engram_store::EngramHash> hash_;
  engram_store::TableLayout layout_;
  std::vector<std::unique_ptr<engram_store::EngramServer>> servers_;
  std::vector<std::unique_ptr<engram_store::EngramSource>> sources_;
  std::vector<std::byte> destination_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_ENGRAM_BENCH_H_
