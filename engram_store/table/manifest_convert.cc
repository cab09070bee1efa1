#include "engram_store/table/manifest_convert.h"

#include <bit>
#include <cstring>

#include "common/status.h"
#include "proto/engram.pb.h"

namespace tessera::engram_store {
namespace {

static_assert(std::endian::native == std::endian::little,
              "row ids are copied to the wire as they lie in memory");

constexpr int kMaxTables = 256;

}  // namespace

void ManifestToProto(const EngramManifest& manifest, engram::v1::Manifest* proto) {
  proto->set_contract(manifest.contract);
  proto->set_max_ngram(manifest.max_ngram);
  proto->set_num_heads(manifest.num_heads);
  proto->set_compressed_vocab_size(manifest.compressed_vocab_size);
  proto->set_pad_token_id(manifest.pad_token_id);
  proto->set_seed(manifest.seed);
  for (const ManifestTable& table : manifest.tables) {
    engram::v1::Table* out = proto->add_tables();
    out->set_layer_id(table.layout.layer_id);
    out->set_format(table.layout.format == model::DType::kBF16
                        ? engram::v1::ROW_FORMAT_BF16
                        : engram::v1::ROW_FORMAT_F8_E4M3_E8M0);
    out->set_width(static_cast<uint32_t>(table.layout.width));
    out->set_digest(table.digest);
    out->mutable_column_rows()->Assign(table.layout.column_rows.begin(),
                                       table.layout.column_rows.end());
    out->mutable_multipliers()->Assign(table.multipliers.begin(),
                                       table.multipliers.end());
  }
}

absl::StatusOr<EngramManifest> ManifestFromProto(const engram::v1::Manifest& proto) {
  if (proto.tables_size() < 1 || proto.tables_size() > kMaxTables) {
    return DataLossF("engram manifest with {} tables", proto.tables_size());
  }
  EngramManifest manifest;
  manifest.contract = proto.contract();
  manifest.max_ngram = proto.max_ngram();
  manifest.num_heads = proto.num_heads();
  manifest.compressed_vocab_size = proto.compressed_vocab_size();
  manifest.pad_token_id = proto.pad_token_id();
  manifest.seed = proto.seed();
  for (const engram::v1::Table& in : proto.tables()) {
    ManifestTable table;
    table.layout.layer_id = in.layer_id();
    table.layout.width = in.width();
    switch (in.format()) {
      case engram::v1::ROW_FORMAT_F8_E4M3_E8M0:
        table.layout.format = model::DType::kF8E4M3;
        break;
      case engram::v1::ROW_FORMAT_BF16:
        table.layout.format = model::DType::kBF16;
        break;
      default:
        return DataLossF("engram manifest with row format {}",
                         static_cast<int>(in.format()));
    }
    table.layout.column_rows.assign(in.column_rows().begin(), in.column_rows().end());
    table.multipliers.assign(in.multipliers().begin(), in.multipliers().end());
    table.digest = in.digest();
    const absl::Status status = CheckLayout(table.layout);
    if (!status.ok()) {
      return DataLossF("engram manifest: {}", status.ToString());
    }
    manifest.tables.push_back(std::move(table));
  }
  return manifest;
}

std::string RowIdsToBytes(std::span<const uint32_t> row_ids) {
  std::string bytes(row_ids.size_bytes(), '\0');
  if (!row_ids.empty()) {
    std::memcpy(bytes.data(), row_ids.data(), bytes.size());
  }
  return bytes;
}

absl::Status RowIdsFromBytes(std::string_view bytes, std::vector<uint32_t>* row_ids) {
  if (bytes.size() % sizeof(uint32_t) != 0) {
    return InvalidArgumentF("{} bytes of engram row ids, expected a multiple of 4",
                            bytes.size());
  }
  row_ids->resize(bytes.size() / sizeof(uint32_t));
  if (!bytes.empty()) {
    std::memcpy(row_ids->data(), bytes.data(), bytes.size());
  }
  return absl::OkStatus();
}

}  // namespace tessera::engram_store
