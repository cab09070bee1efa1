// Rows of Engram tables on a device: whichever way they came, they are the bytes that the
// CPU's gather gives, in every row format and over every number of shards.
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/check.h"
#include "common/clock.h"
#include "engram_store/client/memory_source.h"
#include "engram_store/table/engram_table.h"
#include "engram_store/table/random_tensors.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/engram_reader.h"
#include "kernels/kernel_backend.h"
#include "worker/runner/engram_table_views.h"

namespace tessera {
namespace {

using engram_store::EngramTable;
using engram_store::MemorySource;
using engram_store::TableLayout;
using kernels::TensorView;

constexpr uint64_t kSeeds = 3;
const std::vector<uint32_t> kColumnRows = {97, 1, 13, 101, 50};

TableLayout Layout(model::DType format, int64_t width) {
  return {.layer_id = 1, .column_rows = kColumnRows, .width = width, .format = format};
}

// A table in `num_shards` shards and the CPU's source of it.
std::unique_ptr<MemorySource> Source(const TableLayout& layout, uint32_t num_shards,
                                     uint32_t seed) {
  const engram_store::RandomTensors tensors(layout, seed);
  std::vector<std::shared_ptr<const EngramTable>> shards;
  for (uint32_t shard = 0; shard < num_shards; ++shard) {
    engram_store::PackOptions options;
    options.shard = {.shard = shard, .num_shards = num_shards};
    auto packed = EngramTable::Pack(layout, tensors.view(), options);
    TESSERA_CHECK(packed.ok());
    shards.push_back(*std::move(packed));
  }
  auto source = MemorySource::Create({}, Clock::Real(), {std::move(shards)});
  TESSERA_CHECK(source.ok());
  return *std::move(source);
}

// Of `num_tokens` tokens, one a column; the last rows first where they are odd. Others
// for another number of tokens: rows of the step before must not pass for these.
std::vector<uint32_t> Ids(int64_t num_tokens, uint64_t seed) {
  std::mt19937_64 random(1000 * seed + static_cast<uint64_t>(num_tokens));
  std::vector<uint32_t> ids;
  for (int64_t t = 0; t < num_tokens; ++t) {
    uint32_t first_row = 0;
    for (const uint32_t rows : kColumnRows) {
      ids.push_back(first_row + (t == 0 && num_tokens % 2 == 1
                                     ? rows - 1
                                     : static_cast<uint32_t>(random() % rows)));
      first_row += rows;
    }
  }
  return ids;
}

// A reader of one table on a backend, and the steps that it is asked for.
class Steps {
 public:
  Steps(kernels::KernelBackend* backend, MemorySource* source, bool is_local,
        int64_t max_rows)
      : backend_(backend),
        source_(source),
        row_bytes_(source->tables()[0].row_bytes),
        stream_(*backend->CreateStream()),
        reader_(kernels::CreateEngramReader(backend, Clock::Real())) {
    const absl::Status added = reader_->AddTable(
        {.row_bytes = row_bytes_,
         .max_rows = max_rows,
         .view = is_local ? worker::ViewOf(source->local_shards(0)) : std::nullopt});
    TESSERA_CHECK(added.ok());
  }

  struct Result {
    bool device_reads = false;
    std::vector<std::byte> rows;
    absl::Status check;
  };
  // `is_early`: the host has gathered before the stream is asked for the rows.
  Result Run(const std::vector<uint32_t>& ids, bool is_early = false) {
    Result result;
    auto landing = reader_->Begin(0, ids, Deadline());
    TESSERA_CHECK(landing.ok());
    result.device_reads = landing->empty();
    const auto gather = [&] {
      if (!landing->empty()) {
        TESSERA_CHECK(source_->Wait(source_->Issue(0, ids, *landing), Deadline()).ok());
      }
      reader_->Arrived(0);
    };
    if (is_early) {
      gather();
    }
    auto rows = reader_->Enqueue(*stream_, 0);
    TESSERA_CHECK(rows.ok());
    if (!is_early) {
      gather();
    }
    result.rows.resize(ids.size() * static_cast<size_t>(row_bytes_));
    backend_->Download(*stream_,
                       TensorView(const_cast<void*>(*rows), kernels::DType::kU8,
                                  {std::ssize(result.rows)}),
                       result.rows.data());
    const absl::Status done = stream_->Synchronize();
    EXPECT_TRUE(done.ok()) << done;
    result.check = reader_->Check();
    return result;
  }
  std::vector<std::byte> Expected(const std::vector<uint32_t>& ids) {
    std::vector<std::byte> rows(ids.size() * static_cast<size_t>(row_bytes_));
    TESSERA_CHECK(source_->Wait(source_->Issue(0, ids, rows), Deadline()).ok());
    return rows;
  }
  kernels::EngramReader& reader() { return *reader_; }
  kernels::Stream& stream() { return *stream_; }

