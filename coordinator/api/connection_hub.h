// ConnectionHub: what the connections of one HttpServer share: options, the io context,
// the threads that parse and tokenise, and the counts that drain and stop wait for.
// Internal to the server; brings Asio along.
#ifndef TESSERA_COORDINATOR_API_CONNECTION_HUB_H_
#define TESSERA_COORDINATOR_API_CONNECTION_HUB_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/thread_pool.hpp"

#include "common/mutex.h"
#include "coordinator/api/api_service.h"
#include "coordinator/api/http_server.h"

namespace tessera::coordinator {

// What all connections of a server share. Held by each of them, so an engine that answers
// late finds it alive. Thread-safe.
class ConnectionHub {
 public:
  ConnectionHub(const HttpServerOptions& server_options, ApiService* api)
      : options(server_options),
        service(api),
        handlers(static_cast<size_t>(server_options.num_handler_threads)) {}

  // Counts answers under way, for Drain.
  void BeginAnswer();
  void EndAnswer();
  // Waits until none is, or `timeout`; returns how many are.
  int64_t AwaitNoAnswers(absl::Duration timeout);

  // Posts `task` unless the server stopped; then `task` is dropped.
  template <typename Executor, typename Task>
  void PostUnlessStopped(const Executor& executor, Task&& task);
  void SetStopped();

  const HttpServerOptions options;
  ApiService* const service;
  boost::asio::io_context io;
  boost::asio::thread_pool handlers;
  std::atomic<bool> draining{false};
  std::atomic<size_t> num_connections{0};

  // Every open connection's close function, for Stop. Keys are stable until removed.
  using Closers = std::list<std::function<void()>>;
  Closers::iterator AddCloser(std::function<void()> closer);
  void RemoveCloser(Closers::iterator closer);
  Closers CopyClosers();

 private:
  Mutex mutex_;
  int64_t num_answers_ ABSL_GUARDED_BY(mutex_) = 0;
  Closers closers_ ABSL_GUARDED_BY(mutex_);
  // Read-held while something is posted from outside the io threads.
  Mutex stop_mutex_;
  bool stopped_ ABSL_GUARDED_BY(stop_mutex_) = false;
};

template <typename Executor, typename Task>
void ConnectionHub::PostUnlessStopped(const Executor& executor, Task&& task) {
  ReaderMutexLock lock(&stop_mutex_);
  if (!stopped_) {
    boost::asio::post(executor, std::forward<Task>(task));
  }
}

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_CONNECTION_HUB_H_
