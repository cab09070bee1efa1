// The HTTP door: requests per second and time to the first event at 1, 8 and 64
// connections, many streams at once beside many idle connections, and the memory of an
// idle connection.
//
//   http_bench                the coordinator over a stub rank, in a process of its own
//   http_bench --port=PORT    any server with /v1/completions that runs on this machine
//
// Client and server share the machine's cores. Prints; asserts nothing.
#include <csignal>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "fmt/format.h"
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "benchmarks/load_client.h"
#include "benchmarks/stub_service.h"
#include "common/check.h"
#include "common/log.h"
#include "coordinator/api/http_server.h"

namespace tessera::benchmarks {
namespace {

constexpr std::string_view kPortFlag = "--port=";
constexpr int64_t kIdleConnections = 10000;
constexpr int64_t kStreams = 1000;

std::string Body(int64_t max_tokens, bool stream) {
  return fmt::format(
      R"({{"prompt":"request ########: hello world","max_tokens":{},"ignore_eos":true,)"
      R"("temperature":0,"stream":{}}})",
      max_tokens, stream);
}

double Milliseconds(absl::Duration duration) {
  return absl::ToDoubleMilliseconds(duration);
}

// Runs `options`; prints one line of what came back.
void Report(std::string_view name, const LoadOptions& options) {
  const absl::StatusOr<LoadResult> result = RunLoad(options);
  if (!result.ok()) {
    std::cout << fmt::format("{:<24} {}\n", name, result.status().ToString());
    return;
  }
  std::cout << fmt::format(
                   "{:<24} {:>5} conn {:>8.0f} req/s {:>9.0f} events/s  first p50 "
                   "{:>7.2f} p99 {:>7.2f} ms"
                   "  whole p50 {:>7.2f} p99 {:>7.2f} ms  failed {} reconnects {}\n",
                   name, options.num_connections, result->requests_per_second(),
                   static_cast<double>(result->num_events) /
                       absl::ToDoubleSeconds(result->elapsed),
                   Milliseconds(Percentile(result->first_times, 50)),
                   Milliseconds(Percentile(result->first_times, 99)),
                   Milliseconds(Percentile(result->total_times, 50)),
                   Milliseconds(Percentile(result->total_times, 99)), result->num_failed,
                   result->num_reconnects)
            << std::flush;
}

void ShortRequests(uint16_t port) {
  for (const bool stream : {false, true}) {
    for (const int64_t connections : {1, 8, 64}) {
      LoadOptions load;
      load.port = port;
      load.request = PostText("/v1/completions", Body(1, stream));
      load.num_connections = connections;
      load.num_requests = connections == 1 ? 2000 : 10000;
      load.time_limit = absl::Seconds(8);
      Report(stream ? "1 token, streamed" : "1 token, whole", load);
    }
  }
}

// Resident bytes of process `pid`.
int64_t ResidentBytes(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/statm", pid));
  int64_t size = 0;
  int64_t resident = 0;
  file >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

void ManyConnections(uint16_t port, pid_t server) {
  const int64_t before = ResidentBytes(server);
  IdleConnections idle;
  const absl::Status opened = idle.Open(port, kIdleConnections);
  if (!opened.ok()) {
    std::cout << fmt::format("idle connections: {}\n", opened.ToString());
    return;
  }
  LoadOptions probe;
  probe.port = port;
  probe.request = PostText("/v1/completions", Body(1, false));
  probe.num_requests = 100;
  Report("beside 10,000 idle", probe);
  std::cout << fmt::format("{} idle connections: {} bytes each\n", kIdleConnections,
                           (ResidentBytes(server) - before) / kIdleConnections);
  LoadOptions streams;
  streams.port = port;
  streams.request = PostText("/v1/completions", Body(64, true));
  streams.num_connections = kStreams;
  streams.num_requests = 2 * kStreams;
  Report("64 tokens, beside idle", streams);
}

// The server of this benchmark: tells its port through `pipe`, runs until it is killed.
[[noreturn]] void RunServer(int pipe) {
  log::Configure(log::Level::kError, log::Format::kJson);
  StubServiceOptions options;
  options.max_num_seqs = kStreams;
  const auto service = StubService::Create(options);
  TESSERA_CHECK(service.ok());
  coordinator::HttpServerOptions http;
  http.port = 0;
  const auto server = coordinator::HttpServer::Create(http, (*service)->api());
  TESSERA_CHECK(server.ok());
  (*server)->Start();
  const uint16_t port = (*server)->port();
  TESSERA_CHECK(::write(pipe, &port, sizeof(port)) == sizeof(port));
  while (true) {
    ::pause();
  }
}

int Main(int argc, char** argv) {
  RaiseDescriptorLimit();
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word.starts_with(kPortFlag)) {
      ShortRequests(
          static_cast<uint16_t>(std::stoi(std::string(word.substr(kPortFlag.size())))));
      return 0;
    }
  }
  int ends[2];
  TESSERA_CHECK_EQ(::pipe(ends), 0);
  const pid_t server = ::fork();
  TESSERA_CHECK(server >= 0);
  if (server == 0) {
    RunServer(ends[1]);
  }
  ::close(ends[1]);
  uint16_t port = 0;
  if (::read(ends[0], &port, sizeof(port)) == sizeof(port)) {
    ShortRequests(port);
    ManyConnections(port, server);
  }
  ::kill(server, SIGKILL);
  ::waitpid(server, nullptr, 0);
  return port == 0 ? 1 : 0;
}

}  // namespace
}  // namespace tessera::benchmarks

int main(int argc, char** argv) { return tessera::benchmarks::Main(argc, argv); }