 private:
  static absl::Time Deadline() { return Clock::Real()->Now() + absl::Seconds(60); }

  kernels::KernelBackend* const backend_;
  MemorySource* const source_;
  const int64_t row_bytes_;
  const std::unique_ptr<kernels::Stream> stream_;
  const std::unique_ptr<kernels::EngramReader> reader_;
};

std::unique_ptr<kernels::KernelBackend> SimulatedCuda(uint64_t seed) {
  auto backend = kernels::CreateSimulatedCudaBackend(
      {.seed = seed, .check_order = true, .zeroes_memory = false});
  TESSERA_CHECK(backend.ok());
  return *std::move(backend);
}

TEST(EngramRows, OnADeviceAreThoseOfTheCpusGather) {
  const TableLayout layouts[] = {Layout(model::DType::kF8E4M3, 32),
                                 Layout(model::DType::kF8E4M3, 256),
                                 Layout(model::DType::kBF16, 20)};
  for (const TableLayout& layout : layouts) {
    for (const uint32_t num_shards : {1U, 2U, 3U}) {
      for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        const auto source = Source(layout, num_shards, static_cast<uint32_t>(seed));
        const auto backend = SimulatedCuda(seed);
        for (const bool is_local : {true, false}) {
          Steps steps(backend.get(), source.get(), is_local, 7 * 5);
          for (const int64_t num_tokens : {7, 2, 0, 1, 3}) {
            const std::vector<uint32_t> ids = Ids(num_tokens, seed);
            const Steps::Result result = steps.Run(ids, num_tokens == 3);
            EXPECT_EQ(result.rows, steps.Expected(ids))
                << layout.width << " values, " << num_shards << " shards";
            EXPECT_TRUE(result.device_reads == is_local || num_tokens == 0);
            EXPECT_TRUE(result.check.ok()) << result.check;
          }
        }
      }
    }
  }
}

TEST(EngramRows, OfALargeStepAreGatheredByTheHost) {
  const auto source = Source(Layout(model::DType::kF8E4M3, 32), 2, 1);
  const auto backend = SimulatedCuda(1);
  Steps steps(backend.get(), source.get(), true, 1000 * 5);
  for (const int64_t num_tokens : {1000, 2, 1000}) {
    const std::vector<uint32_t> ids = Ids(num_tokens, 1);
    const Steps::Result result = steps.Run(ids);
    EXPECT_EQ(result.device_reads, num_tokens == 2);
    EXPECT_EQ(result.rows, steps.Expected(ids));
  }
}

TEST(EngramRows, ThatNoTableHasAreATypedErrorOfTheirStepAlone) {
  const auto source = Source(Layout(model::DType::kF8E4M3, 32), 2, 1);
  const auto backend = SimulatedCuda(1);
  Steps steps(backend.get(), source.get(), true, 7 * 5);
  const std::vector<uint32_t> good = Ids(3, 1);
  std::vector<uint32_t> bad = good;
  bad[7] = good[8];  // a row of the next column
  const Steps::Result result = steps.Run(bad);
  EXPECT_EQ(result.check.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(result.check.ToString(), testing::HasSubstr("at 7 of table 0"));
  EXPECT_TRUE(steps.reader().Check().ok()) << "a step is checked once";
  EXPECT_TRUE(steps.Run(good).check.ok());
}

TEST(EngramRows, ThatNeverComeDoNotHoldTheStream) {
  const auto source = Source(Layout(model::DType::kF8E4M3, 32), 1, 1);
  const auto backend = SimulatedCuda(1);
  Steps steps(backend.get(), source.get(), false, 7 * 5);
  const std::vector<uint32_t> ids = Ids(3, 1);
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(steps.reader().Begin(0, ids, absl::InfiniteFuture()).ok());
    ASSERT_TRUE(steps.reader().Enqueue(steps.stream(), 0).ok());
    steps.reader().Abandon(0);
    EXPECT_TRUE(steps.stream().Synchronize().ok());
    EXPECT_EQ(steps.Run(ids).rows, steps.Expected(ids));
  }
}

TEST(EngramRows, OfABackendWithoutAReaderAreUploaded) {
  const auto source = Source(Layout(model::DType::kBF16, 20), 2, 1);
  const auto backend = kernels::CreateBackend({.name = "reference"});
  ASSERT_TRUE(backend.ok()) << backend.status();
  Steps steps(backend->get(), source.get(), true, 7 * 5);
  for (const int64_t num_tokens : {7, 0, 2}) {
    const std::vector<uint32_t> ids = Ids(num_tokens, 1);
    const Steps::Result result = steps.Run(ids, num_tokens == 2);
    EXPECT_FALSE(result.device_reads && num_tokens > 0);
    EXPECT_EQ(result.rows, steps.Expected(ids));
  }
}

}  // namespace
}  // namespace tessera
