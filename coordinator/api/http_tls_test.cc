// HttpServer inside TLS: the same answers, which versions and certificates are taken, and
// what slow or wrong clients cost.
#include <memory>
#include <optional>
#include <string>

#include "boost/asio/connect.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/ssl.hpp"
#include "boost/asio/write.hpp"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "coordinator/api/http/tls_context.h"
#include "coordinator/api/http_server.h"
#include "tests/testing/api_fixture.h"
#include "tests/testing/self_signed.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using tessera::testing::IsOk;
using tessera::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kGet[] = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
constexpr char kStream[] = R"({"prompt":"a","stream":true})";

std::string PostText(const std::string& path, const std::string& body) {
  return fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", path,
                     body.size(), body);
}

// A test that hangs fails instead.
void BoundReceiving(int socket) {
  const timeval timeout = {20, 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
}

struct ClientOptions {
  std::string ca_file = {};
  std::string certificate_file = {};
  std::string key_file = {};
  int max_version = TLS1_3_VERSION;
};

// A blocking client.
class TlsClient {
 public:
  explicit TlsClient(uint16_t port, const ClientOptions& options = {})
      : context_(asio::ssl::context::tls_client), stream_(io_, context_) {
    SSL* const ssl = stream_.native_handle();
    SSL_set_max_proto_version(ssl, options.max_version);
    if (options.max_version < TLS1_2_VERSION) {
      SSL_set_min_proto_version(ssl, options.max_version);
      SSL_set_cipher_list(ssl, "ALL:@SECLEVEL=0");
    }
    if (!options.ca_file.empty()) {
      SSL_CTX_load_verify_locations(context_.native_handle(), options.ca_file.c_str(),
                                    nullptr);
      SSL_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
    }
    if (!options.certificate_file.empty()) {
      SSL_use_certificate_file(ssl, options.certificate_file.c_str(), SSL_FILETYPE_PEM);
      SSL_use_PrivateKey_file(ssl, options.key_file.c_str(), SSL_FILETYPE_PEM);
    }
    stream_.next_layer().connect({asio::ip::address_v4::loopback(), port});
    BoundReceiving(stream_.next_layer().native_handle());
    stream_.handshake(asio::ssl::stream_base::client, handshake_error_);
  }

  const error_code& handshake_error() const { return handshake_error_; }
  SSL* ssl() { return stream_.native_handle(); }

  long serial() {
    X509* const certificate = SSL_get1_peer_certificate(ssl());
    const long number = ASN1_INTEGER_get(X509_get0_serialNumber(certificate));
    X509_free(certificate);
    return number;
  }

  bool Send(const std::string& text) {
    error_code error;
    asio::write(stream_, asio::buffer(text), error);
    return !error;
  }

  // Reads until `mark` was seen or the connection ends; `end` says how.
  std::string ReadUntil(const std::string& mark) {
    std::string text;
    char byte = 0;
    while (text.find(mark) == std::string::npos &&
           stream_.read_some(asio::buffer(&byte, 1), end) == 1) {
      text.push_back(byte);
    }
    return text;
  }

  std::string ReadAnswer() {
    std::string text = ReadUntil("\r\n\r\n");
    size_t left = std::stoul(text.substr(text.find("Content-Length: ") + 16));
    char byte = 0;
    while (left-- > 0 && stream_.read_some(asio::buffer(&byte, 1), end) == 1) {
      text.push_back(byte);
    }
    return text;
  }

  void Reset() {
    stream_.next_layer().set_option(asio::socket_base::linger(true, 0));
    stream_.next_layer().close();
  }

  error_code end;

 private:
  asio::io_context io_;
  asio::ssl::context context_;
  asio::ssl::stream<asio::ip::tcp::socket> stream_;
  error_code handshake_error_;
};

class Tls : public tests::ApiFixture {
 protected:
  Tls() {
    time_ = Clock::Real();
    Build(tests::SmallApiOptions());
    options_.port = 0;
    files_ = tests::MakeSelfSigned("server");
  }

  ~Tls() override {
    if (server_ != nullptr) {
      server_->Stop();
    }
  }

  void Serve(ClientCertificates clients = ClientCertificates::kNone,
             const std::string& authority = "") {
    auto tls = TlsContext::Create(
        {files_.certificate_file, files_.key_file, authority, clients});
    ASSERT_THAT(tls, IsOk());
    options_.tls = *tls;
    auto server = HttpServer::Create(options_, service_.get());
    ASSERT_THAT(server.status(), IsOk());
    server_ = *std::move(server);
    server_->Start();
  }

  // What a client sees that sends `bytes` outside TLS and then listens until the end.
  std::string AnswerToBytes(const std::string& bytes) {
    asio::io_context io;
    asio::ip::tcp::socket socket(io);
    socket.connect({asio::ip::address_v4::loopback(), server_->port()});
    BoundReceiving(socket.native_handle());
    error_code error;
    asio::write(socket, asio::buffer(bytes), error);  // may be cut before it is whole
    std::string all;
    char byte = 0;
    ssize_t count = 0;
    while ((count = recv(socket.native_handle(), &byte, 1, 0)) == 1) {
      all.push_back(byte);
    }
    EXPECT_TRUE(count == 0 || errno == ECONNRESET) << errno;
    return all;
  }

  tests::SelfSigned files_;
  HttpServerOptions options_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(Tls, AClientThatTrustsTheCertificateIsServedOnOneConnection) {
  Serve();
  TlsClient client(server_->port(), {.ca_file = files_.certificate_file});
  ASSERT_FALSE(client.handshake_error()) << client.handshake_error().message();
  EXPECT_EQ(SSL_version(client.ssl()), TLS1_3_VERSION);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.Send(kGet));
    EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200 OK\r\n"));
  }
}

