#include "coordinator/api/http_server.h"

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/ip/address.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/strand.hpp"

#include "common/log.h"
#include "common/status.h"
#include "coordinator/api/http/descriptor_limit.h"
#include "coordinator/api/http_connection.h"

namespace tessera::coordinator {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Tcp = asio::ip::tcp;

// Connections beyond the limit that are told so; more are closed unread.
constexpr size_t kMaxRefused = 64;
// When accept fails (no file descriptors), the loop waits instead of spinning.
constexpr std::chrono::milliseconds kAcceptPause{100};
// How long Stop waits for the io threads to close what is open.
constexpr absl::Duration kCloseGrace = absl::Seconds(2);

}  // namespace

// The accept loop and the threads. Its handlers run on the io threads, one at a time: the
// acceptor and the timer share a strand.
struct HttpServer::Listener {
  explicit Listener(std::shared_ptr<ConnectionHub> shared)
      : hub(std::move(shared)),
        acceptor(asio::make_strand(hub->io)),
        pause(acceptor.get_executor()),
        work(hub->io.get_executor()) {}

  absl::Status Listen(const HttpServerOptions& options) {
    error_code error;
    const auto address = asio::ip::make_address(options.host, error);
    if (error) {
      return InvalidArgumentF("host {} is not an IP address", options.host);
    }
    const Tcp::endpoint endpoint(address, options.port);
    acceptor.open(endpoint.protocol(), error);
    if (!error) {
      acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
    }
    if (!error) {
      acceptor.bind(endpoint, error);
    }
    if (!error) {
      acceptor.listen(asio::socket_base::max_listen_connections, error);
    }
    if (error) {
      return UnavailableF("can't listen on {}:{}: {}", options.host, options.port,
                          error.message());
    }
    return absl::OkStatus();
  }

  void Accept() {
    // The sockets do not share the strand.
    acceptor.async_accept(hub->io, [this](error_code error, Tcp::socket socket) {
      if (error == asio::error::operation_aborted || !acceptor.is_open()) {
        return;
      }
      if (error) {
        log::Warning("api", "accept failed", {{"error", error.message()}});
        pause.expires_after(kAcceptPause);
        pause.async_wait([this](error_code cancelled) {
          if (!cancelled) {
            Accept();
          }
        });
        return;
      }
      const size_t open = hub->num_connections.load();
      const size_t limit = hub->options.max_connections;
      if (open < limit + kMaxRefused) {
        ServeConnection(hub, std::move(socket), /*refuse=*/open >= limit);
      }
      Accept();
    });
  }

  // Closes the acceptor where its handlers run. Idempotent.
  void StopListening() {
    asio::post(acceptor.get_executor(), [this] {
      error_code ignored;
      acceptor.close(ignored);
      pause.cancel();
    });
  }

  std::shared_ptr<ConnectionHub> hub;
  Tcp::acceptor acceptor;
  asio::steady_timer pause;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  std::vector<std::thread> threads;
  bool stopped = false;
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(
    const HttpServerOptions& options, ApiService* service) {
  if (options.num_io_threads < 1 || options.num_handler_threads < 1) {
    return absl::InvalidArgumentError(
        "the http server needs at least one thread of each kind");
  }
  HttpServerOptions possible = options;
  possible.max_connections = static_cast<size_t>(
      ReserveConnections(static_cast<int64_t>(options.max_connections)));
  if (possible.max_connections < options.max_connections) {
    log::Warning("api",
                 "fewer connections than asked for: the limit of open files (ulimit -Hn) "
                 "is too low",
                 {{"max_connections", options.max_connections},
                  {"possible", possible.max_connections}});
  }
  auto listener =
      std::make_unique<Listener>(std::make_shared<ConnectionHub>(possible, service));
  const absl::Status status = listener->Listen(options);
  if (!status.ok()) {
    return status;
  }
  error_code error;
  const uint16_t port = listener->acceptor.local_endpoint(error).port();
  if (error) {
    return InternalF("the listening socket has no address: {}", error.message());
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(listener), port));
}

HttpServer::HttpServer(std::unique_ptr<Listener> listener, uint16_t port)
    : listener_(std::move(listener)), port_(port) {}

HttpServer::~HttpServer() { Stop(); }

void HttpServer::Start() {
  listener_->Accept();
  for (int i = 0; i < listener_->hub->options.num_io_threads; ++i) {
    listener_->threads.emplace_back([hub = listener_->hub] { hub->io.run(); });
  }
}

int64_t HttpServer::Drain(absl::Duration timeout) {
  const std::shared_ptr<ConnectionHub> hub = listener_->hub;
  hub->draining.store(true);
  hub->service->SetDraining();
  const int64_t left = hub->AwaitNoAnswers(timeout);
  listener_->StopListening();
  return left;
}

void HttpServer::Stop() {
  if (std::exchange(listener_->stopped, true)) {
    return;
  }
  const std::shared_ptr<ConnectionHub> hub = listener_->hub;
  listener_->StopListening();
  for (const auto& close : hub->CopyClosers()) {
    close();
  }
  hub->AwaitNoAnswers(kCloseGrace);
  hub->handlers.stop();
  hub->handlers.join();
  hub->SetStopped();
  listener_->work.reset();
  hub->io.stop();
  for (std::thread& thread : listener_->threads) {
    thread.join();
  }
  // What is still queued holds connections, and they hold the hub: run it dry.
  hub->io.restart();
  hub->io.poll();
}

}  // namespace tessera::coordinator
