#include "engram_store/table/table_file_header.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

// A file whose rows are zeros; only the header matters here.
std::vector<std::byte> File() {
  TableFileHeader header;
  header.layout = {.layer_id = 1, .column_rows = {53, 59}, .width = 32};
  header.shard = {.shard = 1, .num_shards = 2};
  header.digest = std::string(64, 'a');
  header.row_data_bytes = (26 + 29) * 33;
  header.blocks.resize(1);
  std::vector<std::byte> file = EncodeTableFileHeader(&header);
  file.resize(file.size() + header.row_data_bytes);
  return file;
}

absl::StatusOr<TableFileHeader> Decode(std::span<const std::byte> file) {
  return DecodeTableFileHeader(file, file.size());
}

TEST(TableFileHeader, RoundTrips) {
  const std::vector<std::byte> file = File();
  const TableFileHeader header = Decode(file).value();
  EXPECT_EQ(header.layout.column_rows, (std::vector<uint32_t>{53, 59}));
  EXPECT_EQ(header.layout.width, 32);
  EXPECT_EQ(header.shard, (ShardIndex{.shard = 1, .num_shards = 2}));
  EXPECT_EQ(header.digest, std::string(64, 'a'));
  EXPECT_EQ(header.header_bytes, kFilePageBytes);
  EXPECT_EQ(header.row_data_bytes, 1815u);
}

TEST(TableFileHeader, ItsLengthIsKnownFromTheFirstPageAlone) {
  const std::vector<std::byte> file = File();
  const std::span<const std::byte> page = std::span(file).first(kFilePageBytes);
  EXPECT_EQ(TableFileHeaderBytes(page, file.size()).value(), kFilePageBytes);
  EXPECT_EQ(TableFileHeaderBytes(page, 100).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(TableFileHeaderBytes(page.first(100), file.size()).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(TableFileHeader, EveryFlippedBitOfTheHeaderIsFound) {
  std::vector<std::byte> file = File();
  for (size_t i = 0; i < 200; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      file[i] ^= std::byte{1} << bit;
      EXPECT_EQ(Decode(file).status().code(), absl::StatusCode::kDataLoss)
          << i << " bit " << bit;
      file[i] ^= std::byte{1} << bit;
    }
  }
  EXPECT_TRUE(Decode(file).ok());
}

TEST(TableFileHeader, FilesOfAnyOtherLengthAreRefused) {
  const std::vector<std::byte> file = File();
  for (const size_t size :
       {size_t{0}, size_t{127}, size_t{128}, size_t{4096}, file.size() - 1}) {
    EXPECT_EQ(Decode(std::span(file).first(size)).status().code(),
              absl::StatusCode::kDataLoss)
        << size;
  }
  std::vector<std::byte> longer = file;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(Decode(longer).ok());
}

}  // namespace
}  // namespace tessera::engram_store
