// AdminEvents: the streams of /admin/v1/events: one event per period to everybody who
// listens, made once for all. One thread, which sleeps while nobody does.
#ifndef TESSERA_COORDINATOR_API_ADMIN_ADMIN_EVENTS_H_
#define TESSERA_COORDINATOR_API_ADMIN_ADMIN_EVENTS_H_

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

// Thread-safe.
class AdminEvents {
 public:
  // `next` gives the JSON of an event, in one line, and may be called by any thread.
  // `clock` must run in real time and outlive it.
  AdminEvents(std::function<std::string()> next, absl::Duration period, Clock* clock);
  ~AdminEvents();
  AdminEvents(const AdminEvents&) = delete;
  AdminEvents& operator=(const AdminEvents&) = delete;

  // Starts a stream with a first event at once. False, and nothing was answered: it is
  // closed, or kMaxListeners listen.
  bool Subscribe(std::shared_ptr<ResponseWriter> writer);

  // Ends all streams and takes no further one: a server that drains waits for open
  // streams. Idempotent.
  void Close();

  static constexpr size_t kMaxListeners = 32;

 private:
  // Outlives this for the handlers of connections.
  struct Listeners {
    Mutex mutex;
    std::map<uint64_t, std::shared_ptr<ResponseWriter>> writers ABSL_GUARDED_BY(mutex);
    uint64_t next_id ABSL_GUARDED_BY(mutex) = 1;
    bool closed ABSL_GUARDED_BY(mutex) = false;
  };

  void Run();

  const std::function<std::string()> next_;
  const absl::Duration period_;
  Clock* const clock_;
  const std::shared_ptr<Listeners> listeners_;
  std::thread thread_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ADMIN_ADMIN_EVENTS_H_