TEST_F(Tls, PipelinedRequestsInOneRecordAreAllAnswered) {
  Serve();
  TlsClient client(server_->port());
  ASSERT_TRUE(client.Send(std::string(kGet) + kGet + kGet));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200"));
  }
}

TEST_F(Tls, AStreamArrivesAsItIsMadeAndTheConnectionLivesOn) {
  Serve();
  TlsClient client(server_->port());
  ASSERT_TRUE(client.Send(PostText("/v1/completions", kStream)));
  ASSERT_TRUE(engine_.AwaitSubmitted(1));
  engine_.Token(0, 0, "x");
  EXPECT_THAT(client.ReadUntil("\n\n"), HasSubstr("data: {"));
  engine_.Finish(0, 1);
  EXPECT_THAT(client.ReadUntil("0\r\n\r\n"), HasSubstr("[DONE]"));
  ASSERT_TRUE(client.Send(kGet));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200"));
}

TEST_F(Tls, AClientThatLeavesCancelsItsRequest) {
  Serve();
  TlsClient client(server_->port());
  ASSERT_TRUE(client.Send(PostText("/v1/completions", kStream)));
  ASSERT_TRUE(engine_.AwaitSubmitted(1));
  client.Reset();
  EXPECT_TRUE(engine_.AwaitCancelled(1));
}

TEST_F(Tls, ALastAnswerEndsWithACloseNotify) {
  Serve();
  TlsClient client(server_->port());
  ASSERT_TRUE(client.Send("GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n"));
  EXPECT_THAT(client.ReadUntil(std::string("\0never\0", 7)), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(client.end, asio::error::eof) << client.end.message();
}

TEST_F(Tls, ABodyOfManyRecordsIsReadAndOneThatIsTooLargeIsToldSo) {
  options_.max_request_bytes = 1 << 20;
  Serve();
  TlsClient client(server_->port());
  ASSERT_TRUE(client.Send(PostText("/tokenize", std::string(900000, ' ') + "{}")));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 400"));
  ASSERT_TRUE(client.Send("POST /tokenize HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 413"));
}

TEST_F(Tls, OlderVersionsAreRefused) {
  Serve();
  EXPECT_FALSE(
      TlsClient(server_->port(), {.max_version = TLS1_2_VERSION}).handshake_error());
  EXPECT_TRUE(
      TlsClient(server_->port(), {.max_version = TLS1_1_VERSION}).handshake_error());
}

TEST_F(Tls, AHandshakeThatDoesNotComeIsCut) {
  options_.handshake_timeout = absl::Milliseconds(50);
  Serve();
  EXPECT_EQ(AnswerToBytes(""), "");
}

TEST_F(Tls, PlainHttpIsToldToSpeakTls) {
  Serve();
  EXPECT_THAT(AnswerToBytes(kGet),
              AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("Connection: close\r\n"),
                    HasSubstr("\"https_required\"")));
}

