// ApiKeys: the accepted API keys and whose they are. A key is known by its SHA-256 alone,
// in the operator's file and here: keys are long and random, so their hash gives nothing
// away and needs neither salt nor a slow function. Memory holds an HMAC of that hash
// under a random key of this process, and a candidate is compared with every one in
// constant time. It knows no HTTP and no file.
#ifndef TESSERA_COORDINATOR_API_ACCESS_API_KEYS_H_
#define TESSERA_COORDINATOR_API_ACCESS_API_KEYS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "coordinator/api/access/key_info.h"

namespace tessera::coordinator {

using KeyDigest = std::array<uint8_t, 32>;

// One accepted key.
struct ApiKeyRecord {
  KeyDigest digest{};  // SHA-256 of the key's characters
  KeyInfo info;
  absl::Time expires = absl::InfiniteFuture();
};

// The set is scanned for every request.
inline constexpr size_t kMaxApiKeys = 4096;

// A new key: "sk-" and 256 random bits in hexadecimal. kInternal: no random bytes.
absl::StatusOr<std::string> NewApiKey();

// kInternal: OpenSSL refused.
absl::StatusOr<KeyDigest> HashApiKey(std::string_view key);

// "sha256:" and 64 hexadecimal digits, as files of keys have it.
std::string ShowKeyDigest(const KeyDigest& digest);
// kInvalidArgument: anything else. Capitals are accepted.
absl::StatusOr<KeyDigest> ParseKeyDigest(std::string_view text);

// The record of a key that was given in clear (--api-key). Its tenant is made from the
// key, "key-" and eight digits of its hash: two keys are two tenants, and stay so over a
// restart. kInvalidArgument: an empty key, or one that a header can't carry.
absl::StatusOr<ApiKeyRecord> RecordOfPlainKey(std::string_view key, KeyRole role);

// Immutable after Create; thread-safe. Copyable.
class ApiKeys {
 public:
  // No records: the set is empty and everybody is let in. kInvalidArgument: more than
  // kMaxApiKeys, or one key with two owners. kInternal: OpenSSL has no random bytes.
  static absl::StatusOr<ApiKeys> Create(const std::vector<ApiKeyRecord>& records);

  bool empty() const { return entries_.empty(); }

  // Whose key `candidate` is; nothing where it is none or has expired by `now`. Without
  // keys everybody is the tenant "", with every right.
  std::optional<KeyInfo> Find(std::string_view candidate, absl::Time now) const;

 private:
  struct Entry {
    KeyDigest mac{};
    KeyInfo info;
    absl::Time expires;
  };

  ApiKeys() = default;
  bool Seal(const KeyDigest& digest, KeyDigest* mac) const;

  KeyDigest pepper_{};
  std::vector<Entry> entries_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ACCESS_API_KEYS_H_
