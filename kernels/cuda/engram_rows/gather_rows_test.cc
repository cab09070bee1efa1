// Rows that a device reads from a registered table: the table's bytes for every row size,
// number of shards and schedule; an id that no row of its column has is told, and nothing
// is read for it. tests/parity/engram_rows_parity_test.cc compares with the CPU's gather.
#include "kernels/cuda/engram_rows/gather_rows.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "common/check.h"
#include "kernels/cuda/engram_rows/registered_table.h"
#include "kernels/cuda_sim/sim_machine.h"

namespace tessera::kernels::cuda {
namespace {

constexpr uint64_t kSeeds = 4;
constexpr int64_t kTokens = 5;

// Columns of 7, 3 and 5 rows over S shards, each of memory of its own that begins
// `offset` bytes after a multiple of 16.
class Table {
 public:
  Table(uint64_t seed, uint32_t num_shards, int64_t row_bytes, size_t offset)
      : random_(seed) {
    std::vector<std::vector<std::byte>> shards(num_shards);
    for (const uint32_t rows : {7U, 3U, 5U}) {
      const uint32_t share = (rows - 1) / num_shards + 1;
      view_.columns.push_back({num_rows_, rows, share});
      for (uint32_t shard = 0; shard < num_shards; ++shard) {
        auto& bytes = shards[shard];
        view_.first_local.push_back(
            static_cast<uint32_t>(bytes.size() / static_cast<size_t>(row_bytes)));
        for (uint32_t row = shard * share; row < std::min(rows, (shard + 1) * share);
             ++row) {
          for (int64_t i = 0; i < row_bytes; ++i) {
            bytes.push_back(static_cast<std::byte>(random_()));
          }
          rows_.emplace_back(bytes.end() - row_bytes, bytes.end());
        }
      }
      num_rows_ += rows;
    }
    for (const auto& bytes : shards) {
      auto& memory = memory_.emplace_back(bytes.size() / 16 + 2);
      auto* const begin = reinterpret_cast<std::byte*>(memory.data()) + offset;
      std::copy(bytes.begin(), bytes.end(), begin);
      view_.shards.emplace_back(begin, bytes.size());
    }
    view_.row_bytes = row_bytes;
  }

  // Of kTokens tokens; the first and the last row of each column among them.
  std::vector<uint32_t> Ids() {
    std::vector<uint32_t> ids;
    for (int64_t t = 0; t < kTokens; ++t) {
      for (const EngramColumn& column : view_.columns) {
        const uint32_t row = t == 0 ? 0
                             : t == 1
                                 ? column.num_rows - 1
                                 : static_cast<uint32_t>(random_() % column.num_rows);
        ids.push_back(column.first_row + row);
      }
    }
    return ids;
  }
  std::vector<std::byte> Expected(const std::vector<uint32_t>& ids) const {
    std::vector<std::byte> bytes;
    for (const uint32_t id : ids) {
      bytes.insert(bytes.end(), rows_[id].begin(), rows_[id].end());
    }
    return bytes;
  }
  const EngramTableView& view() const { return view_; }
  uint32_t num_rows() const { return num_rows_; }

 private:
  struct alignas(16) Line {
    std::byte bytes[16];
  };
  std::mt19937_64 random_;
  uint32_t num_rows_ = 0;
  EngramTableView view_;
  std::vector<std::vector<Line>> memory_;
  std::vector<std::vector<std::byte>> rows_;  // by id
};

// A simulated device, all checks on, and a table that it reads.
class Reader {
 public:
  Reader(uint64_t seed, const Table& table) : row_bytes_(table.view().row_bytes) {
    auto machine = GpuMachine::Create({.seed = seed});
    TESSERA_CHECK(machine.ok());
    machine_ = std::move(*machine);
    auto stream = GpuStream::Create(machine_, 0);
    TESSERA_CHECK(stream.ok());
    stream_ = std::move(*stream);
    const auto registrations = HostRegistrations::Create(machine_);
    auto made = RegisteredTable::Create(machine_, *registrations, 0, table.view());
    TESSERA_CHECK(made.ok());
    table_ = std::move(*made);
  }

  struct Result {
    std::vector<std::byte> rows;
    uint32_t first_bad = kNoBadPlace;
  };
  // `beside`: the rows land so many bytes after a multiple of 16.
  Result Gather(const std::vector<uint32_t>& ids, size_t beside = 0) {
    const size_t bytes = ids.size() * static_cast<size_t>(row_bytes_);
    auto* const on_device = Allocate<uint32_t>(ids.size());
    auto* const out = Allocate<uint8_t>(bytes + beside) + beside;
    auto* const bad = Allocate<BadRowWord>(1);
    EXPECT_TRUE(stream_->MemcpyAsync(on_device, ids.data(), ids.size() * 4).ok());
    EXPECT_TRUE(stream_->MemsetAsync(bad, 0, sizeof(BadRowWord)).ok());
    GatherEngramRows(*stream_, table_->on_device(), {on_device, std::ssize(ids)},
                     {out, static_cast<int64_t>(bytes)}, {bad, 1});
    Result result;
    result.rows.resize(bytes);
    BadRowWord word = 0;
    EXPECT_TRUE(stream_->MemcpyAsync(result.rows.data(), out, bytes).ok());
    EXPECT_TRUE(stream_->MemcpyAsync(&word, bad, sizeof(word)).ok());
    EXPECT_TRUE(stream_->Synchronize().ok()) << machine_->status();
    result.first_bad = FirstBadPlace(word);
    return result;
  }
  const RegisteredTable& table() const { return *table_; }

