#include "engram_store/table/sha256.h"

#include <openssl/evp.h>

#include "common/check.h"

namespace tessera::engram_store {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

}  // namespace

// OpenSSL's digest calls fail only for want of memory, which aborts.
Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  TESSERA_CHECK(context_ != nullptr);
  TESSERA_CHECK_EQ(EVP_DigestInit_ex(context_, EVP_sha256(), nullptr), 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_); }

void Sha256::Update(std::span<const std::byte> bytes) {
  TESSERA_CHECK_EQ(EVP_DigestUpdate(context_, bytes.data(), bytes.size()), 1);
}

void Sha256::UpdateNumber(uint64_t number) {
  std::array<std::byte, 8> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(number >> (8 * i));
  }
  Update(bytes);
}

Sha256Digest Sha256::Finish() {
  Sha256Digest digest;
  unsigned size = 0;
  TESSERA_CHECK_EQ(EVP_DigestFinal_ex(context_, digest.data(), &size), 1);
  TESSERA_CHECK_EQ(size, digest.size());
  return digest;
}

Sha256Digest Sha256::Of(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

std::string ToHex(const Sha256Digest& digest) {
  std::string hex;
  for (const uint8_t byte : digest) {
    hex.push_back(kHexDigits[byte >> 4]);
    hex.push_back(kHexDigits[byte & 15]);
  }
  return hex;
}

bool FromHex(std::string_view hex, Sha256Digest* digest) {
  if (hex.size() != 2 * digest->size()) {
    return false;
  }
  for (size_t i = 0; i < digest->size(); ++i) {
    const size_t high = kHexDigits.find(hex[2 * i]);
    const size_t low = kHexDigits.find(hex[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) {
      return false;
    }
    (*digest)[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

}  // namespace tessera::engram_store
