// LoadClient: keeps a fixed number of HTTP/1.1 connections to a loopback server busy from
// one thread and measures what comes back. Closed loop: a connection sends its next
// request when the answer before it is whole, so a figure is a peak rate and says nothing
// about queueing. It checks status and framing, not content.
#ifndef TESSERA_BENCHMARKS_LOAD_CLIENT_H_
#define TESSERA_BENCHMARKS_LOAD_CLIENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tessera::benchmarks {

inline constexpr char kNumber[] = "########";

struct LoadOptions {
  uint16_t port = 0;
  // The whole text of a POST, head and body. Each request has its number in the place of
  // kNumber, if that is there.
  std::string request;
  int64_t num_connections = 1;
  int64_t num_requests = 1;  // in all
  absl::Duration time_limit = absl::Seconds(60);
};

struct LoadResult {
  int64_t num_answered = 0;    // with 200, whole
  int64_t num_failed = 0;      // another status, or the connection broke
  int64_t num_events = 0;      // of streams
  int64_t num_reconnects = 0;  // after the server closed a connection between requests
  absl::Duration elapsed;
  // Of each answered request, in the order of their ends. First: the first event of a
  // stream, or the whole answer.
  std::vector<absl::Duration> first_times;
  std::vector<absl::Duration> total_times;

  double requests_per_second() const {
    return static_cast<double>(num_answered) / absl::ToDoubleSeconds(elapsed);
  }
};

// The text of a POST with a JSON body to `path`.
std::string PostText(const std::string& path, const std::string& body);

// Runs the load. kUnavailable: a connection is refused or times out.
absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options);

// The `percent`th percentile of `times`; zero for none.
absl::Duration Percentile(std::vector<absl::Duration> times, double percent);

// Connections that asked once and then say nothing, closed at the end of their life.
class IdleConnections {
 public:
  IdleConnections() = default;
  IdleConnections(const IdleConnections&) = delete;
  IdleConnections& operator=(const IdleConnections&) = delete;
  ~IdleConnections();

  // Opens `count` more. kUnavailable: the server or this process takes no more of them.
  absl::Status Open(uint16_t port, int64_t count);

 private:
  std::vector<int> sockets_;
};

// As many file descriptors as the system allows this process.
void RaiseDescriptorLimit();

}  // namespace tessera::benchmarks

#endif  // TESSERA_BENCHMARKS_LOAD_CLIENT_H_
