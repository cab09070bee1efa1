// IsLoopbackAddress: which addresses a service without TLS may listen on.
#ifndef TESSERA_PROTO_LISTEN_ADDRESS_H_
#define TESSERA_PROTO_LISTEN_ADDRESS_H_

#include <string_view>

namespace tessera::proto {

// True for "127.x.y.z:port", "localhost:port", "[::1]:port" and "unix:path": bytes sent
// there never leave the machine.
inline bool IsLoopbackAddress(std::string_view address) {
  if (address.starts_with("unix:")) {
    return true;
  }
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) {
    return false;
  }
  const std::string_view host = address.substr(0, colon);
  // Digits and dots after "127.", so that a name such as 127.example.org is not taken for
  // an address.
  return host == "localhost" || host == "[::1]" ||
         (host.starts_with("127.") &&
          host.find_first_not_of("0123456789.") == std::string_view::npos);
}

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_LISTEN_ADDRESS_H_
