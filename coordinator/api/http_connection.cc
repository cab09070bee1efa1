#include "coordinator/api/http_connection.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "boost/asio/bind_executor.hpp"
#include "boost/asio/buffer.hpp"
#include "boost/asio/dispatch.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/strand.hpp"
#include "boost/asio/write.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/core/string.hpp"
#include "boost/beast/http.hpp"

#include "coordinator/api/http/http_stream.h"
#include "coordinator/api/http/moving_deadline.h"
#include "coordinator/api/http/output_queue.h"
#include "coordinator/api/http/request_parser.h"
#include "coordinator/api/http_wire.h"

namespace tessera::coordinator {

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

// One read takes at most this much off the socket.
constexpr size_t kReadBytes = 16 << 10;
// Inside TLS only a read can tell whether a request comes: of its first byte, so that a
// connection without one owns no buffer to speak of.
constexpr size_t kWatchBytes = 1;
// A client that was refused while it was still sending gets this long, and may send so
// much, to see the answer: closing at once would reset the connection and destroy it.
constexpr absl::Duration kLingerTime = absl::Seconds(10);
constexpr size_t kLingerBytes = 512 << 20;
constexpr char kKeepAliveComment[] = ": keep-alive\n\n";

// Life: (TLS handshake ->) idle -> reading -> answering (-> streaming) -> flushing ->
// idle … -> closed, or reading -> flushing -> lingering -> closed for what was refused.
// All members belong to the strand.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(std::shared_ptr<ConnectionHub> hub, asio::ip::tcp::socket socket)
      : hub_(std::move(hub)),
        strand_(asio::make_strand(hub_->io)),
        stream_(std::move(socket), hub_->options.tls.get()),
        deadline_(hub_->io),
        buffer_(hub_->options.max_header_bytes + kReadBytes) {
    hub_->num_connections.fetch_add(1);
  }

  ~HttpConnection() { hub_->num_connections.fetch_sub(1); }

  void Start(bool refuse);

  // The ResponseWriter's calls, on the strand; `answer` is the request they belong to.
  void Respond(uint64_t answer, HttpResponse response);
  void StartStream(uint64_t answer, HttpResponse head);
  void WriteStream(uint64_t answer, const std::string& data);
  void FinishStream(uint64_t answer, bool close);
  void SetDisconnectHandler(uint64_t answer, std::function<void()> handler);

  // Runs `task` on the strand: at once if called there.
  template <typename Task>
  void OnStrand(Task&& task) {
    if (strand_.running_in_this_thread()) {
      std::forward<Task>(task)();
    } else {
      hub_->PostUnlessStopped(strand_, std::forward<Task>(task));
    }
  }

  template <typename Task>
  void PostToStrand(Task&& task) {
    hub_->PostUnlessStopped(strand_, std::forward<Task>(task));
  }

 private:
  enum class State {
    kHandshake,
    kIdle,
    kReading,
    kAnswering,
    kStreaming,
    kFlushing,
    kLingering,
    kClosed
  };

  // Binds a member function to the strand and to the life of this connection.
  template <typename Method>
  auto Bind(Method method) {
    return asio::bind_executor(strand_,
                               [self = shared_from_this(), method](auto... arguments) {
                                 ((*self).*method)(arguments...);
                               });
  }

  void OnHandshake(error_code error);
  void Begin();
  void NextRequest();
  void Watch();
  void OnReadable(error_code error);
  void OnWatched(error_code error, size_t count);
  void ReadHeader();
  void OnHeader(error_code error, size_t count);
  void OnContinueSent(error_code error, size_t count);
  void OnBody(error_code error, size_t count);
  void OnReadError(error_code error);
  void HandOver();
  // `linger`: read on until the client saw the answer; not while a read is pending.
  void Refuse(const ApiError& error, bool linger);
  std::string Head(const HttpResponse& response, BodyKind body) const {
    return ResponseHead(response, body, {http11_, keep_alive_});
  }
  void Enqueue(std::string_view data);
  void Flush();
  void OnWritten(error_code error, size_t count);
  void OnFlushed();
  void EndSending();
  void Linger();
  void OnLingered(error_code error, size_t count);
  void EndAnswer();
  void Close();
  bool CheckBacklog();
  absl::Time Now() const { return hub_->service->context().clock->Now(); }
  void SetDeadline(absl::Duration from_now);
  void ClearDeadline() { deadline_.Clear(); }
  void OnTimer(error_code error);

  std::shared_ptr<ConnectionHub> hub_;
  asio::strand<asio::io_context::executor_type> strand_;
  HttpStream stream_;
  MovingDeadline deadline_;
  boost::beast::flat_buffer buffer_;
  std::optional<RequestParser> parser_;
  std::optional<ConnectionHub::Closers::iterator> closer_;

