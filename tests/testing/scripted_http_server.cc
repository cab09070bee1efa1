#include "tests/testing/scripted_http_server.h"

#include <thread>
#include <utility>

#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/write.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"
#include "fmt/format.h"
#include <sys/socket.h>

#include "common/mutex.h"

namespace tessera::testing {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

}  // namespace

ScriptedAnswer WholeAnswer(int status, const std::string& content_type,
                           const std::string& body) {
  ScriptedAnswer answer;
  answer.pieces = {fmt::format(
      "HTTP/1.1 {} Scripted\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}", status,
      content_type, body.size(), body)};
  return answer;
}

ScriptedAnswer StreamAnswer(const std::vector<std::string>& payloads) {
  ScriptedAnswer answer;
  answer.pieces = {
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
      "Transfer-Encoding: chunked\r\n\r\n"};
  for (const std::string& payload : payloads) {
    const std::string event = "data: " + payload + "\n\n";
    answer.pieces.push_back(fmt::format("{:x}\r\n{}\r\n", event.size(), event));
  }
  answer.pieces.push_back("0\r\n\r\n");
  return answer;
}

class ScriptedHttpServer::Server {
 public:
  explicit Server(Script script)
      : script_(std::move(script)),
        acceptor_(loop_, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0)),
        accepting_([this] { Accept(); }) {}

  ~Server() {
    // Wakes the accept that blocks; closing the descriptor would not.
    ::shutdown(acceptor_.native_handle(), SHUT_RDWR);
    accepting_.join();
    std::vector<std::thread> threads;
    {
      MutexLock lock(&mutex_);
      for (const auto& socket : sockets_) {
        ::shutdown(socket->native_handle(), SHUT_RDWR);
      }
      threads.swap(threads_);
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
  }

  int port() const { return acceptor_.local_endpoint().port(); }

  int num_connections() const {
    MutexLock lock(&mutex_);
    return static_cast<int>(sockets_.size());
  }

 private:
  void Accept() {
    for (;;) {
      auto socket = std::make_shared<tcp::socket>(loop_);
      error_code error;
      acceptor_.accept(*socket, error);
      if (error) {
        return;
      }
      socket->set_option(tcp::no_delay(true), error);
      MutexLock lock(&mutex_);
      const int connection = static_cast<int>(sockets_.size());
      sockets_.push_back(socket);
      threads_.emplace_back([this, socket, connection] { Serve(*socket, connection); });
    }
  }

  void Serve(tcp::socket& socket, int connection) {
    boost::beast::flat_buffer buffer;
    for (bool open = true; open;) {
      http::request<http::string_body> request;
      error_code error;
      http::read(socket, buffer, request, error);
      if (error) {
        return;
      }
      const ScriptedAnswer answer = script_(
          {std::string(request.method_string()), std::string(request.target()),
           std::string(request[http::field::authorization]), request.body(), connection});
      open = Write(socket, answer) && !answer.close;
    }
    ::shutdown(socket.native_handle(), SHUT_RDWR);
  }

  static bool Write(tcp::socket& socket, const ScriptedAnswer& answer) {
    for (size_t i = 0; i < answer.pieces.size(); ++i) {
      error_code error;
      asio::write(socket, asio::buffer(answer.pieces[i]), error);
      if (error) {
        return false;
      }
      if (answer.after_piece) {
        answer.after_piece(i + 1);
      }
    }
    return true;
  }

  const Script script_;
  asio::io_context loop_;
  tcp::acceptor acceptor_;
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<tcp::socket>> sockets_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  std::thread accepting_;
};

ScriptedHttpServer::ScriptedHttpServer(Script script)
    : server_(std::make_unique<Server>(std::move(script))) {}

ScriptedHttpServer::~ScriptedHttpServer() = default;

std::string ScriptedHttpServer::url() const {
  return fmt::format("http://127.0.0.1:{}", server_->port());
}

int ScriptedHttpServer::num_connections() const { return server_->num_connections(); }

}  // namespace tessera::testing
