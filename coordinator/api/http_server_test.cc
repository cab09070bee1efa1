// HttpServer over real loopback sockets: framing, limits, disconnects, slow readers,
// drain.
#include "coordinator/api/http_server.h"

#include <memory>
#include <string>
#include <vector>

#include "boost/asio/buffer.hpp"
#include "boost/asio/connect.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/read.hpp"
#include "boost/asio/read_until.hpp"
#include "boost/asio/write.hpp"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/testing/api_fixture.h"

namespace tessera::coordinator {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using testing::HasSubstr;
using testing::StartsWith;

// A blocking client that writes and reads bytes as they are.
class RawClient {
 public:
  explicit RawClient(uint16_t port, int receive_buffer = 0) : socket_(io_) {
    const asio::ip::tcp::endpoint endpoint(asio::ip::address_v4::loopback(), port);
    socket_.open(endpoint.protocol());
    if (receive_buffer > 0) {
      socket_.set_option(asio::socket_base::receive_buffer_size(receive_buffer));
    }
    socket_.connect(endpoint);
    timeval timeout = {20, 0};  // a test that hangs fails instead
    setsockopt(socket_.native_handle(), SOL_SOCKET, SO_RCVTIMEO, &timeout,
               sizeof(timeout));
  }

  // False once the server closed its end.
  bool Send(const std::string& text) {
    error_code error;
    asio::write(socket_, asio::buffer(text), error);
    return !error;
  }

  // Reads until `mark` was seen, the server closes, or nothing comes for twenty seconds.
  std::string ReadUntil(const std::string& mark) {
    std::string text;
    char byte = 0;
    while (text.find(mark) == std::string::npos &&
           recv(socket_.native_handle(), &byte, 1, 0) == 1) {
      text.push_back(byte);
    }
    return text;
  }

  std::string ReadAll() { return ReadUntil(std::string("\0never\0", 7)); }

  // One whole answer with Content-Length.
  std::string ReadAnswer() {
    std::string text = ReadUntil("\r\n\r\n");
    const size_t at = text.find("Content-Length: ");
    if (at == std::string::npos) {
      return text;
    }
    size_t left = std::stoul(text.substr(at + 16));
    char byte = 0;
    while (left-- > 0 && recv(socket_.native_handle(), &byte, 1, 0) == 1) {
      text.push_back(byte);
    }
    return text;
  }

  void Close() { socket_.close(); }

  // Closes so that the server gets a reset.
  void Reset() {
    socket_.set_option(asio::socket_base::linger(true, 0));
    socket_.close();
  }

 private:
  asio::io_context io_;
  asio::ip::tcp::socket socket_;
};

class Http : public tests::ApiFixture {
 protected:
  Http() {
    time_ = Clock::Real();
    Build(tests::SmallApiOptions());
    options_.port = 0;
    options_.max_request_bytes = 1 << 20;
  }

  ~Http() override {
    if (server_ != nullptr) {
      server_->Stop();
    }
  }

  void Serve() {
    auto server = HttpServer::Create(options_, service_.get());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    server_->Start();
    ASSERT_NE(server_->port(), 0);
  }

  static std::string PostText(const std::string& path, const std::string& body,
                              const std::string& headers = "") {
    return fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{}\r\n{}",
                       path, body.size(), headers, body);
  }

