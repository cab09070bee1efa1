// ObservedWriter: stands between a route and the connection: adds the common headers to
// whatever the route answers, and tells the observer and the log how it ended.
#ifndef TESSERA_COORDINATOR_API_OBSERVED_WRITER_H_
#define TESSERA_COORDINATOR_API_OBSERVED_WRITER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/time/time.h"

#include "coordinator/api/api_context.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

// As every ResponseWriter: thread-safe, and no method blocks. The end is counted once, on
// the thread that brings it first: one may answer while the client leaves on another.
class ObservedWriter final : public ResponseWriter,
                             public std::enable_shared_from_this<ObservedWriter> {
 public:
  // What the observer is told about the request.
  struct Labels {
    std::string_view route;
    std::string method;
    absl::Time start;
    std::string tenant;  // whose grants the answer tells of
    bool anthropic = false;
  };

  // `headers` go into every answer, and so does what is left of the tenant's grants.
  // `context` must outlive the writer.
  ObservedWriter(const ApiContext* context, std::shared_ptr<ResponseWriter> next,
                 HttpHeaders headers, Labels labels);

  void Respond(HttpResponse response) override;
  void StartStream(HttpResponse head) override;
  void Write(std::string data) override;
  void Finish(bool close) override;
  void OnDisconnect(std::function<void()> handler) override;
  void Post(std::function<void()> task) override;

 private:
  void AddHeaders(HttpHeaders* headers) const;
  // `code` counts unless a stream began, which has its own. Once.
  void End(int code);

  // Values of progress_ beside the status of a stream that is open.
  static constexpr int kUnanswered = 0;
  static constexpr int kEnded = -1;

  const ApiContext* const context_;
  const std::shared_ptr<ResponseWriter> next_;
  const HttpHeaders headers_;
  const Labels labels_;
  std::atomic<int> progress_ = kUnanswered;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_OBSERVED_WRITER_H_
