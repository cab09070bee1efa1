// HttpStream: the bytes of one connection, plain or inside TLS, as an Asio stream. The
// one place that knows which of the two it is: for a plain connection every call is the
// socket's own behind one branch. Internal to the server; brings Asio along.
#ifndef TESSERA_COORDINATOR_API_HTTP_HTTP_STREAM_H_
#define TESSERA_COORDINATOR_API_HTTP_HTTP_STREAM_H_

#include <memory>
#include <utility>

#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/ssl/stream.hpp"

#include "coordinator/api/http/tls_context.h"

namespace tessera::coordinator {

// External synchronisation: one strand. Handlers hold whatever owns the stream: a TLS
// operation touches it until it ends. At most one read and one write at a time.
class HttpStream {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  using executor_type = Socket::executor_type;

  // `tls`: null for a plain connection.
  HttpStream(Socket socket, const TlsContext* tls) : socket_(std::move(socket)) {
    if (tls != nullptr) {
      context_ = tls->current();
      tls_ = std::make_unique<TlsStream>(socket_, *context_);
    }
  }

  executor_type get_executor() { return socket_.get_executor(); }
  Socket& socket() { return socket_; }
  bool secure() const { return tls_ != nullptr && !fell_back_; }

  // Small writes leave at once, no call waits, and a peer that is gone is noticed.
  void Prepare();

  // The server's half of the handshake, before anything else; only if secure.
  template <typename Handler>
  void AsyncHandshake(Handler&& handler) {
    tls_->async_handshake(boost::asio::ssl::stream_base::server,
                          std::forward<Handler>(handler));
  }

  // After a handshake that found plain HTTP: an answer can only be plain as well.
  void FallBackToPlain() { fell_back_ = true; }

  template <typename Buffers, typename Handler>
  void async_read_some(const Buffers& buffers, Handler&& handler) {
    if (!secure()) {
      socket_.async_read_some(buffers, std::forward<Handler>(handler));
    } else {
      tls_->async_read_some(buffers, std::forward<Handler>(handler));
    }
  }

  template <typename Buffers, typename Handler>
  void async_write_some(const Buffers& buffers, Handler&& handler) {
    if (!secure()) {
      socket_.async_write_some(buffers, std::forward<Handler>(handler));
    } else {
      tls_->async_write_some(buffers, std::forward<Handler>(handler));
    }
  }

  // Tells the peer that no more bytes follow: with TLS by a close_notify, which leaves at
  // once if the socket has room. `keep` is a handler that only keeps the stream alive.
  template <typename Handler>
  void EndSending(Handler&& keep) {
    if (!secure()) {
      boost::system::error_code ignored;
      socket_.shutdown(Socket::shutdown_send, ignored);
    } else {
      tls_->async_shutdown(std::forward<Handler>(keep));
    }
  }

  // Ends everything under way.
  void Close() {
    boost::system::error_code ignored;
    socket_.close(ignored);
  }

 private:
  using TlsStream = boost::asio::ssl::stream<Socket&>;

  Socket socket_;
  std::shared_ptr<boost::asio::ssl::context> context_;
  std::unique_ptr<TlsStream> tls_;
  bool fell_back_ = false;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_HTTP_STREAM_H_
