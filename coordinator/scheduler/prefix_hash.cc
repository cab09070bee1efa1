#include "coordinator/scheduler/prefix_hash.h"

#include <bit>
#include <cstring>
#include <string>

#include "common/check.h"

namespace tessera::coordinator {
namespace {

// The four words of SipHash's state.
struct SipState {
  uint64_t v0, v1, v2, v3;

  void Round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }

  void Absorb(uint64_t word) {
    v3 ^= word;
    Round();
    Round();
    v0 ^= word;
  }

  uint64_t Squeeze() {
    for (int i = 0; i < 4; ++i) {
      Round();
    }
    return v0 ^ v1 ^ v2 ^ v3;
  }
};

SipState StartSip(const std::array<uint64_t, 2>& key) {
  // The initial constants are "somepseudorandomlygeneratedbytes"; 0xee selects 128 bits
  // of output.
  return {.v0 = key[0] ^ 0x736f6d6570736575ULL,
          .v1 = key[1] ^ 0x646f72616e646f6dULL ^ 0xee,
          .v2 = key[0] ^ 0x6c7967656e657261ULL,
          .v3 = key[1] ^ 0x7465646279746573ULL};
}

PrefixKey FinishSip(SipState state, uint64_t last_word) {
  state.Absorb(last_word);
  state.v2 ^= 0xee;
  PrefixKey result;
  result.low = state.Squeeze();
  state.v1 ^= 0xdd;
  result.high = state.Squeeze();
  return result;
}

void AppendSized(std::string_view text, std::string* out) {
  const uint64_t size = text.size();
  out->append(reinterpret_cast<const char*>(&size), sizeof(size));
  out->append(text);
}

}  // namespace

PrefixKey SipHash128(const std::array<uint64_t, 2>& key,
                     std::span<const std::byte> bytes) {
  SipState state = StartSip(key);
  size_t offset = 0;
  for (; offset + 8 <= bytes.size(); offset += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + offset, 8);
    state.Absorb(word);
  }
  uint64_t last = static_cast<uint64_t>(bytes.size()) << 56;
  for (size_t i = 0; offset + i < bytes.size(); ++i) {
    last |= static_cast<uint64_t>(bytes[offset + i]) << (8 * i);
  }
  return FinishSip(state, last);
}

PrefixHash::PrefixHash(const std::array<uint64_t, 2>& key, int key_bits)
    : key_(key), key_bits_(key_bits) {
  TESSERA_CHECK(key_bits >= 0 && key_bits <= 128);
}

PrefixKey PrefixHash::Root(std::string_view cache_key_prefix, std::string_view tenant,
                           std::string_view cache_salt) const {
  std::string bytes;
  AppendSized(cache_key_prefix, &bytes);
  AppendSized(tenant, &bytes);
  AppendSized(cache_salt, &bytes);
  return Cut(SipHash128(key_, std::as_bytes(std::span(bytes.data(), bytes.size()))));
}

PrefixKey PrefixHash::Extend(const PrefixKey& parent,
                             std::span<const int32_t> tokens) const {
  // The same bytes as hashing parent and tokens laid end to end, without copying them
  // together.
  SipState state = StartSip(key_);
  state.Absorb(parent.low);
  state.Absorb(parent.high);
  size_t i = 0;
  for (; i + 2 <= tokens.size(); i += 2) {
    state.Absorb(static_cast<uint32_t>(tokens[i]) |
                 static_cast<uint64_t>(static_cast<uint32_t>(tokens[i + 1])) << 32);
  }
  uint64_t last = static_cast<uint64_t>(16 + 4 * tokens.size()) << 56;
  if (i < tokens.size()) {
    last |= static_cast<uint32_t>(tokens[i]);
  }
  return Cut(FinishSip(state, last));
}

void PrefixHash::ExtendAll(const PrefixKey& root, std::span<const int32_t> tokens,
                           int64_t block_size, std::vector<PrefixKey>* keys) const {
  const auto width = static_cast<size_t>(block_size);
  for (size_t end = (keys->size() + 1) * width; end <= tokens.size(); end += width) {
    const PrefixKey parent = keys->empty() ? root : keys->back();
    keys->push_back(Extend(parent, tokens.subspan(end - width, width)));
  }
}

PrefixKey PrefixHash::Cut(PrefixKey key) const {
  if (key_bits_ >= 128) {
    return key;
  }
  const int high_bits = key_bits_ > 64 ? key_bits_ - 64 : 0;
  key.high &= (uint64_t{1} << high_bits) - 1;
  if (key_bits_ < 64) {
    key.low &= (uint64_t{1} << key_bits_) - 1;
  }
  return key;
}

}  // namespace tessera::coordinator
