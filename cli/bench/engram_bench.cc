#include "cli/bench/engram_bench.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/client/cached_source.h"
#include "engram_store/client/memory_source.h"
#include "engram_store/client/remote_source.h"
#include "engram_store/client/shard_router.h"
#include "engram_store/client/shared_memory_source.h"
#include "engram_store/hashing/engram_hash.h"
#include "engram_store/service/engram_server.h"
#include "engram_store/service/engram_shard.h"
#include "engram_store/table/engram_manifest.h"
#include "engram_store/table/engram_table.h"
#include "engram_store/table/row_memory.h"
#include "engram_store/table/shared_segment.h"

namespace tessera::cli {
namespace {

using engram_store::EngramHash;
using engram_store::EngramSource;
using engram_store::EngramTable;
using engram_store::RowMemory;

// V4.1: two layers of 24 columns, rows of 256 values with their scales.
constexpr int64_t kMaxNgram = 4;
constexpr int64_t kHeads = 8;
constexpr int64_t kColumns = (kMaxNgram - 1) * kHeads;
constexpr int64_t kWidth = 256;
constexpr int64_t kVocabulary = 99092;
constexpr int64_t kPadToken = 2;
// Zipf's exponent of words in English text.
constexpr double kZipf = 1.0;

model::EngramConfig Config(int64_t bucket_base) {
  model::EngramConfig config;
  config.layer_ids = {1, 14};
  config.max_ngram = kMaxNgram;
  config.num_heads = kHeads;
  config.head_dim = kWidth;
  config.bucket_bases.assign(static_cast<size_t>(kMaxNgram - 1), bucket_base);
  config.compressed_vocab_size = kVocabulary;
  config.pad_token_id = kPadToken;
  return config;
}

// Every row is filled with its number, so that any row can be known.
void FillRows(uint32_t first_row, uint32_t count, size_t row_bytes, std::byte* out) {
  for (uint64_t row = first_row; row < uint64_t{first_row} + count; ++row) {
    for (size_t at = 0; at < row_bytes; at += sizeof(row)) {
      std::memcpy(out + at, &row, std::min(sizeof(row), row_bytes - at));
    }
    out += row_bytes;
  }
}

// The rows of one shard, in memory that other processes may map or in private memory.
absl::StatusOr<std::unique_ptr<EngramTable>> MakeTable(
    const engram_store::TableLayout& layout, engram_store::ShardIndex shard,
    const std::string& digest, bool shared) {
  TESSERA_ASSIGN_OR_RETURN(
      const engram_store::ShardMap map,
      engram_store::ShardMap::Create(layout.column_rows, shard.num_shards));
  const auto row_bytes = static_cast<size_t>(layout.row_bytes());
  const uint64_t prefix = shared ? engram_store::kSegmentHeaderBytes : 0;
  const uint64_t bytes = prefix + map.num_local_rows(shard.shard) * row_bytes;
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<RowMemory> memory,
      shared ? RowMemory::AllocateShared(bytes) : RowMemory::AllocatePrivate(bytes));
  std::byte* const rows = memory->mutable_bytes().data() + prefix;
  for (uint32_t column = 0; column < map.num_columns(); ++column) {
    const engram_store::RowRange range = map.Range(shard.shard, column);
    FillRows(range.first_row, range.count, row_bytes,
             rows + range.local_base * row_bytes);
  }
  if (!shared) {
    TESSERA_RETURN_IF_ERROR(memory->Seal());
  }
  return EngramTable::Wrap(layout, shard, digest, std::move(memory), prefix);
}

}  // namespace

absl::StatusOr<std::unique_ptr<EngramBench>> EngramBench::Create(
    const EngramBenchOptions& options, Clock* clock) {
  auto bench = std::unique_ptr<EngramBench>(new EngramBench(options, clock));
  bench->layout_ = {.layer_id = 1, .column_rows = {}, .width = kWidth};
  const auto rows = static_cast<int64_t>(
      options.table_bytes / static_cast<uint64_t>(bench->layout_.row_bytes()));
  std::vector<int32_t> map(static_cast<size_t>(kVocabulary));
  std::iota(map.begin(), map.end(), 0);
  TESSERA_ASSIGN_OR_RETURN(bench->hash_,
                           EngramHash::Create(Config(rows / kColumns), map));
  const std::span<const uint32_t> primes = bench->hash_->primes(0);
  bench->layout_.column_rows.assign(primes.begin(), primes.end());
  TESSERA_RETURN_IF_ERROR(bench->MakeTables());
  TESSERA_RETURN_IF_ERROR(bench->MakeSources());
  return bench;
}

absl::Status EngramBench::MakeTables() {
  const std::string digest(64, '0');
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<const EngramTable> resident,
                           MakeTable(layout_, {}, digest, /*shared=*/false));
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<EngramSource> source,
      engram_store::CreateResidentSource(clock_, {std::move(resident)}));
  sources_.push_back(std::move(source));
  engram_store::EngramManifest manifest;
  manifest.contract = "v41";
  manifest.tables.push_back({.layout = layout_, .multipliers = {1}, .digest = digest});
  for (uint32_t i = 0; i < options_.num_shards; ++i) {
    std::vector<std::unique_ptr<EngramTable>> tables(1);
    TESSERA_ASSIGN_OR_RETURN(
        tables[0], MakeTable(layout_, {i, options_.num_shards}, digest, /*shared=*/true));
    TESSERA_ASSIGN_OR_RETURN(
        std::shared_ptr<const engram_store::EngramShard> shard,
        engram_store::EngramShard::Create({}, manifest, std::move(tables)));
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<engram_store::EngramServer> server,
                             engram_store::EngramServer::Create({}, clock_, shard));
    servers_.push_back(std::move(server));
  }
  return absl::OkStatus();
}

