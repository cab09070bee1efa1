// HttpRequest, HttpResponse and ResponseWriter: what the routes of the API see of HTTP.
// The socket side (http_connection) implements ResponseWriter; tests implement it in
// memory. Nothing here knows sockets, Beast or JSON.
#ifndef TESSERA_COORDINATOR_API_HTTP_MESSAGE_H_
#define TESSERA_COORDINATOR_API_HTTP_MESSAGE_H_

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/api/access/key_info.h"

namespace tessera::coordinator {

// In the order in which they were received or are to be sent; names compare without case.
using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// The first header of that name, or "".
std::string_view FindHeader(const HttpHeaders& headers, std::string_view name);

// A whole request; the transport has already bounded its header and its body.
struct HttpRequest {
  std::string method;  // "GET"
  std::string target;  // path and query as sent: "/metrics?names=native"
  HttpHeaders headers;
  std::string body;
  std::string id{};  // of the answer's x-request-id; ApiService sets it
  KeyInfo key{};     // whose it is; ApiService sets it
};

// A whole response, or the head of a stream (the body is then ignored). The transport
// adds Content-Length or Transfer-Encoding, Connection and Date.
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers;
  std::string body;
};

// Takes the answer to one request: either Respond once, or StartStream, any number of
// Write, and Finish. Calls after the end, or after the client left, are ignored.
//
// Thread-safe. No method blocks: each hands its work to the writer's executor, a serial
// queue, so calls from one thread take effect in order. Calls made on that executor take
// effect at once.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;

  virtual void Respond(HttpResponse response) = 0;

  virtual void StartStream(HttpResponse head) = 0;

  // Appends to the body. A client that reads too slowly is disconnected by the transport:
  // what waits for it is bounded.
  virtual void Write(std::string data) = 0;

  // Ends the stream. `close`: the connection ends with it, because the stream ended in an
  // error.
  virtual void Finish(bool close) = 0;

  // `handler` runs on the executor, at most once, when the client leaves before the end;
  // at once if it already left. Replaces an earlier handler. Dropped after the end.
  virtual void OnDisconnect(std::function<void()> handler) = 0;

  // Runs `task` on the executor. Tasks run even after the client left.
  virtual void Post(std::function<void()> task) = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_MESSAGE_H_
