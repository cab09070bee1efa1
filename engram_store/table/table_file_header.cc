#include "engram_store/table/table_file_header.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::engram_store {
namespace {

static_assert(std::endian::native == std::endian::little,
              "table files are little-endian, as the machines that map them");

constexpr std::array<char, 8> kMagic = {'T', 'S', 'R', 'E', 'N', 'G', 'T', '1'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kFormatF8 = 1;
constexpr uint32_t kFormatBF16 = 2;
constexpr uint32_t kMaxColumns = 4096;  // As CheckLayout.

// The fixed part; column sizes and block checksums follow it.
struct FixedHeader {
  std::array<char, 8> magic{};
  uint32_t version = 0;
  uint32_t header_bytes = 0;
  int64_t layer_id = 0;
  uint64_t num_local_rows = 0;
  uint32_t width = 0;
  uint32_t format = 0;
  uint32_t row_bytes = 0;
  uint32_t num_columns = 0;
  uint32_t shard = 0;
  uint32_t num_shards = 0;
  uint32_t block_bytes = 0;
  uint32_t num_blocks = 0;
  Sha256Digest table_digest{};
  Sha256Digest header_digest{};
};
static_assert(sizeof(FixedHeader) == 128);

// Over the whole header with its own digest zero.
Sha256Digest DigestHeader(std::span<const std::byte> header, FixedHeader fixed) {
  fixed.header_digest = {};
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(&fixed, 1)));
  hash.Update(header.subspan(sizeof(fixed)));
  return hash.Finish();
}

uint64_t HeaderBytes(uint64_t num_columns, uint64_t num_blocks) {
  const uint64_t bytes = sizeof(FixedHeader) + num_columns * sizeof(uint32_t) +
                         num_blocks * sizeof(Sha256Digest);
  return (bytes + kFilePageBytes - 1) / kFilePageBytes * kFilePageBytes;
}

absl::Status CheckFixed(const FixedHeader& fixed, uint64_t file_bytes) {
  if (fixed.magic != kMagic) {
    return DataLossF("not an engram table file");
  }
  if (fixed.version != kVersion) {
    return DataLossF("engram table file v{}, expected v{}", fixed.version, kVersion);
  }
  if (fixed.num_columns > kMaxColumns || fixed.block_bytes != kFileBlockBytes ||
      fixed.header_bytes != HeaderBytes(fixed.num_columns, fixed.num_blocks) ||
      fixed.header_bytes > file_bytes) {
    return DataLossF(
        "engram table file with {} columns, {} blocks of {} bytes and a header "
        "of {} in {} bytes",
        fixed.num_columns, fixed.num_blocks, fixed.block_bytes, fixed.header_bytes,
        file_bytes);
  }
  if (fixed.format != kFormatF8 && fixed.format != kFormatBF16) {
    return DataLossF("engram table file of format {}", fixed.format);
  }
  return absl::OkStatus();
}

absl::StatusOr<FixedHeader> ReadFixed(std::span<const std::byte> head,
                                      uint64_t file_bytes) {
  FixedHeader fixed;
  if (head.size() < sizeof(fixed)) {
    return DataLossF("an engram table file of {} bytes", file_bytes);
  }
  std::memcpy(&fixed, head.data(), sizeof(fixed));
  TESSERA_RETURN_IF_ERROR(CheckFixed(fixed, file_bytes));
  return fixed;
}

