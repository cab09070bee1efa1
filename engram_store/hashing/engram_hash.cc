#include "engram_store/hashing/engram_hash.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/hashing/numpy_generator.h"
#include "model/config/bucket_primes.h"

namespace tessera::engram_store {
namespace {

// Bounds of what a config may ask for, so that a hostile one costs little: published
// models use 4 and 8. kMaxNgram also sizes the window that RowIds keeps on its stack.
constexpr int64_t kMaxNgram = 16;
constexpr int64_t kMaxHeads = 256;
constexpr size_t kMaxLayers = 256;

// Seed step between layers, fixed by DeepSeek's code.
constexpr uint64_t kLayerSeedStep = 10007;

absl::Status CheckConfig(const model::EngramConfig& config) {
  if (config.layer_ids.empty() || config.layer_ids.size() > kMaxLayers) {
    return InvalidArgumentF("{} engram layers, expected 1 to {}", config.layer_ids.size(),
                            kMaxLayers);
  }
  if (config.max_ngram < 2 || config.max_ngram > kMaxNgram) {
    return InvalidArgumentF("engram_max_ngram_size {}, expected 2 to {}",
                            config.max_ngram, kMaxNgram);
  }
  if (config.num_heads < 1 || config.num_heads > kMaxHeads) {
    return InvalidArgumentF("engram_n_heads {}, expected 1 to {}", config.num_heads,
                            kMaxHeads);
  }
  if (static_cast<int64_t>(config.bucket_bases.size()) != config.max_ngram - 1) {
    return InvalidArgumentF("{} bucket bases, expected one for each of {} orders",
                            config.bucket_bases.size(), config.max_ngram - 1);
  }
  for (const int64_t base : config.bucket_bases) {
    if (base < 2 || base > std::numeric_limits<uint32_t>::max()) {
      return InvalidArgumentF("engram_vocab_size {}, expected 2 to 2^32 - 1", base);
    }
  }
  if (!config.num_embeddings.empty() &&
      config.num_embeddings.size() != config.layer_ids.size()) {
    return InvalidArgumentF("{} engram_num_embeddings for {} layers",
                            config.num_embeddings.size(), config.layer_ids.size());
  }
  return absl::OkStatus();
}

absl::Status CheckCompressedIds(const model::EngramConfig& config,
                                std::span<const int32_t> ids) {
  if (ids.empty() || ids.size() > std::numeric_limits<int32_t>::max()) {
    return InvalidArgumentF("{} compressed ids, expected 1 to 2^31 - 1", ids.size());
  }
  const auto [low, high] = std::minmax_element(ids.begin(), ids.end());
  if (*low < 0) {
    return InvalidArgumentF("compressed id {} of token {} is negative", *low,
                            low - ids.begin());
  }
  if (int64_t{*high} + 1 != config.compressed_vocab_size) {
    return InvalidArgumentF(
        "compressed ids give a vocabulary of {}, "
        "engram_compressed_vocab_size is {}",
        int64_t{*high} + 1, config.compressed_vocab_size);
  }
  if (config.pad_token_id < 0 ||
      config.pad_token_id >= static_cast<int64_t>(ids.size())) {
    return InvalidArgumentF("engram_pad_token_id {} is outside the {} token ids",
                            config.pad_token_id, ids.size());
  }
  return absl::OkStatus();
}

// m[k] = 2 r[k] + 1 with r drawn below `half`: id * m stays below 2^63 for every
// compressed id.
absl::StatusOr<std::vector<uint64_t>> DrawMultipliers(const model::EngramConfig& config,
                                                      int64_t layer_id) {
  const uint64_t half = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) /
                        static_cast<uint64_t>(config.compressed_vocab_size) / 2;
  if (half <= uint64_t{1} << 32) {
    return InvalidArgumentF("engram_compressed_vocab_size {} is too large for the hash",
                            config.compressed_vocab_size);
  }
  uint64_t seed = 0;
  if (layer_id < 0 ||
      __builtin_mul_overflow(kLayerSeedStep, static_cast<uint64_t>(layer_id), &seed) ||
      __builtin_add_overflow(seed, config.seed, &seed)) {
    return InvalidArgumentF("engram layer id {} with seed {} gives no 64-bit seed",
                            layer_id, config.seed);
  }
  NumpyGenerator generator(seed);
  std::vector<uint64_t> multipliers;
  for (int64_t k = 0; k < config.max_ngram; ++k) {
    multipliers.push_back(2 * generator.Below(half) + 1);
  }
  return multipliers;
}

// x mod prime for x < 2^63 by Barrett's method: the quotient estimate is at most one too
// small.
uint32_t Reduce(uint64_t x, uint64_t reciprocal, uint32_t prime) {
  __extension__ using Uint128 = unsigned __int128;
  const uint64_t quotient =
      static_cast<uint64_t>((static_cast<Uint128>(x) * reciprocal) >> 64);
  const uint64_t rest = x - quotient * prime;
  return static_cast<uint32_t>(rest >= prime ? rest - prime : rest);
}

}  // namespace

