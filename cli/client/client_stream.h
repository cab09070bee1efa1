// ClientStream: the bytes of one connection of HttpClient, plain or inside TLS, as an
// Asio stream. The one place that knows which of the two it is. Brings Asio and Beast
// along.
#ifndef TESSERA_CLI_CLIENT_CLIENT_STREAM_H_
#define TESSERA_CLI_CLIENT_CLIENT_STREAM_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ssl/context.hpp"
#include "boost/asio/ssl/stream.hpp"
#include "boost/beast/core/tcp_stream.hpp"

namespace tessera::cli {

// What TLS connections are made with: 1.2 and 1.3, and the server must show a certificate
// of an authority in `ca_file` (PEM), or of the system where that is empty.
// kInvalidArgument: the file cannot be read or holds no certificate.
absl::StatusOr<std::shared_ptr<boost::asio::ssl::context>> MakeClientTls(
    const std::string& ca_file);

// External synchronisation: the event loop. One read and one write at a time.
class ClientStream {
 public:
  using executor_type = boost::beast::tcp_stream::executor_type;

  // `tls`: null for a plain connection; else the certificate has to be one of `host`.
  ClientStream(boost::asio::io_context& loop, boost::asio::ssl::context* tls,
               const std::string& host);

  executor_type get_executor() { return tcp_.get_executor(); }
  // The connection below TLS, which has the deadlines.
  boost::beast::tcp_stream& tcp() { return tcp_; }
  bool secure() const { return tls_.has_value(); }

  // The client's half of the handshake; only if secure.
  template <typename Handler>
  void AsyncHandshake(Handler&& handler) {
    tls_->async_handshake(boost::asio::ssl::stream_base::client,
                          std::forward<Handler>(handler));
  }

  template <typename Buffers, typename Handler>
  void async_read_some(const Buffers& buffers, Handler&& handler) {
    if (tls_.has_value()) {
      tls_->async_read_some(buffers, std::forward<Handler>(handler));
    } else {
      tcp_.async_read_some(buffers, std::forward<Handler>(handler));
    }
  }

  template <typename Buffers, typename Handler>
  void async_write_some(const Buffers& buffers, Handler&& handler) {
    if (tls_.has_value()) {
      tls_->async_write_some(buffers, std::forward<Handler>(handler));
    } else {
      tcp_.async_write_some(buffers, std::forward<Handler>(handler));
    }
  }

 private:
  boost::beast::tcp_stream tcp_;
  std::optional<boost::asio::ssl::stream<boost::beast::tcp_stream&>> tls_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_CLIENT_STREAM_H_
