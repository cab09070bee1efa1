#include "cli/client/client_stream.h"

#include "boost/asio/ip/address.hpp"

#include "common/status.h"
#include "openssl/err.h"
#include "openssl/ssl.h"
#include "openssl/x509v3.h"

namespace tessera::cli {

absl::StatusOr<std::shared_ptr<boost::asio::ssl::context>> MakeClientTls(
    const std::string& ca_file) {
  SSL_CTX* const raw = SSL_CTX_new(TLS_client_method());
  if (raw == nullptr) {
    return absl::InternalError("openssl has no context");
  }
  auto context = std::make_shared<boost::asio::ssl::context>(raw);  // owns `raw`
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nullptr);
  const int loaded = ca_file.empty() ? SSL_CTX_set_default_verify_paths(raw)
                                     : SSL_CTX_load_verify_file(raw, ca_file.c_str());
  ERR_clear_error();
  if (loaded != 1) {
    return InvalidArgumentF("no certificates of authorities in '{}'", ca_file);
  }
  return context;
}

ClientStream::ClientStream(boost::asio::io_context& loop, boost::asio::ssl::context* tls,
                           const std::string& host)
    : tcp_(loop) {
  if (tls == nullptr) {
    return;
  }
  tls_.emplace(tcp_, *tls);
  SSL* const ssl = tls_->native_handle();
  boost::system::error_code no_address;
  boost::asio::ip::make_address(host, no_address);
  if (no_address) {
    SSL_set_tlsext_host_name(ssl, host.c_str());
    SSL_set1_host(ssl, host.c_str());
  } else {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str());
  }
}

}  // namespace tessera::cli