absl::StatusOr<EngramHash> EngramHash::Create(const model::EngramConfig& config,
                                              std::span<const int32_t> compressed_ids) {
  TESSERA_RETURN_IF_ERROR(CheckConfig(config));
  TESSERA_RETURN_IF_ERROR(CheckCompressedIds(config, compressed_ids));
  EngramHash hash;
  hash.max_ngram_ = config.max_ngram;
  hash.num_heads_ = config.num_heads;
  hash.num_columns_ = config.num_columns();
  hash.compressed_ids_.assign(compressed_ids.begin(), compressed_ids.end());
  hash.pad_ =
      static_cast<uint32_t>(compressed_ids[static_cast<size_t>(config.pad_token_id)]);
  TESSERA_ASSIGN_OR_RETURN(std::vector<std::vector<uint32_t>> primes,
                           model::EngramBucketPrimes(config));
  for (size_t i = 0; i < config.layer_ids.size(); ++i) {
    Layer layer;
    TESSERA_ASSIGN_OR_RETURN(layer.multipliers,
                             DrawMultipliers(config, config.layer_ids[i]));
    layer.primes = std::move(primes[i]);
    for (const uint32_t prime : layer.primes) {
      // Equal to floor(2^64 / p) for every prime but 2, where one correction still is
      // enough.
      layer.reciprocals.push_back(std::numeric_limits<uint64_t>::max() / prime);
      layer.offsets.push_back(static_cast<uint32_t>(layer.num_rows));
      layer.num_rows += prime;
    }
    if (!config.num_embeddings.empty() &&
        config.num_embeddings[i] != static_cast<int64_t>(layer.num_rows)) {
      return InvalidArgumentF(
          "engram_num_embeddings {} of layer {}, the primes sum to {}",
          config.num_embeddings[i], config.layer_ids[i], layer.num_rows);
    }
    hash.layers_.push_back(std::move(layer));
  }
  return hash;
}

uint64_t EngramHash::num_rows(int64_t layer) const {
  return layers_[static_cast<size_t>(layer)].num_rows;
}

std::span<const uint64_t> EngramHash::multipliers(int64_t layer) const {
  return layers_[static_cast<size_t>(layer)].multipliers;
}

std::span<const uint32_t> EngramHash::primes(int64_t layer) const {
  return layers_[static_cast<size_t>(layer)].primes;
}

void EngramHash::RowIds(int64_t layer, std::span<const int32_t> raw_ids, int64_t begin,
                        bool at_start, std::span<const uint8_t> dead,
                        std::span<uint32_t> rows) const {
  TESSERA_CHECK(layer >= 0 && layer < num_layers());
  const int64_t num_tokens = static_cast<int64_t>(raw_ids.size());
  TESSERA_CHECK(begin >= 0 && begin <= num_tokens);
  TESSERA_CHECK(at_start || begin >= max_ngram_ - 1);
  TESSERA_CHECK(dead.empty() || dead.size() == raw_ids.size());
  TESSERA_CHECK_EQ(static_cast<int64_t>(rows.size()),
                   (num_tokens - begin) * num_columns_);

  const Layer& table = layers_[static_cast<size_t>(layer)];
  uint32_t* out = rows.data();
  for (int64_t t = begin; t < num_tokens; ++t) {
    // A lookback that leaves the sequence or meets a dead token is blocked, and so are
    // all longer ones: from there on the pad is read.
    std::array<uint64_t, kMaxNgram> products;
    bool blocked = false;
    for (int64_t k = 0; k < max_ngram_; ++k) {
      const size_t position = static_cast<size_t>(t - k);
      blocked = blocked || k > t || (!dead.empty() && dead[position] != 0);
      uint64_t id = pad_;
      if (!blocked) {
        const size_t raw = static_cast<uint32_t>(raw_ids[position]);
        TESSERA_CHECK_LT(raw, compressed_ids_.size());
        id = static_cast<uint32_t>(compressed_ids_[raw]);
      }
      products[static_cast<size_t>(k)] = id * table.multipliers[static_cast<size_t>(k)];
    }
    uint64_t mixed = products[0];
    size_t column = 0;
    for (int64_t order = 2; order <= max_ngram_; ++order) {
      mixed ^= products[static_cast<size_t>(order - 1)];
      for (int64_t head = 0; head < num_heads_; ++head, ++column) {
        *out++ = table.offsets[column] +
                 Reduce(mixed, table.reciprocals[column], table.primes[column]);
      }
    }
  }
}

}  // namespace tessera::engram_store
