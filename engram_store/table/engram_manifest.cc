#include "engram_store/table/engram_manifest.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/sha256.h"

namespace tessera::engram_store {
namespace {

template <typename T>
absl::Status CheckEqual(std::string_view what, const T& expected, const T& found) {
  if (expected == found) {
    return absl::OkStatus();
  }
  return StatusF(absl::StatusCode::kFailedPrecondition,
                 "engram manifest: {} is {}, expected {}", what, found, expected);
}

absl::Status CheckTable(const ManifestTable& expected, const ManifestTable& found) {
  const int64_t layer_id = expected.layout.layer_id;
  TESSERA_RETURN_IF_ERROR(CheckEqual("layer id", layer_id, found.layout.layer_id));
  TESSERA_RETURN_IF_ERROR(CheckEqual("width", expected.layout.width, found.layout.width));
  TESSERA_RETURN_IF_ERROR(CheckEqual("format", model::DTypeName(expected.layout.format),
                                     model::DTypeName(found.layout.format)));
  TESSERA_RETURN_IF_ERROR(
      CheckEqual("rows", expected.layout.num_rows(), found.layout.num_rows()));
  if (expected.layout.column_rows != found.layout.column_rows ||
      expected.multipliers != found.multipliers) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "engram manifest: primes or multipliers of layer {} differ", layer_id);
  }
  if (!expected.digest.empty() && expected.digest != found.digest) {
    return DataLossF("engram table of layer {} has digest {}, expected {}", layer_id,
                     found.digest, expected.digest);
  }
  return absl::OkStatus();
}

void HashText(Sha256* hash, std::string_view text) {
  hash->UpdateNumber(text.size());
  hash->Update(std::as_bytes(std::span(text)));
}

}  // namespace

absl::StatusOr<EngramManifest> MakeManifest(const model::EngramConfig& config,
                                            const EngramHash& hash, model::DType format,
                                            std::span<const std::string> digests) {
  if (!digests.empty() && digests.size() != config.layer_ids.size()) {
    return InvalidArgumentF("{} engram digests for {} layers", digests.size(),
                            config.layer_ids.size());
  }
  EngramManifest manifest;
  manifest.contract = config.contract == model::EngramContract::kDemo ? "demo" : "v41";
  manifest.max_ngram = config.max_ngram;
  manifest.num_heads = config.num_heads;
  manifest.compressed_vocab_size = config.compressed_vocab_size;
  manifest.pad_token_id = config.pad_token_id;
  manifest.seed = config.seed;
  for (int64_t layer = 0; layer < hash.num_layers(); ++layer) {
    const size_t index = static_cast<size_t>(layer);
    ManifestTable table;
    table.layout.layer_id = config.layer_ids[index];
    table.layout.column_rows.assign(hash.primes(layer).begin(), hash.primes(layer).end());
    table.layout.width = config.head_dim;
    table.layout.format = format;
    table.multipliers.assign(hash.multipliers(layer).begin(),
                             hash.multipliers(layer).end());
    table.digest = digests.empty() ? "" : digests[index];
    TESSERA_RETURN_IF_ERROR(CheckLayout(table.layout));
    manifest.tables.push_back(std::move(table));
  }
  return manifest;
}

absl::Status CheckManifest(const EngramManifest& expected, const EngramManifest& found) {
  TESSERA_RETURN_IF_ERROR(CheckEqual("contract", expected.contract, found.contract));
  TESSERA_RETURN_IF_ERROR(
      CheckEqual("longest n-gram", expected.max_ngram, found.max_ngram));
  TESSERA_RETURN_IF_ERROR(CheckEqual("heads", expected.num_heads, found.num_heads));
  TESSERA_RETURN_IF_ERROR(CheckEqual("compressed vocabulary",
                                     expected.compressed_vocab_size,
                                     found.compressed_vocab_size));
  TESSERA_RETURN_IF_ERROR(
      CheckEqual("pad token", expected.pad_token_id, found.pad_token_id));
  TESSERA_RETURN_IF_ERROR(CheckEqual("seed", expected.seed, found.seed));
  TESSERA_RETURN_IF_ERROR(
      CheckEqual("number of tables", expected.tables.size(), found.tables.size()));
  for (size_t i = 0; i < expected.tables.size(); ++i) {
    TESSERA_RETURN_IF_ERROR(CheckTable(expected.tables[i], found.tables[i]));
  }
  return absl::OkStatus();
}

std::string ShardId(const EngramManifest& manifest, ShardIndex shard) {
  Sha256 hash;
  HashText(&hash, "tessera.engram.shard.1");
  HashText(&hash, manifest.contract);
  hash.UpdateNumber(static_cast<uint64_t>(manifest.max_ngram));
  hash.UpdateNumber(static_cast<uint64_t>(manifest.num_heads));
  hash.UpdateNumber(static_cast<uint64_t>(manifest.compressed_vocab_size));
  hash.UpdateNumber(static_cast<uint64_t>(manifest.pad_token_id));
  hash.UpdateNumber(manifest.seed);
  hash.UpdateNumber(manifest.tables.size());
  for (const ManifestTable& table : manifest.tables) {
    hash.UpdateNumber(static_cast<uint64_t>(table.layout.layer_id));
    hash.UpdateNumber(static_cast<uint64_t>(table.layout.width));
    HashText(&hash, model::DTypeName(table.layout.format));
    hash.UpdateNumber(table.layout.column_rows.size());
    for (const uint32_t rows : table.layout.column_rows) {
      hash.UpdateNumber(rows);
    }
    hash.UpdateNumber(table.multipliers.size());
    for (const uint64_t multiplier : table.multipliers) {
      hash.UpdateNumber(multiplier);
    }
    HashText(&hash, table.digest);
  }
  hash.UpdateNumber(shard.shard);
  hash.UpdateNumber(shard.num_shards);
  return ToHex(hash.Finish());
}

}  // namespace tessera::engram_store
