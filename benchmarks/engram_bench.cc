// Engram: tokens hashed per second, rows gathered per second by source, and what a table
// costs to digest. Bytes are those of the packed rows. The table is far larger than the
// caches, as real ones are.
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"

#include "engram_store/client/cached_source.h"
#include "engram_store/client/memory_source.h"
#include "engram_store/client/remote_source.h"
#include "engram_store/client/shared_memory_source.h"
#include "engram_store/hashing/engram_hash.h"
#include "engram_store/service/loopback_shards.h"

namespace tessera::engram_store {
namespace {

// V4.1: two layers of 24 columns.
void HashTokens(benchmark::State& state) {
  model::EngramConfig config;
  config.layer_ids = {1, 14};
  config.max_ngram = 4;
  config.num_heads = 8;
  config.head_dim = 256;
  config.bucket_bases = {16000000, 16000000, 16000000};
  config.compressed_vocab_size = 99092;
  config.pad_token_id = 2;
  std::vector<int32_t> map(99092);
  std::iota(map.begin(), map.end(), 0);
  const EngramHash hash = EngramHash::Create(config, map).value();
  std::mt19937 random(1);
  std::vector<int32_t> ids(4096);
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(random() % 99092);
  }
  std::vector<uint32_t> rows(ids.size() * 24);
  for (auto _ : state) {
    hash.RowIds(0, ids, 0, true, {}, rows);
    hash.RowIds(1, ids, 0, true, {}, rows);
    benchmark::DoNotOptimize(rows.data());
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(ids.size()));
}
BENCHMARK(HashTokens);

// Rows of 264 bytes in a table of about 400 MB.
class Rows {
 public:
  Rows() : layout_{.layer_id = 1, .column_rows = {750019, 750037}, .width = 256} {
    weights_.resize(layout_.num_rows() * 256);
    scales_.assign(layout_.num_rows() * 8, std::byte{127});
    for (size_t i = 0; i < weights_.size(); i += 64) {
      weights_[i] = static_cast<std::byte>(i >> 6);
    }
  }
  const TableLayout& layout() const { return layout_; }
  TableTensors view() const { return {.weights = weights_, .scales = scales_}; }

 private:
  TableLayout layout_;
  std::vector<std::byte> weights_;
  std::vector<std::byte> scales_;
};

void Fetch(benchmark::State& state, EngramSource* source) {
  const size_t count = static_cast<size_t>(state.range(0));
  const size_t row_bytes = static_cast<size_t>(source->tables()[0].row_bytes);
  std::mt19937 random(2);
  std::vector<std::vector<uint32_t>> requests(64, std::vector<uint32_t>(count));
  for (std::vector<uint32_t>& ids : requests) {
    for (uint32_t& id : ids) {
      id = static_cast<uint32_t>(random() % source->tables()[0].num_rows);
    }
  }
  std::vector<std::byte> out(count * row_bytes);
  // Once before the clock runs, so that pages, connections and caches are warm.
  for (const std::vector<uint32_t>& ids : requests) {
    (void)source->Wait(source->Issue(0, ids, out), absl::InfiniteFuture());
  }
  size_t next = 0;
  for (auto _ : state) {
    const absl::Status status =
        source->Wait(source->Issue(0, requests[next++ % requests.size()], out),
                     absl::InfiniteFuture());
    if (!status.ok()) {
      state.SkipWithError("a lookup failed");
      return;
    }
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(count));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(count * row_bytes));
}

EngramManifest ManifestOf(const EngramTable& table) {
  EngramManifest manifest;
  manifest.contract = "v41";
  manifest.tables.push_back(
      {.layout = table.layout(), .multipliers = {1}, .digest = table.info().digest});
  return manifest;
}

void ResidentRows(benchmark::State& state) {
  const Rows rows;
  PackOptions options;
  options.digest = std::string(64, 'a');
  std::shared_ptr<const EngramTable> table =
      EngramTable::Pack(rows.layout(), rows.view(), options).value();
  const auto source = CreateResidentSource(Clock::Real(), {table}).value();
  Fetch(state, source.get());
}
BENCHMARK(ResidentRows)->Arg(24)->Arg(1536)->Arg(24576);

// A cache in front of a resident table: what the cache itself costs. With room for every
// row nearly all are hits after the first round of requests; with little room nearly none
// are.
void CachedRows(benchmark::State& state, uint64_t capacity_bytes) {
  const Rows rows;
  PackOptions options;
  options.digest = std::string(64, 'a');
  std::shared_ptr<const EngramTable> table =
      EngramTable::Pack(rows.layout(), rows.view(), options).value();
  const auto source =
      CachedSource::Create({.capacity_bytes = capacity_bytes},
                           CreateResidentSource(Clock::Real(), {table}).value())
          .value();
  Fetch(state, source.get());
  const EngramSourceStats stats = source->stats();
  state.counters["hit_share"] =
      static_cast<double>(stats.cache_hits) /
      static_cast<double>(stats.cache_hits + stats.cache_misses);
}
BENCHMARK_CAPTURE(CachedRows, hits, uint64_t{1} << 30)->Arg(24)->Arg(1536)->Arg(24576);
BENCHMARK_CAPTURE(CachedRows, misses, uint64_t{1} << 16)->Arg(24)->Arg(1536);

// One shard behind gRPC on loopback, and its segment mapped.
void ShardRows(benchmark::State& state, bool remote) {
  const Rows rows;
  PackOptions options;
  options.digest = std::string(64, 'a');
  options.shared_memory = true;
  options.prefix_bytes = kSegmentHeaderBytes;
  std::vector<std::unique_ptr<EngramTable>> tables;
  tables.push_back(EngramTable::Pack(rows.layout(), rows.view(), options).value());
  EngramManifest manifest = ManifestOf(*tables[0]);
  std::shared_ptr<EngramShard> shard =
      EngramShard::Create({}, manifest, std::move(tables)).value();
  const auto server = EngramServer::Create({}, Clock::Real(), shard).value();
  RemoteSourceOptions client;
  client.endpoints.replicas = {{server->address()}};
  client.endpoints.expected = manifest;
  std::unique_ptr<EngramSource> source;
  if (remote) {
    source = RemoteSource::Create(client, Clock::Real()).value();
  } else {
    source = CreateSharedMemorySource(client.endpoints, 8, Clock::Real()).value();
  }
  Fetch(state, source.get());
}
BENCHMARK_CAPTURE(ShardRows, shm, false)->Arg(24)->Arg(1536)->Arg(24576);
BENCHMARK_CAPTURE(ShardRows, remote, true)->Arg(24)->Arg(1536)->Arg(24576);

void DigestRows(benchmark::State& state) {
  const TableLayout layout = {.layer_id = 1, .column_rows = {18000, 18500}, .width = 32};
  const RandomTensors tensors(layout, 1);
  for (auto _ : state) {
    benchmark::DoNotOptimize(DigestTable(layout, tensors.view(), 1));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(layout.num_rows()) *
                          layout.row_bytes());
}
BENCHMARK(DigestRows);

}  // namespace
}  // namespace tessera::engram_store

BENCHMARK_MAIN();
