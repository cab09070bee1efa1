#include "coordinator/api/http/tls_context.h"

#include <cstring>
#include <utility>

#include "boost/asio/ssl/error.hpp"

#include "common/status.h"
#include "common/status_macros.h"
#include "openssl/err.h"
#include "openssl/ssl.h"

namespace tessera::coordinator {
namespace {

// Of TLS 1.2; those of 1.3 are all good.
constexpr char kCiphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
constexpr unsigned char kSessionContext[] = "tessera";
constexpr unsigned char kHttp11[] = "\x08http/1.1";

// The first error of OpenSSL's queue, which is then empty.
std::string FirstError() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* const reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason == nullptr ? "unknown reason" : reason;
}

// OpenSSL would ask on the terminal.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*data*/) {
  return 0;
}

// HTTP/1.1 for a client that offers it among others; one that offers something else alone
// learns it from the answer.
int ChooseProtocol(SSL* /*ssl*/, const unsigned char** out, unsigned char* out_size,
                   const unsigned char* in, unsigned int in_size, void* /*data*/) {
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, kHttp11, sizeof(kHttp11) - 1, in,
                            in_size) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

absl::Status LoadCertificate(const TlsOptions& options, SSL_CTX* context) {
  SSL_CTX_set_default_passwd_cb(context, &NoPassphrase);
  if (SSL_CTX_use_certificate_chain_file(context, options.certificate_file.c_str()) !=
      1) {
    return InvalidArgumentF("no certificate in {}: {}", options.certificate_file,
                            FirstError());
  }
  if (SSL_CTX_use_PrivateKey_file(context, options.key_file.c_str(), SSL_FILETYPE_PEM) !=
      1) {
    return InvalidArgumentF("no private key of {} in {}: {}", options.certificate_file,
                            options.key_file, FirstError());
  }
  return SSL_CTX_check_private_key(context) == 1
             ? absl::OkStatus()
             : InvalidArgumentF("{} is not the key of {}", options.key_file,
                                options.certificate_file);
}

absl::Status LoadAuthority(const TlsOptions& options, SSL_CTX* context) {
  if (options.client_certificates == ClientCertificates::kNone) {
    return absl::OkStatus();
  }
  STACK_OF(X509_NAME)* names = SSL_load_client_CA_file(options.client_ca_file.c_str());
  if (names == nullptr || SSL_CTX_load_verify_locations(
                              context, options.client_ca_file.c_str(), nullptr) != 1) {
    return InvalidArgumentF("no certificates of clients' authorities in '{}': {}",
                            options.client_ca_file, FirstError());
  }
  SSL_CTX_set_client_CA_list(context, names);
  const bool required = options.client_certificates == ClientCertificates::kRequired;
  SSL_CTX_set_verify(context,
                     SSL_VERIFY_PEER | (required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                     nullptr);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<boost::asio::ssl::context>> MakeContext(
    const TlsOptions& options) {
  SSL_CTX* const raw = SSL_CTX_new(TLS_server_method());
  if (raw == nullptr) {
    return InternalF("openssl has no context: {}", FirstError());
  }
  auto context = std::make_shared<boost::asio::ssl::context>(raw);  // owns `raw`
  SSL_CTX_set_options(raw, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(raw, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_alpn_select_cb(raw, &ChooseProtocol, nullptr);
  if (SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION) != 1 ||
      SSL_CTX_set_cipher_list(raw, kCiphers) != 1 ||
      SSL_CTX_set_session_id_context(raw, kSessionContext, sizeof(kSessionContext) - 1) !=
          1) {
    return InternalF("openssl refuses the rules: {}", FirstError());
  }
  TESSERA_RETURN_IF_ERROR(LoadCertificate(options, raw));
  TESSERA_RETURN_IF_ERROR(LoadAuthority(options, raw));
  return context;
}

}  // namespace

absl::StatusOr<std::shared_ptr<TlsContext>> TlsContext::Create(
    const TlsOptions& options) {
  std::shared_ptr<TlsContext> context(new TlsContext(options));
  TESSERA_RETURN_IF_ERROR(context->Reload());
  return context;
}

absl::Status TlsContext::Reload() {
  TESSERA_ASSIGN_OR_RETURN(auto context, MakeContext(options_));
  MutexLock lock(&mutex_);
  current_ = std::move(context);
  return absl::OkStatus();
}

std::shared_ptr<boost::asio::ssl::context> TlsContext::current() const {
  MutexLock lock(&mutex_);
  return current_;
}

bool IsPlainHttp(const boost::system::error_code& error) {
  const auto code = static_cast<unsigned long>(error.value());
  return error.category() == boost::asio::error::get_ssl_category() &&
         ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST;
}

}  // namespace tessera::coordinator
