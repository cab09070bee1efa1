// Sha256: SHA-256 over pieces, by OpenSSL (SHA instructions where the CPU has them, about
// 2 GB/s a core). The only checksum of tables.
#ifndef TESSERA_ENGRAM_STORE_TABLE_SHA256_H_
#define TESSERA_ENGRAM_STORE_TABLE_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace tessera::engram_store {

using Sha256Digest = std::array<uint8_t, 32>;

// External synchronisation; spent by Finish.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::span<const std::byte> bytes);
  // Eight bytes, little-endian.
  void UpdateNumber(uint64_t number);
  Sha256Digest Finish();

  static Sha256Digest Of(std::span<const std::byte> bytes);

 private:
  evp_md_ctx_st* context_;
};

// 64 lower-case hex digits.
std::string ToHex(const Sha256Digest& digest);

// False unless `hex` is 64 hex digits.
bool FromHex(std::string_view hex, Sha256Digest* digest);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_SHA256_H_
