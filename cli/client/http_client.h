// HttpClient: requests to one server over HTTP/1.1, one at a time, over one connection
// that is kept between them; answers whole or as server-sent events.
//
// It stands under OpenAiClient, which knows what the bytes mean. It follows no redirects,
// sends no cookies and never repeats a request by itself, because a POST that generates
// is not idempotent.
#ifndef TESSERA_CLI_CLIENT_HTTP_CLIENT_H_
#define TESSERA_CLI_CLIENT_HTTP_CLIENT_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/client/sse_parser.h"

namespace tessera::cli {

// Where an http:// or https:// URL points.
struct HttpUrl {
  bool tls = false;
  std::string host;  // An IPv6 address without its brackets.
  std::string port;  // 80 or 443 where the URL has none.
  std::string path;  // Empty, or starts with '/' and does not end with it.
};

// kInvalidArgument: anything but http[s]://HOST[:PORT][/PATH].
absl::StatusOr<HttpUrl> ParseHttpUrl(const std::string& url);

struct HttpClientOptions {
  std::string url;  // The paths of requests are appended to the path of this one.
  // Authorities (PEM) of the certificate of an https:// server; empty: the system's.
  std::string ca_file = {};
  absl::Duration connect_timeout = absl::Seconds(5);
  // The longest silence of the server, also between two pieces of one answer.
  absl::Duration read_timeout = absl::Minutes(10);
  // A file descriptor whose becoming readable cancels what runs, such as a signalfd or an
  // eventfd; -1: none. It stays the caller's, is never read, and may be shared.
  int cancel_descriptor = -1;
  // Sent with every request, beside those that HTTP needs.
  std::vector<std::pair<std::string, std::string>> headers = {};
  size_t body_bytes_max = size_t{64} << 20;  // Of an answer that is not a stream.
  size_t event_bytes_max = size_t{8} << 20;
};

struct HttpReply {
  int status = 0;
  std::string body;  // Empty when it went out as events.
};

// Takes the events of a stream one by one; false: enough, close the connection.
using SseSink = std::function<bool(const SseEvent& event)>;

// Owns its connection. External synchronisation; another thread or a signal stops a call
// through the cancel descriptor. Every call blocks until its answer is complete.
class HttpClient {
 public:
  // Does not connect. kInvalidArgument: a bad URL or `ca_file`; kInternal: no cancel
  // descriptor.
  static absl::StatusOr<std::unique_ptr<HttpClient>> Create(
      const HttpClientOptions& options);
  ~HttpClient();

  // The answer, whatever its status code. kUnavailable: no connection, a certificate that
  // is not trusted or not the host's, or it ended before
  // the answer did; kDeadlineExceeded: a timeout passed; kCancelled: through the cancel
  // descriptor; kDataLoss: not HTTP; kResourceExhausted: the answer is too large.
  absl::StatusOr<HttpReply> Get(const std::string& path);
  absl::StatusOr<HttpReply> Post(const std::string& path, const std::string& json);

  // As Post, but a successful answer of the type text/event-stream goes to `sink` as it
  // arrives. OK also when the sink stopped it.
  absl::StatusOr<HttpReply> PostForEvents(const std::string& path,
                                          const std::string& json, const SseSink& sink);

 private:
  class Connection;

  HttpClient(const HttpClientOptions& options, HttpUrl url);

  std::unique_ptr<Connection> connection_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_HTTP_CLIENT_H_
