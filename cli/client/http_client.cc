#include "cli/client/http_client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/posix/stream_descriptor.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"
#include "cli/client/client_stream.h"
#include <fcntl.h>
#include <sys/socket.h>

#include "common/build_info.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr size_t kPieceBytes = 16 << 10;
constexpr uint32_t kHeaderBytesMax = 64 << 10;

std::chrono::nanoseconds ToChrono(absl::Duration duration) {
  // Bounded, because a deadline is this added to the present.
  return absl::ToChronoNanoseconds(std::min(duration, absl::Hours(24)));
}

// True while the server neither closed the idle connection nor sent what nobody asked
// for.
bool StillIdle(int socket) {
  char byte = 0;
  const ssize_t got = ::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

}  // namespace

absl::StatusOr<HttpUrl> ParseHttpUrl(const std::string& url) {
  std::string_view rest = url;
  HttpUrl out;
  out.tls = rest.starts_with("https://");
  out.port = out.tls ? "443" : "80";
  const std::string_view scheme = out.tls ? "https://" : "http://";
  const bool clean =
      std::all_of(rest.begin(), rest.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  if (!clean || !rest.starts_with(scheme) ||
      rest.find_first_of("?#@") != std::string_view::npos) {
    return InvalidArgumentF("'{}' is no URL like http://127.0.0.1:8000", url);
  }
  rest.remove_prefix(scheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view authority = rest.substr(0, slash);
  out.path = rest.substr(slash);
  while (out.path.ends_with('/')) {
    out.path.pop_back();
  }
  size_t host_end = authority.find(':');
  if (authority.starts_with('[')) {
    const size_t bracket = authority.find(']');
    if (bracket == std::string_view::npos) {
      return InvalidArgumentF("'{}': the bracket of the address is not closed", url);
    }
    out.host = authority.substr(1, bracket - 1);
    host_end = bracket + 1 < authority.size() ? bracket + 1 : std::string_view::npos;
  } else {
    out.host = authority.substr(0, host_end);
  }
  if (host_end != std::string_view::npos) {
    if (authority[host_end] != ':') {
      return InvalidArgumentF("'{}': expected a port after the address", url);
    }
    out.port = authority.substr(host_end + 1);
  }
  const bool digits = std::all_of(out.port.begin(), out.port.end(),
                                  [](char c) { return c >= '0' && c <= '9'; });
  if (out.host.empty() || out.port.empty() || out.port.size() > 5 || !digits ||
      std::stoi(out.port) > 65535) {
    return InvalidArgumentF("'{}': expected a host and a port of at most 65535", url);
  }
  return out;
}

// The blocking calls stand on asynchronous ones, each run to its end on an event loop of
// the connection's own: only those have timeouts, and only so can a descriptor cut in.
class HttpClient::Connection {
 public:
  Connection(const HttpClientOptions& options, HttpUrl url)
      : options_(options), url_(std::move(url)), cancel_(loop_) {}

  // Reads the authorities of an https:// server.
  absl::Status PrepareTls() {
    if (url_.tls) {
      TESSERA_ASSIGN_OR_RETURN(tls_, MakeClientTls(options_.ca_file));
    }
    Close();
    return absl::OkStatus();
  }

  absl::Status WatchCancel() {
    if (options_.cancel_descriptor < 0) {
      return absl::OkStatus();
    }
    const int copy = ::fcntl(options_.cancel_descriptor, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) {
      return InternalF("the cancel descriptor {} is not open",
                       options_.cancel_descriptor);
    }
    error_code error;
    cancel_.assign(copy, error);
    if (error) {
      return InternalF("the cancel descriptor cannot be watched: {}", error.message());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<HttpReply> Exchange(http::verb verb, const std::string& path,
                                     const std::string& json, const SseSink* sink) {
    cancelled_ = false;
    ArmCancel();
    absl::StatusOr<HttpReply> reply = Send(verb, path, json, sink);
    if (!reply.ok()) {
      Close();
    }
    return reply;
  }

 private:
  absl::StatusOr<HttpReply> Send(http::verb verb, const std::string& path,
                                 const std::string& json, const SseSink* sink) {
    TESSERA_RETURN_IF_ERROR(Connect());
    http::request<http::string_body> request(verb, url_.path + path, 11);
    const bool v6 = url_.host.find(':') != std::string::npos;
    const std::string host = v6 ? "[" + url_.host + "]" : url_.host;
    request.set(http::field::host, host + ":" + url_.port);
    request.set(http::field::user_agent, "tessera/" + std::string(Version()));
    if (verb == http::verb::post) {
      request.set(http::field::content_type, "application/json");
      request.body() = json;
    }
    for (const auto& [name, value] : options_.headers) {
      request.set(name, value);
    }
    request.prepare_payload();
    TESSERA_RETURN_IF_ERROR(Await(options_.read_timeout, [&](auto done) {
      http::async_write(*stream_, request, std::move(done));
    }));

    http::response_parser<http::buffer_body> parser;
    parser.header_limit(kHeaderBytesMax);
    // The body is bounded where it is kept: a stream may go on for long.
    parser.body_limit(std::numeric_limits<uint64_t>::max());
    TESSERA_RETURN_IF_ERROR(Await(options_.read_timeout, [&](auto done) {
      http::async_read_header(*stream_, buffer_, parser, std::move(done));
    }));
    HttpReply reply;
    reply.status = static_cast<int>(parser.get().result_int());
    const beast::string_view type = parser.get()[http::field::content_type];
    const bool events = sink != nullptr && reply.status / 100 == 2 &&
                        type.starts_with("text/event-stream");
    TESSERA_ASSIGN_OR_RETURN(const bool whole, events ? ReadEvents(&parser, *sink)
                                                      : ReadBody(&parser, &reply.body));
    if (!whole || !parser.get().keep_alive()) {
      Close();
    }
    return reply;
  }

  absl::Status Connect() {
    if (connected_ && buffer_.size() == 0 &&
        StillIdle(stream_->tcp().socket().native_handle())) {
      return absl::OkStatus();
    }
    Close();
    error_code error;
    asio::ip::tcp::resolver resolver(loop_);
    const auto addresses = resolver.resolve(url_.host, url_.port, error);
    if (error) {
      return UnavailableF("{} has no address: {}", url_.host, error.message());
    }
    absl::Status status = Await(options_.connect_timeout, [&](auto done) {
      stream_->tcp().async_connect(addresses, std::move(done));
    });
    if (status.ok() && stream_->secure()) {
      status = Await(options_.connect_timeout,
                     [&](auto done) { stream_->AsyncHandshake(std::move(done)); });
    }
    if (!status.ok()) {
      return WithContext(status,
                         fmt::format("connecting to {}:{}", url_.host, url_.port));
    }
    stream_->tcp().socket().set_option(asio::ip::tcp::no_delay(true), error);
    connected_ = true;
    return absl::OkStatus();
  }

  // Reads what is there of the body into `piece`, at least one byte unless it is done.
  absl::StatusOr<std::string_view> ReadPiece(
      http::response_parser<http::buffer_body>* parser) {
    auto& body = parser->get().body();
    while (!parser->is_done()) {
      body.data = piece_.data();
      body.size = piece_.size();
      body.more = true;
      TESSERA_RETURN_IF_ERROR(Await(options_.read_timeout, [&](auto done) {
        http::async_read_some(*stream_, buffer_, *parser, std::move(done));
      }));
      if (body.size < piece_.size()) {
        return std::string_view(piece_.data(), piece_.size() - body.size);
      }
    }
    return std::string_view();
  }

  // True when the body was read to its end.
  absl::StatusOr<bool> ReadBody(http::response_parser<http::buffer_body>* parser,
                                std::string* body) {
    while (!parser->is_done()) {
      TESSERA_ASSIGN_OR_RETURN(const std::string_view piece, ReadPiece(parser));
      body->append(piece);
      if (body->size() > options_.body_bytes_max) {
        return StatusF(absl::StatusCode::kResourceExhausted,
                       "the answer is larger than {} bytes", options_.body_bytes_max);
      }
    }
    return true;
  }

  absl::StatusOr<bool> ReadEvents(http::response_parser<http::buffer_body>* parser,
                                  const SseSink& sink) {
    SseParser sse(options_.event_bytes_max);
    std::vector<SseEvent> events;
    while (!parser->is_done()) {
      TESSERA_ASSIGN_OR_RETURN(const std::string_view piece, ReadPiece(parser));
      TESSERA_RETURN_IF_ERROR(sse.Append(piece, &events));
      for (const SseEvent& event : events) {
        if (!sink(event)) {
          return false;
        }
      }
      events.clear();
    }
    return true;
  }

  // Runs `start(completion)` to its end, its timeout or the cancellation.
  template <typename Start>
  absl::Status Await(absl::Duration timeout, const Start& start) {
    if (cancelled_) {
      return absl::CancelledError("cancelled");
    }
    std::optional<error_code> result;
    stream_->tcp().expires_after(ToChrono(timeout));
    start([&result](const error_code& error, const auto&...) { result = error; });
    while (!result.has_value()) {
      loop_.restart();
      loop_.run_one();
    }
    stream_->tcp().expires_never();
    if (cancelled_ && *result) {
      return absl::CancelledError("cancelled");
    }
    // More of the body than the buffer takes is the next read's.
    return *result == http::error::need_buffer ? absl::OkStatus()
                                               : ToStatus(*result, timeout);
  }

  static absl::Status ToStatus(const error_code& error, absl::Duration timeout) {
    if (!error) {
      return absl::OkStatus();
    }
    if (error == beast::error::timeout) {
      return DeadlineExceededF("no answer within {}", absl::FormatDuration(timeout));
    }
    if (error == http::error::end_of_stream || error == http::error::partial_message) {
      return UnavailableF("the server closed the connection before the answer was whole");
    }
    if (error.category() == http::make_error_code(http::error::bad_version).category()) {
      return DataLossF("the answer is not HTTP/1.1: {}", error.message());
    }
    return UnavailableF("{}", error.message());
  }

  void ArmCancel() {
    if (!cancel_.is_open() || armed_) {
      return;
    }
    armed_ = true;
    cancel_.async_wait(asio::posix::stream_descriptor::wait_read,
                       [this](const error_code& error) {
                         armed_ = false;
                         if (!error) {
                           cancelled_ = true;
                           stream_->tcp().cancel();
                         }
                       });
  }

  void Close() {
    // A fresh stream: one that timed out cannot be used again.
    stream_.emplace(loop_, tls_.get(), url_.host);
    buffer_.clear();
    connected_ = false;
  }

  const HttpClientOptions options_;
  const HttpUrl url_;
  asio::io_context loop_{1};
  std::shared_ptr<asio::ssl::context> tls_;  // null: plain
  std::optional<ClientStream> stream_;
  asio::posix::stream_descriptor cancel_;
  beast::flat_buffer buffer_;
  std::array<char, kPieceBytes> piece_{};
  bool connected_ = false;
  bool armed_ = false;
  bool cancelled_ = false;
};

HttpClient::HttpClient(const HttpClientOptions& options, HttpUrl url)
    : connection_(std::make_unique<Connection>(options, std::move(url))) {}

HttpClient::~HttpClient() = default;

absl::StatusOr<std::unique_ptr<HttpClient>> HttpClient::Create(
    const HttpClientOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(HttpUrl url, ParseHttpUrl(options.url));
  for (const auto& [name, value] : options.headers) {
    const auto bad = [](char c) { return c == '\r' || c == '\n' || c == '\0'; };
    if (std::any_of(value.begin(), value.end(), bad)) {
      return InvalidArgumentF("the value of {} has a line end in it", name);
    }
  }
  std::unique_ptr<HttpClient> client(new HttpClient(options, std::move(url)));
  TESSERA_RETURN_IF_ERROR(client->connection_->PrepareTls());
  TESSERA_RETURN_IF_ERROR(client->connection_->WatchCancel());
  return client;
}

absl::StatusOr<HttpReply> HttpClient::Get(const std::string& path) {
  return connection_->Exchange(http::verb::get, path, "", nullptr);
}

absl::StatusOr<HttpReply> HttpClient::Post(const std::string& path,
                                           const std::string& json) {
  return connection_->Exchange(http::verb::post, path, json, nullptr);
}

absl::StatusOr<HttpReply> HttpClient::PostForEvents(const std::string& path,
                                                    const std::string& json,
                                                    const SseSink& sink) {
  return connection_->Exchange(http::verb::post, path, json, &sink);
}

}  // namespace tessera::cli
