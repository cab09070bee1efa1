// ScriptedHttpServer: a server on the loopback that answers with the bytes that a test
// wrote down, so that clients are tested against whole, cut and wrong answers alike.
//
// For tests only. It knows no route and no model.
#ifndef TESSERA_TESTS_TESTING_SCRIPTED_HTTP_SERVER_H_
#define TESSERA_TESTS_TESTING_SCRIPTED_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tessera::testing {

struct ReceivedRequest {
  std::string method;
  std::string target;
  std::string authorization;
  std::string body;
  int connection = 0;  // Counts from 0 in the order of accepting.
};

// The raw bytes of an answer.
struct ScriptedAnswer {
  std::vector<std::string> pieces;  // Written one after the other.
  // Runs between two pieces and after the last: wait here for what the test wants first.
  std::function<void(size_t pieces_written)> after_piece;
  bool close = false;  // Afterwards; otherwise the connection is kept.
};

// `body` with a status line, its type and length.
ScriptedAnswer WholeAnswer(int status, const std::string& content_type,
                           const std::string& body);

// An event stream of these payloads in chunked encoding, one event a piece.
ScriptedAnswer StreamAnswer(const std::vector<std::string>& payloads);

// Owns its threads, one per connection. `script` is called from any of them at once.
class ScriptedHttpServer {
 public:
  using Script = std::function<ScriptedAnswer(const ReceivedRequest& request)>;

  // Listens on a free port of 127.0.0.1; a failure to do so is a bug of the machine.
  explicit ScriptedHttpServer(Script script);
  // Closes every connection and joins the threads. What the script waits for must have
  // happened.
  ~ScriptedHttpServer();

  std::string url() const;
  int num_connections() const;

 private:
  class Server;
  std::unique_ptr<Server> server_;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_SCRIPTED_HTTP_SERVER_H_
