#include "engram_store/table/row_packer.h"

#include <vector>

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

std::vector<std::byte> Bytes(std::initializer_list<int> values, size_t size) {
  std::vector<std::byte> bytes(size, std::byte{0x30});
  size_t i = 0;
  for (const int value : values) {
    bytes[i++] = static_cast<std::byte>(value);
  }
  return bytes;
}

const TableLayout kLayout = {
    .layer_id = 4, .column_rows = {2, 1}, .width = 64, .format = model::DType::kF8E4M3};

TEST(RowPacker, PutsTheScalesBehindTheWeightsOfTheirRow) {
  const std::vector<std::byte> weights = Bytes({}, 3 * 64);
  const std::vector<std::byte> scales = Bytes({1, 2, 3, 4, 5, 254}, 6);
  const RowPacker packer = RowPacker::Create(kLayout, weights, scales).value();
  std::vector<std::byte> rows(2 * 66);
  ASSERT_TRUE(packer.Pack(1, 2, rows.data()).ok());
  EXPECT_EQ(rows[63], std::byte{0x30});
  EXPECT_EQ(rows[64], std::byte{3});
  EXPECT_EQ(rows[65], std::byte{4});
  EXPECT_EQ(rows[66], std::byte{0x30});
  EXPECT_EQ(rows[131], std::byte{254});
}

TEST(RowPacker, RefusesScalesThatKernelsWouldMisread) {
  const std::vector<std::byte> weights = Bytes({}, 3 * 64);
  for (const int bad : {0, 255}) {
    const std::vector<std::byte> scales = Bytes({1, 2, 3, bad, 5, 6}, 6);
    const RowPacker packer = RowPacker::Create(kLayout, weights, scales).value();
    std::vector<std::byte> rows(3 * 66);
    EXPECT_TRUE(packer.Pack(0, 1, rows.data()).ok());
    const absl::Status status = packer.Pack(0, 3, rows.data());
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_NE(status.message().find("in row 1"), absl::string_view::npos);
  }
}

TEST(RowPacker, RefusesTensorsOfAnotherSize) {
  const std::vector<std::byte> bytes(1000, std::byte{1});
  const std::span<const std::byte> all(bytes);
  EXPECT_TRUE(RowPacker::Create(kLayout, all.first(192), all.first(6)).ok());
  EXPECT_FALSE(RowPacker::Create(kLayout, all.first(191), all.first(6)).ok());
  EXPECT_FALSE(RowPacker::Create(kLayout, all.first(192), all.first(7)).ok());
  EXPECT_FALSE(RowPacker::Create(kLayout, all.first(192), {}).ok());
  TableLayout bf16 = kLayout;
  bf16.format = model::DType::kBF16;
  EXPECT_TRUE(RowPacker::Create(bf16, all.first(384), {}).ok());
  EXPECT_FALSE(RowPacker::Create(bf16, all.first(384), all.first(6)).ok());
}

}  // namespace
}  // namespace tessera::engram_store