// Against the layout that the header itself gives.
absl::Status CheckSizes(const FixedHeader& fixed, const TableFileHeader& header,
                        uint64_t file_bytes) {
  const absl::Status layout = CheckLayout(header.layout);
  if (!layout.ok()) {
    return DataLossF("engram table file: {}", layout.ToString());
  }
  absl::StatusOr<ShardMap> map =
      ShardMap::Create(header.layout.column_rows, fixed.num_shards);
  if (!map.ok() || fixed.shard >= fixed.num_shards) {
    return DataLossF("engram table file of shard {} of {}", fixed.shard,
                     fixed.num_shards);
  }
  const uint64_t rows = map->num_local_rows(fixed.shard);
  const uint64_t bytes = rows * fixed.row_bytes;  // Below 2^32 times below 2^18.
  if (static_cast<int64_t>(fixed.row_bytes) != header.layout.row_bytes() ||
      fixed.num_local_rows != rows || fixed.header_bytes + bytes != file_bytes ||
      fixed.num_blocks != (bytes + kFileBlockBytes - 1) / kFileBlockBytes) {
    return DataLossF(
        "engram table file of {} rows of {} bytes and {} blocks in {} bytes, "
        "expected {} rows of {}",
        fixed.num_local_rows, fixed.row_bytes, fixed.num_blocks, file_bytes, rows,
        header.layout.row_bytes());
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::byte> EncodeTableFileHeader(TableFileHeader* header) {
  const TableLayout& layout = header->layout;
  const uint64_t bytes = HeaderBytes(layout.column_rows.size(), header->blocks.size());
  TESSERA_CHECK_LE(bytes, std::numeric_limits<uint32_t>::max());
  header->header_bytes = bytes;
  FixedHeader fixed;
  fixed.magic = kMagic;
  fixed.version = kVersion;
  fixed.header_bytes = static_cast<uint32_t>(bytes);
  fixed.layer_id = layout.layer_id;
  fixed.row_bytes = static_cast<uint32_t>(layout.row_bytes());
  fixed.num_local_rows = header->row_data_bytes / fixed.row_bytes;
  fixed.width = static_cast<uint32_t>(layout.width);
  fixed.format = layout.format == model::DType::kBF16 ? kFormatBF16 : kFormatF8;
  fixed.num_columns = static_cast<uint32_t>(layout.column_rows.size());
  fixed.shard = header->shard.shard;
  fixed.num_shards = header->shard.num_shards;
  fixed.block_bytes = static_cast<uint32_t>(kFileBlockBytes);
  fixed.num_blocks = static_cast<uint32_t>(header->blocks.size());
  TESSERA_CHECK(FromHex(header->digest, &fixed.table_digest));

  std::vector<std::byte> out(bytes);
  std::byte* end = out.data() + sizeof(fixed);
  std::memcpy(end, layout.column_rows.data(),
              layout.column_rows.size() * sizeof(uint32_t));
  end += layout.column_rows.size() * sizeof(uint32_t);
  for (const Sha256Digest& block : header->blocks) {
    std::memcpy(end, block.data(), block.size());
    end += block.size();
  }
  fixed.header_digest = DigestHeader(out, fixed);
  std::memcpy(out.data(), &fixed, sizeof(fixed));
  return out;
}

absl::StatusOr<uint64_t> TableFileHeaderBytes(std::span<const std::byte> first_page,
                                              uint64_t file_bytes) {
  TESSERA_ASSIGN_OR_RETURN(const FixedHeader fixed, ReadFixed(first_page, file_bytes));
  return fixed.header_bytes;
}

absl::StatusOr<TableFileHeader> DecodeTableFileHeader(std::span<const std::byte> head,
                                                      uint64_t file_bytes) {
  TESSERA_ASSIGN_OR_RETURN(const FixedHeader fixed, ReadFixed(head, file_bytes));
  TESSERA_CHECK_LE(fixed.header_bytes, head.size());
  if (DigestHeader(head.first(fixed.header_bytes), fixed) != fixed.header_digest) {
    return DataLossF(
        "the header of an engram table file has another checksum than it says");
  }
  TableFileHeader header;
  header.layout.layer_id = fixed.layer_id;
  header.layout.width = fixed.width;
  header.layout.format =
      fixed.format == kFormatBF16 ? model::DType::kBF16 : model::DType::kF8E4M3;
  header.layout.column_rows.resize(fixed.num_columns);
  const std::byte* in = head.data() + sizeof(fixed);
  std::memcpy(header.layout.column_rows.data(), in, fixed.num_columns * sizeof(uint32_t));
  in += fixed.num_columns * sizeof(uint32_t);
  TESSERA_RETURN_IF_ERROR(CheckSizes(fixed, header, file_bytes));
  header.blocks.resize(fixed.num_blocks);
  for (Sha256Digest& block : header.blocks) {
    std::memcpy(block.data(), in, block.size());
    in += block.size();
  }
  header.shard = {.shard = fixed.shard, .num_shards = fixed.num_shards};
  header.digest = ToHex(fixed.table_digest);
  header.header_bytes = fixed.header_bytes;
  header.row_data_bytes = file_bytes - fixed.header_bytes;
  return header;
}

}  // namespace tessera::engram_store
