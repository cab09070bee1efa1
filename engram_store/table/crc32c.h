// CRC-32C (Castagnoli), for rows on the wire: TCP's own checksum misses what a broken NIC
// or proxy does. By the CPU's instruction where there is one, else by table.
#ifndef TESSERA_ENGRAM_STORE_TABLE_CRC32C_H_
#define TESSERA_ENGRAM_STORE_TABLE_CRC32C_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace tessera::engram_store {

uint32_t Crc32c(std::span<const std::byte> bytes);

// Without the CPU's instruction: what Crc32c falls back to.
uint32_t Crc32cPortable(std::span<const std::byte> bytes);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_CRC32C_H_