TEST_F(Tls, BytesThatAreNoHandshakeEndTheConnection) {
  Serve();
  for (const std::string& bytes :
       {std::string("\0\0\0\0\0\0\0\0", 8), std::string(70000, 'x'),
        std::string("\x16\x03\x01\xff\xff", 5) + std::string(70000, '\xff')}) {
    EXPECT_THAT(AnswerToBytes(bytes), Not(HasSubstr("HTTP"))) << bytes.size();
  }
}

TEST_F(Tls, NewConnectionsGetTheCertificateThatWasReadAgain) {
  files_ = tests::MakeSelfSigned("renewed", 1);
  Serve();
  TlsClient before(server_->port());
  EXPECT_EQ(before.serial(), 1);
  tests::MakeSelfSigned("renewed", 2);
  ASSERT_THAT(options_.tls->Reload(), IsOk());
  EXPECT_EQ(TlsClient(server_->port()).serial(), 2);
  ASSERT_TRUE(before.Send(kGet));
  EXPECT_THAT(before.ReadAnswer(), StartsWith("HTTP/1.1 200"));
}

TEST_F(Tls, ABrokenCertificateLeavesTheOldOneInForce) {
  files_ = tests::MakeSelfSigned("broken", 7);
  Serve();
  const tests::SelfSigned other = tests::MakeSelfSigned("other");
  ASSERT_EQ(std::rename(other.key_file.c_str(), files_.key_file.c_str()), 0);
  EXPECT_THAT(options_.tls->Reload(), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(TlsClient(server_->port()).serial(), 7);
}

TEST_F(Tls, ClientsNeedACertificateWhereItIsRequired) {
  const tests::SelfSigned client = tests::MakeSelfSigned("client");
  const tests::SelfSigned stranger = tests::MakeSelfSigned("stranger");
  Serve(ClientCertificates::kRequired, client.certificate_file);
  TlsClient good(server_->port(), {.certificate_file = client.certificate_file,
                                   .key_file = client.key_file});
  ASSERT_TRUE(good.Send(kGet));
  EXPECT_THAT(good.ReadAnswer(), StartsWith("HTTP/1.1 200"));
  for (const ClientOptions& options :
       {ClientOptions{}, ClientOptions{.certificate_file = stranger.certificate_file,
                         .key_file = stranger.key_file}}) {
    TlsClient bad(server_->port(), options);
    bad.Send(kGet);
    EXPECT_EQ(bad.ReadUntil("\r\n"), "");
  }
}

TEST(TlsContext, FilesThatCannotServeAreNamed) {
  const tests::SelfSigned good = tests::MakeSelfSigned("good");
  const tests::SelfSigned other = tests::MakeSelfSigned("mismatch");
  EXPECT_THAT(TlsContext::Create({.certificate_file = "/no/cert", .key_file = "x"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/no/cert")));
  EXPECT_THAT(TlsContext::Create({.certificate_file = good.certificate_file,
                                  .key_file = other.key_file}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(other.key_file)));
  EXPECT_THAT(TlsContext::Create({.certificate_file = good.certificate_file,
                                  .key_file = good.key_file,
                                  .client_certificates = ClientCertificates::kRequired}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("authorities")));
}

}  // namespace
}  // namespace tessera::coordinator