  static std::string GetText(const std::string& path) {
    return fmt::format("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path);
  }

  static constexpr char kStream[] = R"({"prompt":"a","stream":true})";

  HttpServerOptions options_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(Http, OneConnectionServesManyRequests) {
  Serve();
  RawClient client(server_->port());
  for (int i = 0; i < 3; ++i) {
    client.Send(GetText("/livez"));
    const std::string answer = client.ReadAnswer();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(answer, HasSubstr("Connection: keep-alive"));
    EXPECT_THAT(answer, HasSubstr("x-request-id: req-"));
  }
}

TEST_F(Http, PipelinedRequestsAreAnsweredInOrder) {
  Serve();
  RawClient client(server_->port());
  client.Send(GetText("/livez") + GetText("/nowhere") + GetText("/livez"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200"));
}

TEST_F(Http, ConnectionCloseAndHttp10AreHonoured) {
  Serve();
  RawClient closing(server_->port());
  closing.Send("GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(closing.ReadAll(), HasSubstr("Connection: close"));
  RawClient old(server_->port());
  old.Send("GET /livez HTTP/1.0\r\n\r\n");
  EXPECT_THAT(old.ReadAll(), StartsWith("HTTP/1.0 200 OK"));
}

TEST_F(Http, HeadHasTheLengthAndNoBody) {
  Serve();
  RawClient client(server_->port());
  client.Send("HEAD /livez HTTP/1.1\r\n\r\n" + GetText("/nowhere"));
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), HasSubstr("Content-Length: 18"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 404"));
}

TEST_F(Http, AStreamIsChunkedAndTheConnectionLivesOn) {
  Serve();
  RawClient client(server_->port());
  client.Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(engine_.AwaitSubmitted(1));
  engine_.Token(0, 0, "x");
  const std::string first = client.ReadUntil("\n\n");
  EXPECT_THAT(first, HasSubstr("Transfer-Encoding: chunked"));
  EXPECT_THAT(first, HasSubstr("Content-Type: text/event-stream"));
  EXPECT_THAT(first, HasSubstr("data: {"));
  engine_.Finish(0, 1);
  EXPECT_THAT(client.ReadUntil("0\r\n\r\n"), HasSubstr("data: [DONE]\n\n"));
  client.Send(GetText("/livez"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200"));
}

TEST_F(Http, AStreamThatFailsEndsWithAnErrorAndAClose) {
  Serve();
  RawClient client(server_->port());
  client.Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(engine_.AwaitSubmitted(1));
  engine_.submitted(0).sink->OnError(absl::UnavailableError(""));
  const std::string answer = client.ReadAll();
  EXPECT_THAT(answer, HasSubstr("\"code\":\"worker_lost\""));
  EXPECT_THAT(answer, testing::Not(HasSubstr("[DONE]")));
}

TEST_F(Http, AChunkedRequestInTinyPiecesIsRead) {
  Serve();
  RawClient client(server_->port());
  client.Send("POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (const char c : std::string(R"({"prompt":"hi"})")) {
    client.Send(fmt::format("1\r\n{}\r\n", c));
  }
  client.Send("0\r\n\r\n");
  EXPECT_THAT(client.ReadAnswer(), HasSubstr("[104,105]"));
}

TEST_F(Http, ThreeMegabytesOfSixByteChunksAreRefusedNotFatal) {
  Serve();
  RawClient client(server_->port());
  client.Send("POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  std::string chunks;
  for (int i = 0; i < 10000; ++i) {
    chunks += "6\r\naaaaaa\r\n";
  }
  for (int i = 0; i < 50; ++i) {
    client.Send(chunks);
  }
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 413"));
}

TEST_F(Http, AHundredMegabyteBodyIs413AfterTheClientSentIt) {
  Serve();
  RawClient client(server_->port());
  constexpr size_t kBody = 100 << 20;
  client.Send(
      fmt::format("POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n", kBody));
  const std::string part(1 << 20, 'a');
  for (size_t sent = 0; sent < kBody; sent += part.size()) {
    ASSERT_TRUE(client.Send(part)) << "reset after " << sent;
  }
  const std::string answer = client.ReadAnswer();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 413 Payload Too Large"));
  EXPECT_THAT(answer, HasSubstr("request_too_large"));
  EXPECT_THAT(answer, HasSubstr("x-request-id"));
  EXPECT_EQ(engine_.num_submitted(), 0u);
}

TEST_F(Http, ExpectContinueIsAnsweredBeforeTheBody) {
  Serve();
  RawClient client(server_->port());
  client.Send(
      "POST /tokenize HTTP/1.1\r\nContent-Length: 15\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), StartsWith("HTTP/1.1 100 Continue"));
  client.Send(R"({"prompt":"hi"})");
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200"));
}

TEST_F(Http, MalformedRequestsGetATypedErrorOrAClose) {
  Serve();
  const std::string bad[] = {
      "\x16\x03\x01\x02",
      "GET\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      "GET / HTTP/1.1\r\nno colon\r\n\r\n",
      "GET / HTTP/1.1\r\n: empty\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: "
      "chunked\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\nGET /livez "
      "HTTP/1.1\r\n\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n",
      "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"};
  for (const std::string& text : bad) {
    RawClient client(server_->port());
    client.Send(text + std::string(8, '\n'));
    const std::string answer = client.ReadAll();
    EXPECT_THAT(answer,
                testing::AnyOf(StartsWith("HTTP/1.1 4"), StartsWith("HTTP/1.0 4")))
        << text;
    // Nothing behind it is taken for a request of its own.
    EXPECT_THAT(answer, testing::Not(HasSubstr("HTTP/1.1 200"))) << text;
  }
  RawClient client(server_->port());
  client.Send(GetText("/livez"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200"));
}

TEST_F(Http, HeadersBeyondTheLimitAre431) {
  Serve();
  RawClient large(server_->port());
  large.Send("GET /livez HTTP/1.1\r\nx: " + std::string(20000, 'a') + "\r\n\r\n");
  EXPECT_THAT(large.ReadAnswer(), StartsWith("HTTP/1.1 431"));
  RawClient many(server_->port());
  std::string text = "GET /livez HTTP/1.1\r\n";
  for (int i = 0; i < 101; ++i) {
    text += fmt::format("a{}: b\r\n", i);
  }
  many.Send(text + "\r\n");
  EXPECT_THAT(many.ReadAnswer(), StartsWith("HTTP/1.1 431"));
}

TEST_F(Http, AClientThatLeavesCancelsItsRequest) {
  Serve();
  for (const bool reset : {false, true}) {
    const size_t before = engine_.cancelled().size();
    RawClient client(server_->port());
    client.Send(PostText("/v1/completions", reset ? kStream : R"({"prompt":"a"})"));
    ASSERT_TRUE(engine_.AwaitSubmitted(before + 1));
    reset ? client.Reset() : client.Close();
    ASSERT_TRUE(engine_.AwaitCancelled(before + 1));
    EXPECT_EQ(engine_.cancelled().back(), engine_.submitted(before).request.request_id());
  }
}

TEST_F(Http, AReaderThatFallsTooFarBehindIsCutAndCancelled) {
  options_.stream_buffer_bytes = 64 << 10;
  options_.stream_buffer_bytes_max = 256 << 10;
  Serve();
  RawClient client(server_->port(), /*receive_buffer=*/4096);
  client.Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(engine_.AwaitSubmitted(1));
  // Far more than the kernel's buffers and ours together.
  const std::string text(64 << 10, 'x');
  for (int i = 0; i < 400 && engine_.cancelled().empty(); ++i) {
    engine_.Token(0, i, text);
  }
  EXPECT_TRUE(engine_.AwaitCancelled(1));
}

TEST_F(Http, AReaderThatStandsStillDelaysNobody) {
  options_.num_io_threads = 1;
  options_.stream_buffer_bytes_max = 1 << 30;
  Serve();
  RawClient slow(server_->port(), /*receive_buffer=*/4096);
  slow.Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(engine_.AwaitSubmitted(1));
  RawClient quick(server_->port());
  quick.Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(engine_.AwaitSubmitted(2));
  const std::string text(64 << 10, 'x');
  for (int i = 0; i < 200; ++i) {
    engine_.Token(0, i, text);
    engine_.Token(1, i, fmt::format("<{}>", i));
    // Each token arrives although megabytes wait for the other client.
    ASSERT_THAT(quick.ReadUntil(fmt::format("<{}>", i)), HasSubstr("data: {")) << i;
  }
  engine_.Finish(1, 200);
  EXPECT_THAT(quick.ReadUntil("0\r\n\r\n"), HasSubstr("data: [DONE]\n\n"));
  EXPECT_TRUE(engine_.cancelled().empty());
}

TEST_F(Http, AReaderThatStandsStillIsCutAfterTheTimeout) {
  options_.write_timeout = absl::Milliseconds(200);
  options_.stream_buffer_bytes_max = 1 << 30;
  Serve();
  RawClient client(server_->port(), /*receive_buffer=*/4096);
  client.Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(engine_.AwaitSubmitted(1));
  const std::string text(64 << 10, 'x');
  for (int i = 0; i < 200; ++i) {
    engine_.Token(0, i, text);
  }
  EXPECT_TRUE(engine_.AwaitCancelled(1));
}

TEST_F(Http, ASilentStreamCarriesKeepAliveComments) {
  options_.keep_alive_interval = absl::Milliseconds(20);
  Serve();
  RawClient client(server_->port());
  client.Send(PostText("/v1/completions", kStream));
  EXPECT_THAT(client.ReadUntil(": keep-alive\n\n"), HasSubstr("text/event-stream"));
  EXPECT_THAT(client.ReadUntil(": keep-alive\n\n"), HasSubstr(": keep-alive"));
}

TEST_F(Http, ARequestThatNeverEndsTimesOut) {
  options_.read_timeout = absl::Milliseconds(100);
  Serve();
  RawClient client(server_->port());
  client.Send("POST /v1/completions HTTP/1.1\r\nContent-Length: 10\r\n\r\n{");
  EXPECT_THAT(client.ReadAll(), StartsWith("HTTP/1.1 408"));
  RawClient slow_header(server_->port());
  slow_header.Send("GET /livez HTT");
  EXPECT_THAT(slow_header.ReadAll(), StartsWith("HTTP/1.1 408"));
}

TEST_F(Http, AnIdleConnectionIsClosed) {
  options_.idle_timeout = absl::Milliseconds(100);
  Serve();
  RawClient client(server_->port());
  EXPECT_EQ(client.ReadAll(), "");
}

TEST_F(Http, ConnectionsBeyondTheLimitAreToldSo) {
  options_.max_connections = 1;
  Serve();
  RawClient first(server_->port());
  first.Send(GetText("/livez"));
  EXPECT_THAT(first.ReadAnswer(), StartsWith("HTTP/1.1 200"));
  RawClient second(server_->port());
  EXPECT_THAT(second.ReadAnswer(), StartsWith("HTTP/1.1 503"));
  first.Send(GetText("/livez"));
  EXPECT_THAT(first.ReadAnswer(), StartsWith("HTTP/1.1 200"));
}

TEST_F(Http, DrainLetsStreamsFinish) {
  Serve();
  RawClient streaming(server_->port());
  streaming.Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(engine_.AwaitSubmitted(1));
  EXPECT_EQ(server_->Drain(absl::Milliseconds(50)), 1);
  engine_.Token(0, 0, "x");
  engine_.Finish(0, 1);
  EXPECT_THAT(streaming.ReadAll(), HasSubstr("[DONE]"));
  EXPECT_EQ(server_->Drain(absl::Seconds(10)), 0);
}

TEST_F(Http, StopCancelsWhatIsUnderWay) {
  Serve();
  RawClient client(server_->port());
  client.Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(engine_.AwaitSubmitted(1));
  client.ReadUntil("\r\n\r\n");
  server_->Stop();
  EXPECT_EQ(engine_.cancelled().size(), 1u);
  EXPECT_THAT(client.ReadAll(), testing::Not(HasSubstr("[DONE]")));
  // The engine may still answer; nobody listens, nothing breaks.
  engine_.submitted(0).sink->OnError(absl::CancelledError(""));
  server_.reset();
}

TEST_F(Http, AnAddressInUseIsAnError) {
  Serve();
  HttpServerOptions taken;
  taken.port = server_->port();
  EXPECT_EQ(HttpServer::Create(taken, service_.get()).status().code(),
            absl::StatusCode::kUnavailable);
  taken.host = "not an address";
  EXPECT_EQ(HttpServer::Create(taken, service_.get()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::coordinator
