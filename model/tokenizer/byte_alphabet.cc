#include "model/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "model/tokenizer/utf8.h"

namespace tessera::model {
namespace {

// All spellings lie below this code point: 256 plus the 68 bytes that are not printable.
constexpr size_t kNumCodePoints = 256 + 68;

struct Alphabet {
  std::array<uint16_t, 256> code_point_of{};
  std::array<int16_t, kNumCodePoints> byte_of{};
};

constexpr bool SpellsItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte_of) {
    byte = -1;
  }
  uint16_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const uint16_t code_point = SpellsItself(byte) ? static_cast<uint16_t>(byte) : next++;
    alphabet.code_point_of[static_cast<size_t>(byte)] = code_point;
    alphabet.byte_of[code_point] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

std::optional<std::string> BytesOfSpelling(std::string_view spelled) {
  std::string bytes;
  bytes.reserve(spelled.size());
  for (size_t pos = 0; pos < spelled.size();) {
    // The alphabet has one- and two-byte characters only.
    uint32_t code_point = static_cast<uint8_t>(spelled[pos]);
    size_t num_bytes = 1;
    if ((code_point & 0xE0) == 0xC0 && pos + 1 < spelled.size()) {
      const uint32_t second = static_cast<uint8_t>(spelled[pos + 1]);
      code_point = ((code_point & 0x1F) << 6) | (second & 0x3F);
      num_bytes = 2;
    } else if (code_point >= 0x80) {
      return std::nullopt;
    }
    if (code_point >= kNumCodePoints || kAlphabet.byte_of[code_point] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(kAlphabet.byte_of[code_point]));
    pos += num_bytes;
  }
  return bytes;
}

std::string SpellBytes(std::string_view bytes) {
  std::string spelled;
  for (const char c : bytes) {
    AppendUtf8(kAlphabet.code_point_of[static_cast<uint8_t>(c)], &spelled);
  }
  return spelled;
}

}  // namespace tessera::model
