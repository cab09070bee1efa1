// OpenAiClient: the few calls of the OpenAI API that the command line makes, with every
// way in which one can fail told apart.
//
// It stands on HttpClient and serves `tessera chat` and `tessera bench`. It knows the
// envelope (errors, [DONE], the list of models) and not what a chunk holds.
#ifndef TESSERA_CLI_CLIENT_OPENAI_CLIENT_H_
#define TESSERA_CLI_CLIENT_OPENAI_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/client/http_client.h"
#include "nlohmann/json_fwd.hpp"

namespace tessera::cli {

// How a streamed answer ended.
struct StreamEnd {
  absl::Status status;
  // What kind of failure, in few words that can be counted: `http 429`, `stream
  // worker_lost`, `timeout`, `connection`, `cancelled`, `malformed`, `cut short`. Empty
  // when OK.
  std::string kind;
};

// Takes the chunks of a streamed answer; false: enough of it. A chunk is an object.
using ChunkSink = std::function<bool(const nlohmann::json& chunk)>;

// Owns its connection. External synchronisation; calls block as HttpClient's do.
class OpenAiClient {
 public:
  // A `base_url` that ends in /v1 means the same as one that does not. `api_key` may be
  // empty. Errors as HttpClient::Create.
  static absl::StatusOr<std::unique_ptr<OpenAiClient>> Create(HttpClientOptions options,
                                                              const std::string& api_key);

  // The name of the first model that the server lists. kNotFound: it lists none;
  // otherwise the failures of Stream.
  absl::StatusOr<std::string> FirstModel();

  // Posts `body`, to which it adds "stream": true, and feeds the chunks to `sink` until
  // [DONE]. An answer that is refused, reports an error or ends without [DONE] is not OK;
  // the message is the server's. A sink that stops the answer ends it with OK.
  StreamEnd Stream(const std::string& path, nlohmann::json body, const ChunkSink& sink);

 private:
  explicit OpenAiClient(std::unique_ptr<HttpClient> http) : http_(std::move(http)) {}

  std::unique_ptr<HttpClient> http_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_OPENAI_CLIENT_H_
