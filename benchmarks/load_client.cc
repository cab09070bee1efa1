#include "benchmarks/load_client.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/time/clock.h"
#include "fmt/format.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::benchmarks {
namespace {

constexpr std::string_view kHeadEnd = "\r\n\r\n";
constexpr std::string_view kEvent = "data: {";
constexpr std::string_view kLastChunk = "\r\n0\r\n\r\n";

absl::StatusOr<int> Connect(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return UnavailableF("no socket: {}", std::strerror(errno));
  }
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    ::close(fd);
    return UnavailableF("can't connect to port {}: {}", port, std::strerror(error));
  }
  return fd;
}

// The head's Content-Length; npos where it has none: a chunked body.
size_t ContentLength(std::string_view head) {
  constexpr std::string_view kName = "content-length:";
  const auto same = [](char a, char b) { return std::tolower(a) == b; };
  const auto* const found =
      std::search(head.begin(), head.end(), kName.begin(), kName.end(), same);
  if (found == head.end()) {
    return std::string_view::npos;
  }
  const char* digits = found + kName.size();
  while (digits != head.end() && *digits == ' ') {
    ++digits;
  }
  size_t length = 0;
  std::from_chars(digits, head.end(), length);
  return length;
}

int64_t CountEvents(std::string_view text) {
  int64_t count = 0;
  for (size_t at = text.find(kEvent); at != std::string_view::npos;
       at = text.find(kEvent, at + kEvent.size())) {
    ++count;
  }
  return count;
}

// One connection and the answer that it waits for.
struct Connection {
  int fd = -1;
  bool fresh = true;    // no answer came on it yet
  std::string request;  // that was sent
  std::string text;
  absl::Time sent;
  absl::Time first = absl::InfinitePast();
};

