// TlsContext: the certificate, key and rules that TLS connections of the API are made
// with. The files are read again on request, while older connections keep what they
// began with. It knows no socket; HttpStream makes connections of it.
#ifndef TESSERA_COORDINATOR_API_HTTP_TLS_CONTEXT_H_
#define TESSERA_COORDINATOR_API_HTTP_TLS_CONTEXT_H_

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "boost/asio/ssl/context.hpp"
#include "boost/system/error_code.hpp"

#include "common/mutex.h"
#include "coordinator/api/http/tls_options.h"

namespace tessera::coordinator {

// Thread-safe.
class TlsContext {
 public:
  // TLS 1.2 and 1.3 with forward secrecy, no renegotiation, no compression.
  // kInvalidArgument: a file that cannot be read, a key that is not the certificate's or
  // has a passphrase, client certificates without their authority.
  static absl::StatusOr<std::shared_ptr<TlsContext>> Create(const TlsOptions& options);

  // Reads the files anew for the connections that come. Errors as Create; the old state
  // then stays.
  absl::Status Reload();

  // What a new connection is made with; never null.
  std::shared_ptr<boost::asio::ssl::context> current() const;

 private:
  explicit TlsContext(const TlsOptions& options) : options_(options) {}

  const TlsOptions options_;
  mutable Mutex mutex_;
  std::shared_ptr<boost::asio::ssl::context> current_ ABSL_GUARDED_BY(mutex_);
};

// Whether a handshake failed because the client began with an HTTP request.
bool IsPlainHttp(const boost::system::error_code& error);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_TLS_CONTEXT_H_