 private:
  template <typename T>
  T* Allocate(size_t count) {
    const auto memory = machine_->Malloc(0, count * sizeof(T));
    TESSERA_CHECK(memory.ok());
    return static_cast<T*>(*memory);
  }

  const int64_t row_bytes_;
  std::shared_ptr<GpuMachine> machine_;
  std::unique_ptr<GpuStream> stream_;
  std::unique_ptr<RegisteredTable> table_;
};

TEST(GatherRows, AreTheTablesBytesInEverySizeAndShard) {
  // The demo's rows and V4.1's, BF16 rows, more than a warp's loads at once, one byte.
  for (const int64_t row_bytes : {33, 264, 72, 20, 2, 1, 1320}) {
    for (const uint32_t num_shards : {1U, 2U, 4U, 6U}) {
      for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        Table table(seed, num_shards, row_bytes, 0);
        Reader reader(seed, table);
        const std::vector<uint32_t> ids = table.Ids();
        const Reader::Result result = reader.Gather(ids);
        EXPECT_EQ(result.rows, table.Expected(ids)) << row_bytes << ", " << num_shards;
        EXPECT_EQ(result.first_bad, kNoBadPlace);
      }
    }
  }
}

TEST(GatherRows, MoveInTheWidestUnitThatBothSidesAllow) {
  struct Case {
    int64_t row_bytes;
    size_t table_offset;
    size_t out_offset;
    int64_t alignment;
  };
  for (const Case& at : {Case{264, 0, 0, 8}, Case{264, 8, 8, 8}, Case{264, 4, 0, 4},
                         Case{264, 0, 4, 8}, Case{264, 1, 0, 1}, Case{264, 0, 3, 8},
                         Case{320, 0, 0, 16}, Case{36, 0, 0, 4}, Case{33, 0, 0, 1}}) {
    Table table(1, 2, at.row_bytes, at.table_offset);
    Reader reader(1, table);
    EXPECT_EQ(reader.table().on_device().alignment, at.alignment);
    const std::vector<uint32_t> ids = table.Ids();
    // A misaligned access would be a finding.
    EXPECT_EQ(reader.Gather(ids, at.out_offset).rows, table.Expected(ids));
  }
}

TEST(GatherRows, AnIdThatItsColumnHasNotIsToldAndNeverReadsAnotherRow) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Table table(seed, 2, 24, 0);
    Reader reader(seed, table);
    const std::vector<uint32_t> good = table.Ids();
    const std::vector<std::byte> expected = table.Expected(good);
    // One beyond the table, one of a neighbour's, both ways, and one far outside; the
    // place is that of column 1, of rows 7 to 9.
    for (const uint32_t bad : {table.num_rows(), 6U, 10U, 0xffffffffU}) {
      std::vector<uint32_t> ids = good;
      ids[4] = bad;
      ids[13] = 0xfffffffeU;
      const Reader::Result result = reader.Gather(ids);
      EXPECT_EQ(result.first_bad, 4U) << bad;
      for (size_t place = 0; place < ids.size(); ++place) {
        const bool is_bad = place == 4 || place == 13;
        for (size_t i = place * 24; i < (place + 1) * 24; ++i) {
          EXPECT_EQ(result.rows[i], is_bad ? std::byte{0xff} : expected[i]) << place;
        }
      }
    }
    EXPECT_EQ(reader.Gather(good).first_bad, kNoBadPlace) << "the next step is whole";
  }
}

TEST(GatherRows, OfNoTokensLaunchNothing) {
  Table table(1, 1, 24, 0);
  Reader reader(1, table);
  EXPECT_TRUE(reader.Gather({}).rows.empty());
}

TEST(RegisteredTable, RanksShareARegistrationAndTheLastOneEndsIt) {
  const Table table(1, 2, 24, 0);
  const auto machine = *GpuMachine::Create({.num_devices = 2});
  const auto registrations = HostRegistrations::Create(machine);
  const std::byte* const memory = table.view().shards[0].data();
  {
    const auto first = RegisteredTable::Create(machine, *registrations, 0, table.view());
    ASSERT_TRUE(first.ok()) << first.status();
    {
      const auto second =
          RegisteredTable::Create(machine, *registrations, 1, table.view());
      ASSERT_TRUE(second.ok()) << second.status();
    }
    EXPECT_EQ(machine->HostRegisterReadOnly(memory, 8).status().code(),
              absl::StatusCode::kFailedPrecondition)
        << "the first still holds it";
  }
  ASSERT_TRUE(machine->HostRegisterReadOnly(memory, 8).ok());
  EXPECT_EQ(
      RegisteredTable::Create(machine, *registrations, 0, table.view()).status().code(),
      absl::StatusCode::kFailedPrecondition)
      << "somebody else has it";
  EXPECT_TRUE(machine->HostUnregister(memory).ok());
}

TEST(RegisteredTable, OfADamagedViewIsRefused) {
  Table table(1, 2, 24, 0);
  EngramTableView view = table.view();
  view.columns[0].num_rows = 1000;
  const auto machine = *GpuMachine::Create();
  const auto registrations = HostRegistrations::Create(machine);
  EXPECT_EQ(RegisteredTable::Create(machine, *registrations, 0, view).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::kernels::cuda