class Load {
 public:
  explicit Load(const LoadOptions& options)
      : options_(options), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}
  ~Load() {
    for (const Connection& connection : connections_) {
      if (connection.fd >= 0) {
        ::close(connection.fd);
      }
    }
    ::close(epoll_);
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  absl::StatusOr<LoadResult> Run() {
    connections_.resize(static_cast<size_t>(options_.num_connections));
    for (size_t i = 0; i < connections_.size(); ++i) {
      TESSERA_RETURN_IF_ERROR(Reconnect(i));
    }
    const absl::Time begin = absl::Now();
    for (size_t i = 0; i < connections_.size(); ++i) {
      TESSERA_RETURN_IF_ERROR(SendNext(i));
    }
    while (num_open_ > 0 && absl::Now() - begin < options_.time_limit) {
      TESSERA_RETURN_IF_ERROR(Poll());
    }
    result_.elapsed = absl::Now() - begin;
    result_.num_failed += num_open_;
    return std::move(result_);
  }

 private:
  absl::Status Reconnect(size_t index) {
    Connection& connection = connections_[index];
    if (connection.fd >= 0) {
      ::close(connection.fd);
    }
    TESSERA_ASSIGN_OR_RETURN(connection.fd, Connect(options_.port));
    connection.fresh = true;
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.u64 = index;
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.fd, &event);
    return absl::OkStatus();
  }

  absl::Status SendNext(size_t index) {
    if (num_sent_ == options_.num_requests) {
      return absl::OkStatus();
    }
    Connection& connection = connections_[index];
    connection.request = options_.request;
    const size_t at = connection.request.find(kNumber);
    if (at != std::string::npos) {
      connection.request.replace(at, sizeof(kNumber) - 1,
                                 fmt::format("{:08}", num_sent_));
    }
    ++num_sent_;
    ++num_open_;
    return Send(index);
  }

  absl::Status Send(size_t index) {
    Connection& connection = connections_[index];
    connection.text.clear();
    connection.first = absl::InfinitePast();
    connection.sent = absl::Now();
    const std::string& request = connection.request;
    const ssize_t count =
        ::send(connection.fd, request.data(), request.size(), MSG_NOSIGNAL);
    return count == std::ssize(request) ? absl::OkStatus() : Lost(index);
  }

  // The connection broke. Between two requests a server may close it.
  absl::Status Lost(size_t index) {
    Connection& connection = connections_[index];
    if (connection.fresh || !connection.text.empty()) {
      return Fail(index);
    }
    ++result_.num_reconnects;
    TESSERA_RETURN_IF_ERROR(Reconnect(index));
    return Send(index);
  }

  absl::Status Poll() {
    std::array<epoll_event, 256> events;
    const int count = ::epoll_wait(epoll_, events.data(), events.size(), 100);
    for (int i = 0; i < count; ++i) {
      TESSERA_RETURN_IF_ERROR(Receive(events[static_cast<size_t>(i)].data.u64));
    }
    return absl::OkStatus();
  }

  absl::Status Receive(size_t index) {
    Connection& connection = connections_[index];
    std::array<char, 16 << 10> buffer;
    const ssize_t count =
        ::recv(connection.fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
      return absl::OkStatus();
    }
    if (count <= 0) {
      return Lost(index);
    }
    connection.text.append(buffer.data(), static_cast<size_t>(count));
    const std::string_view text = connection.text;
    const size_t head_end = text.find(kHeadEnd);
    if (head_end == std::string_view::npos) {
      return absl::OkStatus();
    }
    const size_t body_begin = head_end + kHeadEnd.size();
    const size_t length = ContentLength(text.substr(0, head_end));
    const bool whole = length == std::string_view::npos
                           ? text.ends_with(kLastChunk)
                           : text.size() >= body_begin + length;
    if (connection.first == absl::InfinitePast() &&
        (whole || text.find(kEvent, body_begin) != std::string_view::npos)) {
      connection.first = absl::Now();
    }
    return whole ? Finish(index) : absl::OkStatus();
  }

  absl::Status Finish(size_t index) {
    Connection& connection = connections_[index];
    connection.fresh = false;
    --num_open_;
    const std::string_view text = connection.text;
    if (text.starts_with("HTTP/1.1 200")) {
      ++result_.num_answered;
      result_.num_events += CountEvents(text);
      result_.first_times.push_back(connection.first - connection.sent);
      result_.total_times.push_back(absl::Now() - connection.sent);
    } else {
      ++result_.num_failed;
    }
    return SendNext(index);
  }

  absl::Status Fail(size_t index) {
    ++result_.num_failed;
    --num_open_;
    TESSERA_RETURN_IF_ERROR(Reconnect(index));
    return SendNext(index);
  }

  const LoadOptions options_;
  const int epoll_;
  std::vector<Connection> connections_;
  int64_t num_sent_ = 0;
  int64_t num_open_ = 0;
  LoadResult result_;
};

}  // namespace

std::string PostText(const std::string& path, const std::string& body) {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
      "Content-Length: {}\r\n\r\n{}",
      path, body.size(), body);
}

absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options) {
  return Load(options).Run();
}

absl::Duration Percentile(std::vector<absl::Duration> times, double percent) {
  if (times.empty()) {
    return absl::ZeroDuration();
  }
  const auto rank =
      static_cast<size_t>(percent / 100 * static_cast<double>(times.size() - 1));
  std::nth_element(times.begin(), times.begin() + static_cast<ptrdiff_t>(rank),
                   times.end());
  return times[rank];
}

IdleConnections::~IdleConnections() {
  for (const int fd : sockets_) {
    ::close(fd);
  }
}

absl::Status IdleConnections::Open(uint16_t port, int64_t count) {
  constexpr std::string_view kProbe = "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
  for (int64_t i = 0; i < count; ++i) {
    TESSERA_ASSIGN_OR_RETURN(const int fd, Connect(port));
    sockets_.push_back(fd);
    // A small answer comes in one piece.
    std::array<char, 4096> answer;
    if (::send(fd, kProbe.data(), kProbe.size(), MSG_NOSIGNAL) < 0 ||
        ::recv(fd, answer.data(), answer.size(), 0) <= 0) {
      return UnavailableF("connection {} was not answered", i);
    }
  }
  return absl::OkStatus();
}

void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace tessera::benchmarks