absl::Status EngramBench::MakeSources() {
  engram_store::RemoteSourceOptions remote;
  remote.endpoints.expected = servers_.front()->shard().manifest();
  for (const auto& server : servers_) {
    remote.endpoints.replicas.push_back({server->address()});
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<EngramSource> shared,
                           engram_store::CreateSharedMemorySource(
                               remote.endpoints, remote.max_pending, clock_));
  sources_.push_back(std::move(shared));
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<EngramSource> plain,
                           engram_store::RemoteSource::Create(remote, clock_));
  sources_.push_back(std::move(plain));
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<EngramSource> behind,
                           engram_store::RemoteSource::Create(remote, clock_));
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<EngramSource> cached,
      engram_store::CachedSource::Create({.capacity_bytes = options_.cache_bytes},
                                         std::move(behind)));
  sources_.push_back(std::move(cached));
  return absl::OkStatus();
}

size_t EngramBench::row_bytes() const { return static_cast<size_t>(layout_.row_bytes()); }

std::vector<int32_t> EngramBench::Tokens(int64_t count) {
  std::mt19937 random(++seed_);
  std::uniform_real_distribution<double> uniform(0, 1);
  const auto same = static_cast<int32_t>(random() % kVocabulary);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) {
    if (options_.tokens == "repeated") {
      token = same;
    } else if (options_.tokens == "text") {
      // The inverse of 1 - rank^-s; of s = 1, its limit: ranks grow exponentially.
      static_assert(kZipf == 1.0);
      token = static_cast<int32_t>(
          std::pow(static_cast<double>(kVocabulary), uniform(random)) - 1);
    } else {
      token = static_cast<int32_t>(random() % kVocabulary);
    }
  }
  return tokens;
}

std::vector<std::vector<uint32_t>> EngramBench::Requests(int64_t count, int64_t tokens) {
  std::vector<std::vector<uint32_t>> requests;
  for (int64_t i = 0; i < count; ++i) {
    // With a full lookback before them, as a sequence has while it decodes.
    const std::vector<int32_t> ids = Tokens(tokens + kMaxNgram - 1);
    std::vector<uint32_t>& rows =
        requests.emplace_back(static_cast<size_t>(tokens * kColumns));
    hash_->RowIds(0, ids, kMaxNgram - 1, /*at_start=*/false, {}, rows);
  }
  return requests;
}

absl::StatusOr<double> EngramBench::Serve(
    EngramSource* source, const std::vector<std::vector<uint32_t>>& requests) {
  size_t largest = 0;
  for (const std::vector<uint32_t>& ids : requests) {
    largest = std::max(largest, ids.size());
  }
  std::byte* const out = Destination(largest);
  const absl::Time begin = clock_->Now();
  for (const std::vector<uint32_t>& ids : requests) {
    const engram_store::PendingRows pending =
        source->Issue(0, ids, {out, ids.size() * row_bytes()});
    TESSERA_RETURN_IF_ERROR(source->Wait(pending, absl::InfiniteFuture()));
  }
  return absl::ToDoubleSeconds(clock_->Now() - begin);
}

absl::Status EngramBench::Check(EngramSource* source,
                                const std::vector<uint32_t>& request) {
  TESSERA_RETURN_IF_ERROR(Serve(source, {request}).status());
  const std::byte* row = destination_.data();
  for (const uint32_t id : request) {
    uint64_t found = 0;
    std::memcpy(&found, row + row_bytes() - sizeof(found), sizeof(found));
    if (found != id) {
      return DataLossF("the {} source gave row {} for row {}", source->name(), found, id);
    }
    row += row_bytes();
  }
  return absl::OkStatus();
}

double EngramBench::HashSeconds(int64_t tokens) {
  const std::vector<int32_t> ids = Tokens(tokens);
  std::vector<uint32_t> rows(static_cast<size_t>(tokens * kColumns));
  const absl::Time begin = clock_->Now();
  for (int64_t layer = 0; layer < hash_->num_layers(); ++layer) {
    hash_->RowIds(layer, ids, 0, /*at_start=*/true, {}, rows);
  }
  return absl::ToDoubleSeconds(clock_->Now() - begin);
}

absl::StatusOr<std::vector<uint64_t>> EngramBench::RowsByShard(
    const std::vector<uint32_t>& request) const {
  TESSERA_ASSIGN_OR_RETURN(
      const engram_store::ShardMap map,
      engram_store::ShardMap::Create(layout_.column_rows, options_.num_shards));
  engram_store::RoutedRows routed;
  routed.Route(map, request);
  std::vector<uint64_t> rows;
  for (uint32_t shard = 0; shard < routed.num_shards(); ++shard) {
    rows.push_back(routed.local_rows(shard).size());
  }
  return rows;
}

std::byte* EngramBench::Destination(size_t rows) {
  if (destination_.size() < rows * row_bytes()) {
    destination_.resize(rows * row_bytes());
  }
  return destination_.data();
}

}  // namespace tessera::cli
