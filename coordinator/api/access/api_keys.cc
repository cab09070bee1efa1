#include "coordinator/api/access/api_keys.h"

#include <algorithm>

#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "openssl/crypto.h"
#include "openssl/evp.h"
#include "openssl/hmac.h"
#include "openssl/rand.h"

namespace tessera::coordinator {
namespace {

// No useful key is longer; hashing a header of any length would be work for nothing.
constexpr size_t kMaxKeyBytes = 1024;
constexpr std::string_view kHashPrefix = "sha256:";

bool IsHeaderText(std::string_view key) {
  return std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 0x7F; });
}

std::string Hexadecimal(const uint8_t* bytes, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

bool RandomBytes(KeyDigest* bytes) {
  return RAND_bytes(bytes->data(), static_cast<int>(bytes->size())) == 1;
}

}  // namespace

absl::StatusOr<std::string> NewApiKey() {
  KeyDigest bytes;
  if (!RandomBytes(&bytes)) {
    return absl::InternalError("openssl has no random bytes");
  }
  return "sk-" + Hexadecimal(bytes.data(), bytes.size());
}

absl::StatusOr<KeyDigest> HashApiKey(std::string_view key) {
  KeyDigest digest;
  unsigned int length = 0;
  if (EVP_Digest(key.data(), key.size(), digest.data(), &length, EVP_sha256(), nullptr) !=
          1 ||
      length != digest.size()) {
    return absl::InternalError("openssl refused to compute a sha-256");
  }
  return digest;
}

std::string ShowKeyDigest(const KeyDigest& digest) {
  return std::string(kHashPrefix) + Hexadecimal(digest.data(), digest.size());
}

absl::StatusOr<KeyDigest> ParseKeyDigest(std::string_view text) {
  KeyDigest digest;
  const bool whole = text.starts_with(kHashPrefix) &&
                     text.size() == kHashPrefix.size() + 2 * digest.size();
  if (whole) {
    text.remove_prefix(kHashPrefix.size());
  }
  for (size_t i = 0; whole && i < digest.size(); ++i) {
    const int high = HexDigit(text[2 * i]);
    const int low = HexDigit(text[2 * i + 1]);
    if (high < 0 || low < 0) {
      return absl::InvalidArgumentError("a hash has a character that is no hex digit");
    }
    digest[i] = static_cast<uint8_t>(high * 16 + low);
  }
  if (!whole) {
    // The text may be a key in clear, which no message repeats.
    return absl::InvalidArgumentError(
        "a hash is not sha256: and 64 hex digits; `tessera key` prints one");
  }
  return digest;
}

absl::StatusOr<ApiKeyRecord> RecordOfPlainKey(std::string_view key, KeyRole role) {
  if (key.empty() || key.size() > kMaxKeyBytes || !IsHeaderText(key)) {
    return absl::InvalidArgumentError(
        "an api key must have 1 to 1024 visible ASCII characters");
  }
  ApiKeyRecord record;
  TESSERA_ASSIGN_OR_RETURN(record.digest, HashApiKey(key));
  record.info.tenant = "key-" + Hexadecimal(record.digest.data(), 4);
  record.info.role = role;
  return record;
}

absl::StatusOr<ApiKeys> ApiKeys::Create(const std::vector<ApiKeyRecord>& records) {
  if (records.size() > kMaxApiKeys) {
    return InvalidArgumentF("{} api keys, expected at most {}", records.size(),
                            kMaxApiKeys);
  }
  ApiKeys set;
  if (!RandomBytes(&set.pepper_)) {
    return absl::InternalError("openssl has no random bytes");
  }
  for (const ApiKeyRecord& record : records) {
    Entry entry{{}, record.info, record.expires};
    if (!set.Seal(record.digest, &entry.mac)) {
      return absl::InternalError("openssl refused to compute an hmac");
    }
    const auto same =
        std::find_if(set.entries_.begin(), set.entries_.end(),
                     [&](const Entry& other) { return other.mac == entry.mac; });
    if (same != set.entries_.end() && !(same->info == entry.info)) {
      return InvalidArgumentF("one api key is given to {} and to {}", same->info.tenant,
                              entry.info.tenant);
    }
    set.entries_.push_back(std::move(entry));
  }
  return set;
}

bool ApiKeys::Seal(const KeyDigest& digest, KeyDigest* mac) const {
  unsigned int length = 0;
  const unsigned char* done =
      HMAC(EVP_sha256(), pepper_.data(), static_cast<int>(pepper_.size()), digest.data(),
           digest.size(), mac->data(), &length);
  return done != nullptr && length == mac->size();
}

std::optional<KeyInfo> ApiKeys::Find(std::string_view candidate, absl::Time now) const {
  if (entries_.empty()) {
    return KeyInfo{.tenant = "", .name = "", .role = KeyRole::kAdmin};
  }
  if (candidate.size() > kMaxKeyBytes) {
    return std::nullopt;
  }
  const auto digest = HashApiKey(candidate);
  KeyDigest mac;
  if (!digest.ok() || !Seal(*digest, &mac)) {
    return std::nullopt;
  }
  // Every key is looked at, so the time does not tell which one matched.
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.mac.data(), mac.data(), mac.size()) == 0) {
      found = &entry;
    }
  }
  return found != nullptr && now < found->expires ? std::optional(found->info)
                                                  : std::nullopt;
}

}  // namespace tessera::coordinator
