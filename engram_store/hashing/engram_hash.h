// EngramHash: token ids to table rows. All constants of one model (multipliers, primes,
// offsets) are derived from the config as DeepSeek's engram code does (engram.md 2-4;
// worked examples A-F are tests). A row id is global: the column offset is already added.
#ifndef TESSERA_ENGRAM_STORE_HASHING_ENGRAM_HASH_H_
#define TESSERA_ENGRAM_STORE_HASHING_ENGRAM_HASH_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "model/config/model_config.h"

namespace tessera::engram_store {

// Immutable after Create; thread-safe.
class EngramHash {
 public:
  // `compressed_ids`: raw id -> compressed id, one per token id (the tensor
  // engram.compressed_ids). kInvalidArgument: 1 + max differs from
  // engram_compressed_vocab_size, negative ids, a table of 2^32 rows or more, sums of
  // primes that differ from engram_num_embeddings.
  static absl::StatusOr<EngramHash> Create(const model::EngramConfig& config,
                                           std::span<const int32_t> compressed_ids);

  int64_t num_layers() const { return static_cast<int64_t>(layers_.size()); }
  int64_t num_columns() const { return num_columns_; }
  // Raw ids accepted are 0 .. num_token_ids() - 1.
  int64_t num_token_ids() const { return static_cast<int64_t>(compressed_ids_.size()); }
  std::span<const int32_t> compressed_ids() const { return compressed_ids_; }
  // Rows of the table of engram layer `layer` (an index, not a layer id).
  uint64_t num_rows(int64_t layer) const;
  std::span<const uint64_t> multipliers(int64_t layer) const;  // [N]
  std::span<const uint32_t> primes(int64_t layer) const;       // [C]

  // Rows of tokens raw_ids[begin..]: rows[(t - begin) * C + column]. raw_ids[0..begin) is
  // the lookback; the sequence starts at raw_ids[0] only if `at_start` (else begin must
  // be >= N-1). `dead` is empty or one flag per raw id (image tokens; contract v41).
  // Never allocates. Every raw id must be < num_token_ids() (checked).
  void RowIds(int64_t layer, std::span<const int32_t> raw_ids, int64_t begin,
              bool at_start, std::span<const uint8_t> dead,
              std::span<uint32_t> rows) const;

 private:
  struct Layer {
    std::vector<uint64_t> multipliers;  // [N]
    std::vector<uint32_t> primes;       // [C]
    std::vector<uint64_t> reciprocals;  // [C] floor(2^64 / prime), Barrett
    std::vector<uint32_t> offsets;      // [C]
    uint64_t num_rows = 0;
  };
  EngramHash() = default;

  int64_t max_ngram_ = 0;
  int64_t num_heads_ = 0;
  int64_t num_columns_ = 0;
  uint32_t pad_ = 0;  // compressed
  std::vector<int32_t> compressed_ids_;
  std::vector<Layer> layers_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_HASHING_ENGRAM_HASH_H_
