// The bytes of HTTP/1.x answers: heads and chunks. Requests are parsed by Beast, in
// http_connection.
#ifndef TESSERA_COORDINATOR_API_HTTP_WIRE_H_
#define TESSERA_COORDINATOR_API_HTTP_WIRE_H_

#include <string>
#include <string_view>

#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

enum class BodyKind { kWhole, kStream };

// What the head says about the connection.
struct WireOptions {
  bool http11 = true;  // else 1.0, which has no chunks: a stream ends with the connection
  bool keep_alive = true;
};

// Status line and headers with the empty line behind them. Header values must hold no
// line breaks.
std::string ResponseHead(const HttpResponse& response, BodyKind body,
                         const WireOptions& options);

// One chunk of a chunked body; `data` must not be empty.
std::string BodyChunk(std::string_view data);

// The chunk that ends a chunked body.
inline constexpr char kLastChunk[] = "0\r\n\r\n";

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_WIRE_H_
