// EngramManifest: everything that decides which rows a token needs and what is in them. A
// client and a shard compare manifests before the first row moves; ids that differ by one
// constant would fetch valid rows of other n-grams, which no later check can see.
#ifndef TESSERA_ENGRAM_STORE_TABLE_ENGRAM_MANIFEST_H_
#define TESSERA_ENGRAM_STORE_TABLE_ENGRAM_MANIFEST_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engram_store/hashing/engram_hash.h"
#include "engram_store/table/engram_table.h"
#include "engram_store/table/table_info.h"
#include "model/config/model_config.h"

namespace tessera::engram_store {

// One layer's part of a manifest.
struct ManifestTable {
  TableLayout layout;
  std::vector<uint64_t> multipliers;
  std::string digest;  // of the rows; empty in a client that does not know it

  friend bool operator==(const ManifestTable&, const ManifestTable&) = default;
};

struct EngramManifest {
  std::string contract;  // "demo" or "v41"
  int64_t max_ngram = 0;
  int64_t num_heads = 0;
  int64_t compressed_vocab_size = 0;
  int64_t pad_token_id = 0;
  uint64_t seed = 0;
  std::vector<ManifestTable> tables;  // in the order of the model's Engram layers

  friend bool operator==(const EngramManifest&, const EngramManifest&) = default;
};

// The manifest of a model: `format` is that of its embed.weight tensors, `digests` are
// those of its tables or empty. kInvalidArgument for a number of digests that is neither.
absl::StatusOr<EngramManifest> MakeManifest(const model::EngramConfig& config,
                                            const EngramHash& hash, model::DType format,
                                            std::span<const std::string> digests);

// OK when `found` may serve a client that expects `expected`; an empty expected digest
// fits any. kFailedPrecondition names the first constant or table that differs, kDataLoss
// a digest.
absl::Status CheckManifest(const EngramManifest& expected, const EngramManifest& found);

// Hex SHA-256 of the manifest and a shard's place: carried by every lookup, so that a
// shard that was restarted with something else is refused.
std::string ShardId(const EngramManifest& manifest, ShardIndex shard);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_ENGRAM_MANIFEST_H_
