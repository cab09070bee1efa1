#include "coordinator/api/admin/admin_events.h"

#include <utility>
#include <vector>

namespace tessera::coordinator {
namespace {

std::string EventText(const std::string& json) {
  return "event: state\ndata: " + json + "\n\n";
}

}  // namespace

AdminEvents::AdminEvents(std::function<std::string()> next, absl::Duration period,
                         Clock* clock)
    : next_(std::move(next)),
      period_(period),
      clock_(clock),
      listeners_(std::make_shared<Listeners>()),
      thread_([this] { Run(); }) {}

AdminEvents::~AdminEvents() {
  Close();
  thread_.join();
}

bool AdminEvents::Subscribe(std::shared_ptr<ResponseWriter> writer) {
  uint64_t id = 0;
  {
    MutexLock lock(&listeners_->mutex);
    if (listeners_->closed || listeners_->writers.size() >= kMaxListeners) {
      return false;
    }
    id = listeners_->next_id++;
    HttpResponse head;
    head.content_type = "text/event-stream";
    head.headers = {{"Cache-Control", "no-store"}, {"X-Accel-Buffering", "no"}};
    // Before the thread can see it, so that no event comes before the head. It only
    // posts.
    writer->StartStream(std::move(head));
    listeners_->writers[id] = writer;
  }
  writer->OnDisconnect([listeners = listeners_, id] {
    MutexLock lock(&listeners->mutex);
    listeners->writers.erase(id);
  });
  writer->Write(EventText(next_()));
  return true;
}

void AdminEvents::Close() {
  std::map<uint64_t, std::shared_ptr<ResponseWriter>> writers;
  {
    MutexLock lock(&listeners_->mutex);
    listeners_->closed = true;
    writers.swap(listeners_->writers);
  }
  for (const auto& [id, writer] : writers) {
    writer->Finish(/*close=*/true);
  }
}

void AdminEvents::Run() {
  Listeners& listeners = *listeners_;
  const auto awake = [&listeners]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(listeners.mutex) {
    return listeners.closed || !listeners.writers.empty();
  };
  while (true) {
    {
      MutexLock lock(&listeners.mutex);
      listeners.mutex.Await(Condition(&awake));
      listeners.mutex.AwaitWithDeadline(Condition(&listeners.closed),
                                        clock_->Now() + period_);
      if (listeners.closed) {
        return;
      }
    }
    const std::string event = EventText(next_());
    std::vector<std::shared_ptr<ResponseWriter>> writers;
    {
      MutexLock lock(&listeners.mutex);
      for (const auto& [id, writer] : listeners.writers) {
        writers.push_back(writer);
      }
    }
    for (const auto& writer : writers) {
      writer->Write(event);
    }
  }
}

}  // namespace tessera::coordinator