  State state_ = State::kIdle;
  bool refuse_ = false;
  uint64_t answer_ = 0;    // number of the request being answered
  bool counted_ = false;   // in the hub's answers under way
  bool watching_ = false;  // a wait is pending for the next request or for the end
  std::function<void()> on_disconnect_;

  bool http11_ = true;
  bool head_only_ = false;
  bool keep_alive_ = true;
  bool linger_ = false;

  OutputQueue output_;
  size_t lingered_bytes_ = 0;
};

// The ResponseWriter of one request.
class ConnectionWriter final : public ResponseWriter {
 public:
  ConnectionWriter(std::shared_ptr<HttpConnection> connection, uint64_t answer)
      : connection_(std::move(connection)), answer_(answer) {}

  void Respond(HttpResponse response) override {
    connection_->OnStrand([c = connection_, a = answer_, response = std::move(response)] {
      c->Respond(a, response);
    });
  }
  void StartStream(HttpResponse head) override {
    connection_->OnStrand([c = connection_, a = answer_, head = std::move(head)] {
      c->StartStream(a, head);
    });
  }
  void Write(std::string data) override {
    connection_->OnStrand([c = connection_, a = answer_, data = std::move(data)] {
      c->WriteStream(a, data);
    });
  }
  void Finish(bool close) override {
    connection_->OnStrand(
        [c = connection_, a = answer_, close] { c->FinishStream(a, close); });
  }
  void OnDisconnect(std::function<void()> handler) override {
    connection_->OnStrand([c = connection_, a = answer_, handler = std::move(handler)] {
      c->SetDisconnectHandler(a, handler);
    });
  }
  void Post(std::function<void()> task) override {
    connection_->PostToStrand(std::move(task));
  }

 private:
  std::shared_ptr<HttpConnection> connection_;
  const uint64_t answer_;
};

void HttpConnection::Start(bool refuse) {
  stream_.Prepare();
  std::weak_ptr<HttpConnection> weak = weak_from_this();
  closer_ = hub_->AddCloser([weak] {
    if (const auto self = weak.lock()) {
      self->PostToStrand([self] { self->Close(); });
    }
  });
  refuse_ = refuse;
  if (!stream_.secure()) {
    Begin();
    return;
  }
  state_ = State::kHandshake;
  SetDeadline(hub_->options.handshake_timeout);
  stream_.AsyncHandshake(Bind(&HttpConnection::OnHandshake));
}

void HttpConnection::OnHandshake(error_code error) {
  if (state_ != State::kHandshake) {
    return;
  }
  if (IsPlainHttp(error)) {
    stream_.FallBackToPlain();
    Refuse(PlainHttpError(), /*linger=*/true);
  } else if (error) {
    Close();  // no TLS, no common version, no certificate: OpenSSL told the client
  } else {
    Begin();
  }
}

void HttpConnection::Begin() {
  if (refuse_) {
    Refuse(ConnectionLimitError(), /*linger=*/true);
  } else {
    NextRequest();
  }
}

void HttpConnection::NextRequest() {
  state_ = State::kIdle;
  if (buffer_.size() > 0) {
    ReadHeader();
    return;
  }
  // Thousands of connections may be idle: between requests they own no buffers.
  if (!watching_ || !stream_.secure()) {  // else it is small, and being read into
    buffer_.shrink_to_fit();
  }
  parser_.reset();
  output_.Shrink();
  SetDeadline(hub_->options.idle_timeout);
  if (!watching_) {
    Watch();
  }
}

// One pending wait serves two ends: between requests it waits for the next one, during an
// answer it notices that the client left. Without TLS it needs no buffer. A client that
// pipelines is not watched until its answer is written.
void HttpConnection::Watch() {
  watching_ = true;
  if (stream_.secure()) {
    // What the socket holds may be no byte of a request, and one may lie in the stream.
    buffer_.shrink_to_fit();
    stream_.async_read_some(buffer_.prepare(kWatchBytes),
                            Bind(&HttpConnection::OnWatched));
    return;
  }
  stream_.socket().async_wait(asio::ip::tcp::socket::wait_read,
                              Bind(&HttpConnection::OnReadable));
}

void HttpConnection::OnReadable(error_code error) {
  size_t count = 0;
  if (!error && state_ != State::kClosed) {
    // Never waits: the socket is readable, and non-blocking in any case.
    count = stream_.socket().read_some(buffer_.prepare(kReadBytes), error);
  }
  if (error == asio::error::would_block) {
    Watch();
    return;
  }
  OnWatched(error, count);
}

