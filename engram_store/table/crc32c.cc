#include "engram_store/table/crc32c.h"

#include <array>
#include <cstring>

namespace tessera::engram_store {
namespace {

// 0x1EDC6F41 with its bits reversed (RFC 3720).
constexpr uint32_t kPolynomial = 0x82F63B78;

constexpr std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    }
    table[i] = crc;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = MakeTable();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t Crc32cHardware(
    std::span<const std::byte> bytes) {
  uint64_t crc = ~uint32_t{0};
  const std::byte* in = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; left -= 8, in += 8) {
    uint64_t word;
    std::memcpy(&word, in, sizeof(word));
    crc = __builtin_ia32_crc32di(crc, word);
  }
  uint32_t tail = static_cast<uint32_t>(crc);
  for (; left > 0; --left, ++in) {
    tail = __builtin_ia32_crc32qi(tail, static_cast<uint8_t>(*in));
  }
  return ~tail;
}
#endif

}  // namespace

uint32_t Crc32cPortable(std::span<const std::byte> bytes) {
  uint32_t crc = ~uint32_t{0};
  for (const std::byte byte : bytes) {
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint32_t>(byte)) & 0xFF];
  }
  return ~crc;
}

uint32_t Crc32c(std::span<const std::byte> bytes) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) {
    return Crc32cHardware(bytes);
  }
#endif
  return Crc32cPortable(bytes);
}

}  // namespace tessera::engram_store
