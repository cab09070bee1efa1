// TlsOptions: which files the doors' TLS stands on, and whom they let in. A plain value.
#ifndef TESSERA_COORDINATOR_API_HTTP_TLS_OPTIONS_H_
#define TESSERA_COORDINATOR_API_HTTP_TLS_OPTIONS_H_

#include <string>

namespace tessera::coordinator {

// Whether clients show certificates of their own, signed by `client_ca_file`.
enum class ClientCertificates { kNone, kOptional, kRequired };

struct TlsOptions {
  std::string certificate_file = {};  // PEM: the server's, then the intermediate ones
  std::string key_file = {};          // PEM, without a passphrase
  std::string client_ca_file = {};    // PEM; empty with kNone
  ClientCertificates client_certificates = ClientCertificates::kNone;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_TLS_OPTIONS_H_