void HttpConnection::OnWatched(error_code error, size_t count) {
  watching_ = false;
  if (state_ == State::kClosed) {
    return;
  }
  if (error) {
    Close();
    return;
  }
  buffer_.commit(count);
  if (state_ == State::kIdle) {
    ReadHeader();
  }
}

void HttpConnection::ReadHeader() {
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(hub_->options.max_header_bytes));
  parser_->body_limit(hub_->options.max_request_bytes);
  state_ = State::kReading;
  SetDeadline(hub_->options.read_timeout);
  http::async_read_header(stream_, buffer_, *parser_, Bind(&HttpConnection::OnHeader));
}

void HttpConnection::OnHeader(error_code error, size_t /*count*/) {
  if (state_ != State::kReading) {
    return;
  }
  if (error) {
    OnReadError(error);
    return;
  }
  const auto& header = parser_->get();
  http11_ = header.version() >= 11;
  if (const auto bad = AnswerToHeader(*parser_, hub_->options.max_header_fields)) {
    Refuse(*bad, /*linger=*/true);
    return;
  }
  const auto expect = header[http::field::expect];
  if (boost::beast::iequals(expect, "100-continue")) {
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    asio::async_write(stream_, asio::buffer(kContinue.data(), kContinue.size()),
                      Bind(&HttpConnection::OnContinueSent));
    return;
  }
  OnContinueSent({}, 0);
}

void HttpConnection::OnContinueSent(error_code error, size_t /*count*/) {
  if (state_ != State::kReading) {
    return;
  }
  if (error) {
    Close();
    return;
  }
  http::async_read(stream_, buffer_, *parser_, Bind(&HttpConnection::OnBody));
}

void HttpConnection::OnBody(error_code error, size_t /*count*/) {
  if (state_ != State::kReading) {
    return;
  }
  if (error) {
    OnReadError(error);
    return;
  }
  HandOver();
}

void HttpConnection::OnReadError(error_code error) {
  const auto answer = AnswerToReadError(error, hub_->options.max_request_bytes);
  if (answer.has_value()) {
    Refuse(*answer, /*linger=*/true);
  } else {
    Close();
  }
}

void HttpConnection::HandOver() {
  HttpRequest request = TakeRequest(&*parser_, &keep_alive_);
  head_only_ = request.method == "HEAD";
  state_ = State::kAnswering;
  counted_ = true;
  ++answer_;
  hub_->BeginAnswer();
  ClearDeadline();
  if (buffer_.size() == 0) {
    Watch();
  }
  auto writer = std::make_shared<ConnectionWriter>(shared_from_this(), answer_);
  if (ApiService::IsQuick(request)) {
    hub_->service->Handle(std::move(request), std::move(writer));
    return;
  }
  // At most one request per connection is ever here, so the pool's queue is bounded.
  asio::post(hub_->handlers, [service = hub_->service, request = std::move(request),
                              writer = std::move(writer)]() mutable {
    service->Handle(std::move(request), std::move(writer));
  });
}

void HttpConnection::Refuse(const ApiError& error, bool linger) {
  const HttpHeaders headers =
      parser_.has_value() ? CopyHeaders(parser_->get()) : HttpHeaders();
  const HttpResponse response = hub_->service->TransportError(error, headers);
  keep_alive_ = false;
  linger_ = linger;
  head_only_ = false;
  state_ = State::kFlushing;
  Enqueue(Head(response, BodyKind::kWhole) + response.body);
}

void HttpConnection::Respond(uint64_t answer, HttpResponse response) {
  if (answer != answer_ || state_ != State::kAnswering) {
    return;
  }
  on_disconnect_ = nullptr;
  keep_alive_ = keep_alive_ && !hub_->draining.load();
  state_ = State::kFlushing;
  Enqueue(Head(response, BodyKind::kWhole) + (head_only_ ? "" : response.body));
}

void HttpConnection::StartStream(uint64_t answer, HttpResponse head) {
  if (answer != answer_ || state_ != State::kAnswering) {
    return;
  }
  // Without chunks, only the end of the connection ends the body.
  keep_alive_ = keep_alive_ && http11_ && !hub_->draining.load();
  state_ = State::kStreaming;
  Enqueue(Head(head, BodyKind::kStream));
}

void HttpConnection::WriteStream(uint64_t answer, const std::string& data) {
  if (answer != answer_ || state_ != State::kStreaming || data.empty()) {
    return;
  }
  Enqueue(http11_ ? BodyChunk(data) : data);
}

void HttpConnection::FinishStream(uint64_t answer, bool close) {
  if (answer != answer_ || state_ != State::kStreaming) {
    return;
  }
  on_disconnect_ = nullptr;
  keep_alive_ = keep_alive_ && !close && !hub_->draining.load();
  state_ = State::kFlushing;
  output_.CaughtUp();
  if (http11_) {
    Enqueue(kLastChunk);
  } else if (!output_.writing()) {
    OnFlushed();
  }
}

