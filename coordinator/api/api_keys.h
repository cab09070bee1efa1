// ApiKeys: the set of accepted API keys. Keys are kept as HMAC-SHA-256 under a random key
// of this process, and a candidate is compared with every one of them in constant time,
// so neither memory nor timing gives a key away. It knows no HTTP.
#ifndef TESSERA_COORDINATOR_API_API_KEYS_H_
#define TESSERA_COORDINATOR_API_API_KEYS_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tessera::coordinator {

// Immutable after Create; thread-safe. Copyable.
class ApiKeys {
 public:
  // No keys: the set is empty and every caller is let in. kInvalidArgument: an empty key
  // or one that a header can't carry. kInternal: OpenSSL has no random bytes.
  static absl::StatusOr<ApiKeys> Create(const std::vector<std::string>& keys);

  bool empty() const { return digests_.empty(); }

  // True if `candidate` is one of the keys, or if there are none.
  bool Accepts(std::string_view candidate) const;

 private:
  using Digest = std::array<unsigned char, 32>;

  ApiKeys() = default;
  bool Hash(std::string_view key, Digest* digest) const;

  Digest pepper_{};
  std::vector<Digest> digests_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_API_KEYS_H_
