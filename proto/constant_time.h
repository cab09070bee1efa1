// Comparison of secrets, and the metadata entries of internal services.
#ifndef TESSERA_PROTO_CONSTANT_TIME_H_
#define TESSERA_PROTO_CONSTANT_TIME_H_

#include <cstddef>
#include <string_view>

namespace tessera::proto {

// The metadata entry that carries a group's token, on every internal service.
inline constexpr char kAuthTokenKey[] = "x-tessera-token";
// The entry of a worker's initial metadata that says that it took the stream.
inline constexpr char kStreamAcceptedKey[] = "x-tessera-accepted";

// True if both are equal. Takes a time that depends on the length of `given` alone, so
// that the answer's delay says nothing about `expected`.
inline bool EqualInConstantTime(std::string_view given, std::string_view expected) {
  unsigned char difference = given.size() == expected.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i) {
    const char other = expected.empty() ? '\0' : expected[i % expected.size()];
    difference = static_cast<unsigned char>(difference | (given[i] ^ other));
  }
  return difference == 0;
}

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_CONSTANT_TIME_H_