void HttpConnection::SetDisconnectHandler(uint64_t answer,
                                          std::function<void()> handler) {
  if (answer == answer_ && (state_ == State::kAnswering || state_ == State::kStreaming)) {
    on_disconnect_ = std::move(handler);
  } else if (state_ == State::kClosed) {
    handler();
  }
}

void HttpConnection::Enqueue(std::string_view data) {
  output_.Append(data);
  if (CheckBacklog() && !output_.writing()) {
    Flush();
  }
}

// Cuts a client that is too far behind, or behind for too long; false if it did.
bool HttpConnection::CheckBacklog() {
  const HttpServerOptions& options = hub_->options;
  if (state_ != State::kStreaming || output_.size() <= options.stream_buffer_bytes) {
    output_.CaughtUp();
    return true;
  }
  const BacklogLimits limits = {.bytes = options.stream_buffer_bytes,
                                .bytes_max = options.stream_buffer_bytes_max,
                                .time = options.write_timeout};
  if (!output_.Check(limits, Now())) {
    Close();
    return false;
  }
  return true;
}

void HttpConnection::Flush() {
  const std::string_view part = output_.Begin();
  SetDeadline(hub_->options.write_timeout);
  asio::async_write(stream_, asio::buffer(part.data(), part.size()),
                    Bind(&HttpConnection::OnWritten));
}

void HttpConnection::OnWritten(error_code error, size_t /*count*/) {
  output_.Finish();
  if (state_ == State::kClosed) {
    return;
  }
  if (error) {
    Close();
    return;
  }
  if (output_.has_pending()) {
    Flush();
    return;
  }
  OnFlushed();
}

void HttpConnection::OnFlushed() {
  if (state_ == State::kStreaming) {
    output_.CaughtUp();
    SetDeadline(hub_->options.keep_alive_interval);
    return;
  }
  if (state_ != State::kFlushing) {
    ClearDeadline();
    return;
  }
  EndAnswer();
  if (keep_alive_) {
    NextRequest();
  } else if (linger_) {
    Linger();
  } else {
    EndSending();
    Close();
  }
}

void HttpConnection::EndSending() {
  stream_.EndSending(
      asio::bind_executor(strand_, [self = shared_from_this()](error_code) {}));
}

void HttpConnection::Linger() {
  if (!stream_.secure()) {
    EndSending();  // inside TLS nothing could be read after it
  }
  state_ = State::kLingering;
  SetDeadline(kLingerTime);
  buffer_.clear();
  OnLingered({}, 0);
}

void HttpConnection::OnLingered(error_code error, size_t count) {
  lingered_bytes_ += count;
  if (error || lingered_bytes_ > kLingerBytes || state_ != State::kLingering) {
    Close();
    return;
  }
  stream_.async_read_some(buffer_.prepare(kReadBytes), Bind(&HttpConnection::OnLingered));
}

void HttpConnection::EndAnswer() {
  if (std::exchange(counted_, false)) {
    hub_->EndAnswer();
  }
}

void HttpConnection::Close() {
  if (state_ == State::kClosed) {
    return;
  }
  state_ = State::kClosed;
  stream_.Close();
  deadline_.Cancel();
  EndAnswer();
  if (closer_.has_value()) {
    hub_->RemoveCloser(*closer_);
    closer_.reset();
  }
  output_.DropPending();
  if (const auto handler = std::exchange(on_disconnect_, nullptr)) {
    handler();
  }
}

void HttpConnection::SetDeadline(absl::Duration from_now) {
  const absl::Time now = Now();
  deadline_.Set(now + from_now, now, [this] { return Bind(&HttpConnection::OnTimer); });
}

void HttpConnection::OnTimer(error_code error) {
  if (error || state_ == State::kClosed) {
    return;  // moved, or over
  }
  if (!deadline_.IsDue(Now(), [this] { return Bind(&HttpConnection::OnTimer); })) {
    return;
  }
  if (state_ == State::kReading) {
    // The pending read ends when the socket does, after the answer.
    Refuse(RequestTimeoutError(), /*linger=*/false);
  } else if (state_ == State::kStreaming && !output_.writing()) {
    Enqueue(http11_ ? BodyChunk(kKeepAliveComment) : kKeepAliveComment);
  } else {
    Close();
  }
}

}  // namespace

void ServeConnection(std::shared_ptr<ConnectionHub> hub, asio::ip::tcp::socket socket,
                     bool refuse) {
  auto connection = std::make_shared<HttpConnection>(std::move(hub), std::move(socket));
  connection->PostToStrand([connection, refuse] { connection->Start(refuse); });
}

}  // namespace tessera::coordinator
