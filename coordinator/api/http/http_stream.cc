#include "coordinator/api/http/http_stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace tessera::coordinator {
namespace {

// Unacknowledged bytes older than this end the connection, as does a peer that is gone.
constexpr int kTcpUserTimeoutMs = 30000;

}  // namespace

void HttpStream::Prepare() {
  boost::system::error_code ignored;
  socket_.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  socket_.set_option(boost::asio::socket_base::keep_alive(true), ignored);
  socket_.non_blocking(true, ignored);
  const int timeout = kTcpUserTimeoutMs;
  ::setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout,
               sizeof(timeout));
}

}  // namespace tessera::coordinator
