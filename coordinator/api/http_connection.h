// HttpConnection: one client socket of HttpServer. Internal to the server: only
// http_server.cc includes it, because it brings Asio along.
#ifndef TESSERA_COORDINATOR_API_HTTP_CONNECTION_H_
#define TESSERA_COORDINATOR_API_HTTP_CONNECTION_H_

#include <memory>

#include "boost/asio/ip/tcp.hpp"

#include "coordinator/api/connection_hub.h"

namespace tessera::coordinator {

// Serves `socket` until either side closes it; the connection owns itself. `refuse`:
// answers 503 and closes, because there are too many.
void ServeConnection(std::shared_ptr<ConnectionHub> hub,
                     boost::asio::ip::tcp::socket socket, bool refuse);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_CONNECTION_H_
