#include "engram_store/table/engram_table.h"

#include <vector>

#include "gtest/gtest.h"

#include "engram_store/table/random_tensors.h"

namespace tessera::engram_store {
namespace {

TableLayout Layout(model::DType format) {
  return {.layer_id = 1, .column_rows = {53, 59, 61}, .width = 32, .format = format};
}

class EngramTableTest : public ::testing::TestWithParam<model::DType> {};

TEST_P(EngramTableTest, EveryShardHoldsThePackedRowsOfItsRanges) {
  const TableLayout layout = Layout(GetParam());
  const RandomTensors tensors(layout, 11);
  for (const uint32_t num_shards : {1u, 2u, 5u}) {
    std::vector<std::unique_ptr<EngramTable>> shards;
    for (uint32_t shard = 0; shard < num_shards; ++shard) {
      PackOptions options;
      options.shard = {.shard = shard, .num_shards = num_shards};
      options.num_threads = 3;
      shards.push_back(EngramTable::Pack(layout, tensors.view(), options).value());
    }
    for (uint32_t row = 0; row < layout.num_rows(); ++row) {
      const ShardedRow place = shards[0]->shard_map().Locate(row);
      std::vector<std::byte> out(static_cast<size_t>(layout.row_bytes()));
      ASSERT_TRUE(
          shards[place.shard]->Gather(std::vector<uint32_t>{place.local_row}, out).ok());
      ASSERT_EQ(out, tensors.PackedRow(row)) << row << " of " << num_shards;
    }
  }
}

TEST_P(EngramTableTest, TheDigestIsTheSameForEveryShardAndThreadCount) {
  const TableLayout layout = Layout(GetParam());
  const RandomTensors tensors(layout, 11);
  const std::string digest = DigestTable(layout, tensors.view(), 1).value();
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(DigestTable(layout, tensors.view(), 4).value(), digest);
  PackOptions options;
  options.shard = {.shard = 1, .num_shards = 2};
  EXPECT_EQ(EngramTable::Pack(layout, tensors.view(), options).value()->info().digest,
            digest);
}

INSTANTIATE_TEST_SUITE_P(Formats, EngramTableTest,
                         ::testing::Values(model::DType::kF8E4M3, model::DType::kBF16));

TEST(EngramTable, TheDigestSeesEveryByteAndTheLayout) {
  TableLayout layout = Layout(model::DType::kF8E4M3);
  RandomTensors tensors(layout, 11);
  const std::string digest = DigestTable(layout, tensors.view(), 1).value();
  tensors.weights()[3000] ^= std::byte{1};
  EXPECT_NE(DigestTable(layout, tensors.view(), 1).value(), digest);
  tensors.weights()[3000] ^= std::byte{1};
  EXPECT_EQ(DigestTable(layout, tensors.view(), 1).value(), digest);
  layout.layer_id = 2;
  EXPECT_NE(DigestTable(layout, tensors.view(), 1).value(), digest);
  layout.layer_id = 1;
  layout.column_rows = {59, 53, 61};
  EXPECT_NE(DigestTable(layout, tensors.view(), 1).value(), digest);
}

TEST(EngramTable, ABadScaleStopsThePackingOfTheWholeTable) {
  const TableLayout layout = Layout(model::DType::kF8E4M3);
  RandomTensors tensors(layout, 11);
  tensors.scales()[100] = std::byte{255};
  EXPECT_EQ(EngramTable::Pack(layout, tensors.view(), {}).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(EngramTable, BadRequestsCopyNothing) {
  const TableLayout layout = Layout(model::DType::kF8E4M3);
  const RandomTensors tensors(layout, 11);
  const auto table = EngramTable::Pack(layout, tensors.view(), {}).value();
  std::vector<std::byte> out(66, std::byte{0xAA});
  EXPECT_EQ(table->Gather(std::vector<uint32_t>{0, 173}, out).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(table->Gather(std::vector<uint32_t>{0}, out).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(out, std::vector<std::byte>(66, std::byte{0xAA}));
  EXPECT_TRUE(table->Gather(std::vector<uint32_t>{0, 172}, out).ok());
}

TEST(EngramTable, ShardsOutOfRangeAndSmallMemoryAreRefused) {
  const TableLayout layout = Layout(model::DType::kF8E4M3);
  const RandomTensors tensors(layout, 11);
  PackOptions options;
  options.shard = {.shard = 2, .num_shards = 2};
  EXPECT_EQ(EngramTable::Pack(layout, tensors.view(), options).status().code(),
            absl::StatusCode::kInvalidArgument);
  for (const uint64_t offset : {uint64_t{1}, ~uint64_t{0}}) {
    EXPECT_EQ(EngramTable::Wrap(layout, {}, "",
                                RowMemory::AllocatePrivate(173 * 33).value(), offset)
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace tessera::engram_store
