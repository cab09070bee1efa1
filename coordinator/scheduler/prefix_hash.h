// PrefixHash: names of KV block contents. The name of a block covers everything before
// it: the model's cache key, the tenant, and all tokens up to the block's end, as a chain
// of keyed 128-bit hashes (SipHash-2-4-128 of Aumasson and Bernstein). The key is random
// per process, so that nobody outside can build collisions. The block manager still
// compares tokens: a hash alone never decides what is shared.
#ifndef TESSERA_COORDINATOR_SCHEDULER_PREFIX_HASH_H_
#define TESSERA_COORDINATOR_SCHEDULER_PREFIX_HASH_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera::coordinator {

// 128 bits that name a chain of blocks.
struct PrefixKey {
  uint64_t low = 0;
  uint64_t high = 0;

  bool operator==(const PrefixKey&) const = default;

  // The bits are uniform already; a table only has to take them.
  template <typename H>
  friend H AbslHashValue(H state, const PrefixKey& key) {
    return H::combine(std::move(state), key.low, key.high);
  }
};

// SipHash-2-4 with 128 bits of output.
PrefixKey SipHash128(const std::array<uint64_t, 2>& key,
                     std::span<const std::byte> bytes);

// Immutable; thread-safe.
class PrefixHash {
 public:
  // `key_bits` < 128 drops bits: only tests of collisions do that.
  explicit PrefixHash(const std::array<uint64_t, 2>& key, int key_bits = 128);

  // The start of a tenant's chain. All strings are covered with their lengths, so that no
  // salt can imitate a tenant.
  PrefixKey Root(std::string_view cache_key_prefix, std::string_view tenant,
                 std::string_view cache_salt = {}) const;

  // The key of the block that holds `tokens` after the chain `parent`.
  PrefixKey Extend(const PrefixKey& parent, std::span<const int32_t> tokens) const;

  // Appends to `keys` the keys of all full blocks of `tokens` that it lacks. Linear in
  // what is new.
  void ExtendAll(const PrefixKey& root, std::span<const int32_t> tokens,
                 int64_t block_size, std::vector<PrefixKey>* keys) const;

 private:
  PrefixKey Cut(PrefixKey key) const;

  std::array<uint64_t, 2> key_;
  int key_bits_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_PREFIX_HASH_H_
