#include "coordinator/api/api_keys.h"

#include <algorithm>

#include "openssl/crypto.h"
#include "openssl/evp.h"
#include "openssl/hmac.h"
#include "openssl/rand.h"

namespace tessera::coordinator {
namespace {

// No useful key is longer; hashing a header of any length would be work for nothing.
constexpr size_t kMaxKeyBytes = 1024;

bool IsHeaderText(std::string_view key) {
  return std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 0x7F; });
}

}  // namespace

absl::StatusOr<ApiKeys> ApiKeys::Create(const std::vector<std::string>& keys) {
  ApiKeys set;
  if (RAND_bytes(set.pepper_.data(), static_cast<int>(set.pepper_.size())) != 1) {
    return absl::InternalError("openssl has no random bytes");
  }
  for (const std::string& key : keys) {
    if (key.empty() || key.size() > kMaxKeyBytes || !IsHeaderText(key)) {
      return absl::InvalidArgumentError(
          "an api key must have 1 to 1024 visible ASCII characters");
    }
    Digest digest;
    if (!set.Hash(key, &digest)) {
      return absl::InternalError("openssl refused to compute an hmac");
    }
    set.digests_.push_back(digest);
  }
  return set;
}

bool ApiKeys::Hash(std::string_view key, Digest* digest) const {
  unsigned int length = 0;
  const unsigned char* done =
      HMAC(EVP_sha256(), pepper_.data(), static_cast<int>(pepper_.size()),
           reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest->data(),
           &length);
  return done != nullptr && length == digest->size();
}

bool ApiKeys::Accepts(std::string_view candidate) const {
  if (digests_.empty()) {
    return true;
  }
  Digest digest;
  if (candidate.size() > kMaxKeyBytes || !Hash(candidate, &digest)) {
    return false;
  }
  // Every key is looked at, so the time does not tell which one matched.
  bool accepted = false;
  for (const Digest& known : digests_) {
    accepted |= CRYPTO_memcmp(known.data(), digest.data(), digest.size()) == 0;
  }
  return accepted;
}

}  // namespace tessera::coordinator
