// HttpServer: HTTP/1.1 on sockets in front of an ApiService. Keep-alive, chunked
// transfer, streaming with a bounded buffer per client, limits on everything a client
// sends, a drain that lets streams finish, and TLS where it is given a context. It knows
// no route. HTTP/2 is a proxy's job.
#ifndef TESSERA_COORDINATOR_API_HTTP_SERVER_H_
#define TESSERA_COORDINATOR_API_HTTP_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "coordinator/api/api_service.h"

namespace tessera::coordinator {

class TlsContext;

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // an address, not a name
  uint16_t port = 8000;            // 0: any free one, see port()
  int num_io_threads = 2;
  int num_handler_threads = 2;  // parse, tokenise and validate
  size_t max_request_bytes = 4 << 20;
  size_t max_header_bytes = 16 << 10;
  size_t max_header_fields = 100;
  size_t max_connections = 16384;
  // A request must arrive whole in this time, counted from its first byte.
  absl::Duration read_timeout = absl::Seconds(60);
  // A connection without a request.
  absl::Duration idle_timeout = absl::Seconds(75);
  // 64 KiB must leave in this time, and a stream must not stay above
  // `stream_buffer_bytes` longer.
  absl::Duration write_timeout = absl::Seconds(60);
  size_t stream_buffer_bytes = 256 << 10;
  // A client this far behind is cut at once, because the engine does not wait for it.
  size_t stream_buffer_bytes_max = 1 << 20;
  // A comment goes out on a stream that has been silent so long.
  absl::Duration keep_alive_interval = absl::Seconds(10);
  // Every connection speaks TLS; null: none does.
  std::shared_ptr<TlsContext> tls;
  // A TLS connection must be agreed upon in this time.
  absl::Duration handshake_timeout = absl::Seconds(10);
};

// Thread-safe. Destruction stops it.
class HttpServer {
 public:
  // Binds and listens, answers nothing yet. kInvalidArgument: the address is none;
  // kUnavailable: it is taken. `service` must outlive the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(
      const HttpServerOptions& options, ApiService* service);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer();

  // Starts the threads. Once.
  void Start();

  // The port in use.
  uint16_t port() const { return port_; }

  // Ends politely: new requests to the engine are answered 503, probes still answered,
  // every connection closes after its answer. Blocks until no answer is under way or
  // `timeout`, then stops listening. Returns how many answers were still under way.
  int64_t Drain(absl::Duration timeout);

  // Cuts every connection, cancels their requests in the engine and joins the threads.
  // Idempotent.
  void Stop();

 private:
  struct Listener;

  HttpServer(std::unique_ptr<Listener> listener, uint16_t port);

  std::unique_ptr<Listener> listener_;
  const uint16_t port_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_SERVER_H_
